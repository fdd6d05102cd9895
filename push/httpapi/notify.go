package httpapi

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"

	"github.com/matrix-herald/herald/internal/mxhttp"
	"github.com/matrix-herald/herald/push"
)

// Limits of one request.
const (
	maxBody    = 512 << 10 // bytes
	maxDevices = 100
)

// request is a request as it was understood.
type request struct {
	notification push.Notification
	devices      []push.Device
}

// parseNotify reads the body of POST /_matrix/push/v1/notify. It is strict
// where the request cannot be understood and lenient elsewhere: a homeserver
// that gets a 4xx holds back all of that pusher's notifications and repeats
// this one for a day. Errors are *mxhttp.Error.
func parseNotify(body map[string]any) (*request, error) {
	n, err := object(body, "notification", "notification")
	if err != nil {
		return nil, err
	}
	v, there := n["devices"]
	if !there {
		return nil, missing("notification.devices")
	}
	list, ok := v.([]any)
	switch {
	case !ok:
		return nil, badJSON("notification.devices: expected a list")
	case len(list) == 0:
		return nil, badJSON("notification.devices: the list is empty")
	case len(list) > maxDevices:
		return nil, &mxhttp.Error{
			Status: http.StatusRequestEntityTooLarge, Code: "M_TOO_LARGE",
			Msg: fmt.Sprintf("notification.devices: %d devices, at most %d are allowed", len(list), maxDevices),
		}
	}
	req := &request{devices: make([]push.Device, len(list))}
	for i, item := range list {
		if err := parseDevice(&req.devices[i], item, i); err != nil {
			return nil, err
		}
	}
	counts, err := parseCounts(n["counts"])
	if err != nil {
		return nil, err
	}
	req.notification = push.Notification{
		EventID:           push.NewMember(n["event_id"]),
		Type:              push.NewMember(n["type"]),
		RoomID:            text(n, "room_id"),
		RoomName:          text(n, "room_name"),
		RoomAlias:         text(n, "room_alias"),
		Sender:            text(n, "sender"),
		SenderDisplayName: text(n, "sender_display_name"),
		Membership:        text(n, "membership"),
		UserIsTarget:      push.NewMember(n["user_is_target"]).Truthy(),
		Low:               n["prio"] == "low",
		Content:           n["content"],
		Counts:            counts,
	}
	return req, nil
}

func parseDevice(d *push.Device, item any, i int) error {
	m, ok := item.(map[string]any)
	if !ok {
		return badJSON(fmt.Sprintf("notification.devices[%d]: expected an object", i))
	}
	var err error
	if d.AppID, err = requiredString(m, "app_id", i); err != nil {
		return err
	}
	if d.PushKey, err = requiredString(m, "pushkey", i); err != nil {
		return err
	}
	if ts, ok := number(m["pushkey_ts"]); ok && ts > 0 && ts < math.MaxInt64/1000 {
		d.PushKeyTS = int64(ts)
	}
	d.Data, _ = m["data"].(map[string]any)
	tweaks, _ := m["tweaks"].(map[string]any)
	switch sound := tweaks["sound"].(type) {
	case string:
		d.Tweaks.Sound = sound
	case bool: // Synapse's way to say that there is a tweak without a value
		if sound {
			d.Tweaks.Sound = "default"
		}
	}
	// Dendrite writes null for a tweak without a value; without a value the
	// highlight tweak is true (Client-Server API, "Actions").
	if highlight, there := tweaks["highlight"]; there {
		d.Tweaks.Highlight = highlight == nil || highlight == true
	}
	return nil
}

// parseCounts reads the counts object. A wrong count is refused, because the
// badge it would leave on the phone stays there.
func parseCounts(v any) (push.Counts, error) {
	m, ok := v.(map[string]any)
	if !ok {
		return push.Counts{}, nil
	}
	var c push.Counts
	var err error
	if c.Unread, err = parseCount(m, "unread"); err != nil {
		return push.Counts{}, err
	}
	c.MissedCalls, err = parseCount(m, "missed_calls")
	return c, err
}

func parseCount(m map[string]any, name string) (*int64, error) {
	v := m[name]
	if v == nil {
		return nil, nil
	}
	f, ok := number(v)
	if !ok || f != math.Trunc(f) {
		return nil, badJSON("notification.counts." + name + ": expected an integer")
	}
	// No badge is negative, and none needs more than 32 bits.
	count := int64(min(max(f, 0), math.MaxInt32))
	return &count, nil
}

// number returns v as a float64 if it is a JSON number within its range.
func number(v any) (float64, bool) {
	n, ok := v.(json.Number)
	if !ok {
		return 0, false
	}
	f, err := n.Float64()
	return f, err == nil
}

// text is a member that means something only as a string.
func text(m map[string]any, name string) push.Member {
	if s, ok := m[name].(string); ok {
		return push.NewMember(s)
	}
	return push.Member{}
}

func object(m map[string]any, name, path string) (map[string]any, error) {
	v, there := m[name]
	if !there {
		return nil, missing(path)
	}
	o, ok := v.(map[string]any)
	if !ok {
		return nil, badJSON(path + ": expected an object")
	}
	return o, nil
}

func requiredString(m map[string]any, name string, i int) (string, error) {
	v, there := m[name]
	if s, ok := v.(string); ok {
		return s, nil
	}
	path := fmt.Sprintf("notification.devices[%d].%s", i, name)
	if !there {
		return "", missing(path)
	}
	return "", badJSON(path + ": expected a string")
}

func missing(path string) error {
	return &mxhttp.Error{Status: http.StatusBadRequest, Code: "M_MISSING_PARAM", Msg: path + " is missing"}
}

func badJSON(msg string) error {
	return &mxhttp.Error{Status: http.StatusBadRequest, Code: "M_BAD_JSON", Msg: msg}
}
