package httpapi

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"

	"github.com/matrix-herald/herald/internal/mxhttp"
	"github.com/matrix-herald/herald/push"
)

// Limits of one request.
const (
	maxBody     = 512 << 10 // bytes
	slowestBody = 64 << 10  // bytes a second
	maxDevices  = 100
	// maxID is the longest id, in bytes, that an event, a room, a user or a type of
	// event can have (Client-Server API, "Size limits").
	maxID = 255
	// maxFurther is the longest member that is passed on as it is, in bytes: no push
	// service takes more.
	maxFurther = 5 << 10
	// maxDecoded is what a member may take in memory that a member of a room writes,
	// in bytes. An event has 64 KiB of text.
	maxDecoded = 256 << 10
)

// LeastBytesInFlight is the least that Options.BytesInFlight may be: a source may
// hold a quarter, which the largest request and what is decoded of it fill.
const LeastBytesInFlight = 8 * maxBody

// request is a request as it was understood.
type request struct {
	notification push.Notification
	devices      []push.Device
}

// parser reads the body of POST /_matrix/push/v1/notify. It is strict where the
// request cannot be understood and lenient elsewhere: a homeserver that gets a
// 4xx holds back all of that pusher's notifications and repeats this one for a
// day. Of members with the same name the last one counts.
//
// It reads member by member, because building maps of everything first cost a
// third of the memory of a request.
type parser struct {
	mxhttp.Decoder

	passesOn func(name string) bool
}

// readNotify reads a request. Its errors are *mxhttp.Error.
func (a *api) readNotify(w http.ResponseWriter, r *http.Request) (req *request, err error) {
	err = a.decoders.ReadBody(w, r, maxBody, func(d mxhttp.Decoder) (err error) {
		req, err = parser{d, a.Gateway.PassesOn}.body()
		return err
	})
	return req, err
}

func (p parser) body() (*request, error) {
	var req *request
	isObject, err := p.Members(func(name []byte) (err error) {
		if string(name) != `"notification"` {
			return p.SkipValue()
		}
		req, err = p.notification()
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case !isObject:
		return nil, mxhttp.ErrNotObject()
	case req == nil:
		return nil, missing("notification")
	}
	return req, nil
}

func (p parser) notification() (*request, error) {
	req := new(request)
	hasDevices := false
	isObject, err := p.Members(func(name []byte) (err error) {
		if string(name) == `"devices"` {
			hasDevices = true
			req.devices, err = p.devices()
			return err
		}
		return p.notificationMember(&req.notification, name)
	})
	switch {
	case err != nil:
		return nil, err
	case !isObject:
		return nil, badJSON("notification: expected an object")
	case !hasDevices:
		return nil, missing("notification.devices")
	}
	return req, nil
}

func (p parser) notificationMember(n *push.Notification, name []byte) (err error) {
	switch string(name) {
	case `"event_id"`:
		n.EventID, err = p.id()
	case `"type"`:
		n.Type, err = p.id()
	case `"room_id"`:
		if n.RoomID, err = p.text(); len(n.RoomID.String()) > maxID {
			n.RoomID = push.Member{}
		}
	case `"room_name"`:
		n.RoomName, err = p.text()
	case `"room_alias"`:
		n.RoomAlias, err = p.text()
	case `"sender"`:
		n.Sender, err = p.text()
	case `"sender_display_name"`:
		n.SenderDisplayName, err = p.text()
	case `"membership"`:
		n.Membership, err = p.text()
	case `"user_is_target"`:
		var m push.Member
		m, err = p.any()
		n.UserIsTarget = m.Truthy()
	case `"prio"`:
		var prio string
		prio, _, err = p.Text()
		n.Low = prio == "low"
	case `"content"`:
		n.Content, err = p.Within(maxDecoded)
	case `"counts"`:
		n.Counts, err = p.counts()
	default:
		err = p.further(n, strings.Trim(string(name), `"`))
	}
	return err
}

// further is a member that is kept only if an app passes it on.
func (p parser) further(n *push.Notification, name string) error {
	if !p.passesOn(name) {
		return p.SkipValue()
	}
	start := p.InputOffset()
	v, err := p.Within(maxDecoded)
	if p.InputOffset()-start > maxFurther {
		v = nil
	}
	if n.Further == nil {
		n.Further = make(map[string]any)
	}
	n.Further[name] = v
	return err
}

// id is a member that is kept if it is a short scalar. What is longer than the
// specification allows, or a list or an object, is absent.
func (p parser) id() (push.Member, error) {
	m, err := p.any()
	switch v := m.Value().(type) {
	case map[string]any, []any:
		return push.Member{}, err
	case json.Number:
		if len(v) > maxID {
			return push.Member{}, err
		}
	}
	if len(m.String()) > maxID {
		return push.Member{}, err
	}
	return m, err
}

// any is a member that is kept whatever its type.
func (p parser) any() (push.Member, error) {
	if p.PeekKind() == '"' {
		return p.text()
	}
	v, err := p.Within(maxDecoded)
	return push.NewMember(v), err
}

// text is a member that means something only as a string.
func (p parser) text() (push.Member, error) {
	s, ok, err := p.Text()
	if !ok {
		return push.Member{}, err
	}
	return push.NewText(s), nil
}

func (p parser) devices() ([]push.Device, error) {
	if p.PeekKind() != '[' {
		if err := p.SkipValue(); err != nil {
			return nil, err
		}
		return nil, badJSON("notification.devices: expected a list")
	}
	if _, err := p.ReadToken(); err != nil {
		return nil, err
	}
	devices := make([]push.Device, 0, 1) // what homeservers send
	for p.PeekKind() != ']' {
		if len(devices) == maxDevices {
			return nil, &mxhttp.Error{
				Status: http.StatusRequestEntityTooLarge, Code: "M_TOO_LARGE",
				Msg: fmt.Sprintf("notification.devices: at most %d devices are allowed", maxDevices),
			}
		}
		d, err := p.device(len(devices))
		if err != nil {
			return nil, err
		}
		devices = append(devices, d)
	}
	if _, err := p.ReadToken(); err != nil {
		return nil, err
	}
	if len(devices) == 0 {
		return nil, badJSON("notification.devices: the list is empty")
	}
	return devices, nil
}

func (p parser) device(i int) (push.Device, error) {
	var d push.Device
	var appID, pushKey *push.Member
	isObject, err := p.Members(func(name []byte) (err error) {
		switch string(name) {
		case `"app_id"`:
			appID, err = p.present()
		case `"pushkey"`:
			pushKey, err = p.present()
		case `"pushkey_ts"`:
			var v any
			if v, err = p.Value(); err == nil {
				d.PushKeyTS = seconds(v)
			}
		case `"data"`:
			var v any
			v, err = p.Value()
			d.Data, _ = v.(map[string]any)
		case `"tweaks"`:
			d.Tweaks, err = p.tweaks()
		default:
			err = p.SkipValue()
		}
		return err
	})
	switch {
	case err != nil:
		return d, err
	case !isObject:
		return d, badJSON("notification.devices[" + strconv.Itoa(i) + "]: expected an object")
	}
	if d.AppID, err = required(appID, "app_id", i); err != nil {
		return d, err
	}
	d.PushKey, err = required(pushKey, "pushkey", i)
	return d, err
}

// present is a member that is there, whatever its type.
func (p parser) present() (*push.Member, error) {
	m, err := p.text()
	return &m, err
}

// required returns the text of a member that must be there.
func required(m *push.Member, name string, i int) (string, error) {
	path := "notification.devices[" + strconv.Itoa(i) + "]." + name
	if m == nil {
		return "", missing(path)
	}
	text, ok := m.Text()
	if !ok {
		return "", badJSON(path + ": expected a string")
	}
	return text, nil
}

// year3000 is in seconds since the epoch. What is later is in milliseconds.
const year3000 = 32_503_680_000

// seconds returns v as a time in seconds, 0 if it is none.
func seconds(v any) int64 {
	ts, ok := push.Number(v)
	if ok && ts >= year3000 {
		ts /= 1000
	}
	if ok && ts > 0 && ts < math.MaxInt64/1000 {
		return int64(ts)
	}
	return 0
}

func (p parser) tweaks() (push.Tweaks, error) {
	var t push.Tweaks
	_, err := p.Members(func(name []byte) error {
		v, err := p.Value()
		switch string(name) {
		case `"sound"`:
			t.Sound, _ = v.(string)
			if v == true { // Synapse's way to say that there is a tweak without a value
				t.Sound = "default"
			}
		case `"highlight"`:
			// Dendrite writes null for a tweak without a value; without a value
			// the highlight tweak is true (Client-Server API, "Actions").
			t.Highlight = v == nil || v == true
		}
		return err
	})
	return t, err
}

// counts reads the counts object. A wrong count is refused, because the badge it
// would leave on the phone stays there.
func (p parser) counts() (push.Counts, error) {
	var c push.Counts
	_, err := p.Members(func(name []byte) (err error) {
		switch string(name) {
		case `"unread"`:
			c.Unread, err = p.count("unread")
		case `"missed_calls"`:
			c.MissedCalls, err = p.count("missed_calls")
		default:
			err = p.SkipValue()
		}
		return err
	})
	return c, err
}

func (p parser) count(name string) (*int64, error) {
	v, err := p.Value()
	if err != nil || v == nil {
		return nil, err
	}
	f, ok := push.Number(v)
	if !ok || f != math.Trunc(f) {
		return nil, badJSON("notification.counts." + name + ": expected an integer")
	}
	// No badge is negative, and none needs more than 32 bits.
	count := int64(min(max(f, 0), math.MaxInt32))
	return &count, nil
}

func missing(path string) error {
	return &mxhttp.Error{Status: http.StatusBadRequest, Code: "M_MISSING_PARAM", Msg: path + " is missing"}
}

func badJSON(msg string) error {
	return &mxhttp.Error{Status: http.StatusBadRequest, Code: "M_BAD_JSON", Msg: msg}
}
