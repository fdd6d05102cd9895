package apns

import (
	"encoding/json"
	"time"

	"github.com/matrix-herald/herald/push"
)

// event is what payloads show of a notification. It is the same for all devices
// and bounded, whatever the notification holds: nobody looks into that again.
type event struct {
	roomID, eventID any    // as they are carried on, nil for none
	alertKey        string // of the alert in the full format, "" for none
	alertArgs       []any  // texts
	// idOnly: no more than ids are known (pusher data "format":
	// "event_id_only").
	idOnly bool
	// countsOnly: there is no event.
	countsOnly bool
	// rings: it is a call that rings until ringsUntil.
	rings      bool
	ringsUntil time.Time
}

// newEvent looks at a notification that came at now.
func newEvent(n *push.Notification, now time.Time) *event {
	e := &event{roomID: id(n.RoomID), eventID: id(n.EventID)}
	typed := n.Type.Truthy()
	e.idOnly = e.eventID != nil && !typed
	e.countsOnly = e.eventID == nil && !typed
	e.ringsUntil, e.rings = ringsUntil(n, now)
	a := alertOf(n)
	e.alertKey = a.key
	args := a.args
	if lengths, total := encodedLens(args); total > MaxPayload { // more never fits, and calls have short ones
		args = level(args, lengths, MaxPayload)
	}
	e.alertArgs = make([]any, len(args))
	for i, arg := range args {
		e.alertArgs[i] = arg
	}
	return e
}

// Bounds of ids, in bytes: the longest that the specification allows
// (Client-Server API, "Size limits"), and what a number needs.
const (
	maxID       = 255
	maxNumberID = 64
)

// id returns an id as it is carried on to the app: of any scalar type, because
// homeservers are believed, but short. Anything else is no id.
func id(m push.Member) any {
	switch v := m.Value().(type) {
	case string:
		if v != "" && len(v) <= maxID {
			return v
		}
	case json.Number:
		if len(v) <= maxNumberID && m.Truthy() {
			return v
		}
	case bool:
		if v {
			return v
		}
	}
	return nil
}

const (
	// maxRinging is the longest that a call rings.
	maxRinging = 2 * time.Minute
	// usualRinging is for calls that do not say how long they ring.
	usualRinging = time.Minute
	// maxClockSkew is how far a sender's clock may be off to be believed.
	maxClockSkew = 20 * time.Second
)

// ringsUntil returns when the call that n announces has rung, if it announces
// one that rings: an m.call.invite (Client-Server API, "Voice over IP"), or an
// m.rtc.notification of type ring (MSC4075), also by its former names.
func ringsUntil(n *push.Notification, now time.Time) (until time.Time, rings bool) {
	content, _ := n.Content.(map[string]any)
	application, _ := content["application"].(map[string]any)
	member := func(name string) any {
		if v, there := application[name]; there {
			return v
		}
		return content[name] // of m.call.invite, and of older clients
	}
	switch n.Type.String() {
	case "m.call.invite":
	case "m.rtc.notification", "org.matrix.msc4075.rtc.notification", "m.call.notify", "org.matrix.msc4075.call.notify":
		if member("notification_type") != "ring" && member("notify_type") != "ring" {
			return time.Time{}, false
		}
	default:
		return time.Time{}, false
	}
	life := usualRinging
	if ms, ok := number(member("lifetime")); ok {
		life = time.Duration(min(max(ms, 0), float64(maxRinging/time.Millisecond))) * time.Millisecond
	}
	until = now.Add(life)
	if ms, ok := number(member("sender_ts")); ok && ms > 0 && ms < 1<<53 {
		if sent := time.UnixMilli(int64(ms)); sent.Sub(now).Abs() <= maxClockSkew && sent.Before(now) {
			until = sent.Add(life)
		}
	}
	return until, true
}

// number returns the value of a JSON number.
func number(v any) (float64, bool) {
	n, ok := v.(json.Number)
	if !ok {
		return 0, false
	}
	f, err := n.Float64()
	return f, err == nil
}
