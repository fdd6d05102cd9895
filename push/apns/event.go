package apns

import (
	"encoding/json"

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
	// quiet: there is one that shows nothing.
	quiet bool
}

// newEvent looks at a notification, and at what it says of a call.
func newEvent(n *push.Notification, call push.Call) *event {
	e := &event{roomID: id(n.RoomID), eventID: id(n.EventID)}
	typed := n.Type.Truthy()
	e.idOnly = e.eventID != nil && !typed
	e.countsOnly = e.eventID == nil && !typed
	e.quiet = call.Quiet
	a := alertOf(n, call)
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
// homeservers are believed, but short. Anything else is not an id.
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
