package apns

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"

	"github.com/matrix-herald/herald/push"
)

// Largest payloads that Apple takes, in bytes of JSON ("Generating a remote
// notification").
const (
	MaxPayload     = 4096
	MaxVoIPPayload = 5120
)

var (
	// ErrMalformedData says that the pusher's default_payload cannot become an
	// APNs payload, or is so long that it leaves no room for an event.
	ErrMalformedData = errors.New("default_payload unusable")
	// ErrTooLarge says that the notification does not fit although the
	// pusher's default_payload leaves room for what homeservers send.
	ErrTooLarge = errors.New("notification too large")
)

// PayloadOptions are the settings of an app that shape its payloads.
type PayloadOptions struct {
	// BadgeCounts puts the counts of the notification into the payload.
	BadgeCounts bool
	// Tweaks passes the push rule's tweaks on: the sound as aps.sound, unless
	// the default_payload has a sound of its own, and "highlight": true beside
	// aps.
	Tweaks bool
	// MaxBytes is the size limit; 0 is MaxPayload.
	MaxBytes int
}

// Payload is what is sent to one device and what its headers depend on.
type Payload struct {
	// JSON is the body of the request, nil when there is nothing to send.
	JSON []byte
	// Background is true when Apple counts the payload as a background push:
	// content-available without anything the user notices.
	Background bool
	// BadgeOnly is true when the payload does no more than set the badge.
	BadgeOnly bool
}

// NewPayload makes the payload of n for d, as Sygnal makes it. There are two
// formats: when only the event's id is known (pusher data "format":
// "event_id_only") the payload is the default_payload and the ids; otherwise
// the notification becomes a localised alert, a badge, or both.
//
// Texts are cut so that the payload fits. The error wraps ErrMalformedData or
// ErrTooLarge. n and d are not changed.
func NewPayload(n *push.Notification, d *push.Device, o PayloadOptions) (Payload, error) {
	if o.MaxBytes == 0 {
		o.MaxBytes = MaxPayload
	}
	base, ok := d.DefaultPayload()
	if !ok {
		return Payload{}, fmt.Errorf("%w: not an object", ErrMalformedData)
	}
	var root map[string]any
	var err error
	if n.EventID.Truthy() && !n.Type.Truthy() {
		root = eventOnly(n, base, o)
	} else if root, err = full(n, base, o); err != nil || root == nil {
		return Payload{}, err
	}
	if o.Tweaks {
		addTweaks(root, d.Tweaks)
	}
	p := classifyPayload(root)
	p.JSON, err = fit(root, o.MaxBytes)
	return p, err
}

// eventOnly is the payload of a notification that names nothing but ids. It
// leaves aps as the app wrote it, the badge included.
func eventOnly(n *push.Notification, base map[string]any, o PayloadOptions) map[string]any {
	root := make(map[string]any, len(base)+4)
	maps.Copy(root, base)
	addIDs(root, n)
	if o.BadgeCounts {
		if c := n.Counts.Unread; c != nil {
			root["unread_count"] = *c
		}
		if c := n.Counts.MissedCalls; c != nil {
			root["missed_calls"] = *c
		}
	}
	return root
}

// full is the payload of a notification with its event, nil when there is
// neither an alert nor a badge to show.
func full(n *push.Notification, base map[string]any, o PayloadOptions) (map[string]any, error) {
	text := alertOf(n)
	badge := o.BadgeCounts && n.Counts.Known()
	if text.key == "" && !badge {
		return nil, nil
	}
	root := make(map[string]any, len(base)+3)
	aps := make(map[string]any, 2)
	if n.Type.Truthy() {
		maps.Copy(root, base)
		if v, there := base["aps"]; there {
			m, ok := v.(map[string]any)
			if !ok {
				return nil, fmt.Errorf("%w: aps is not an object", ErrMalformedData)
			}
			maps.Copy(aps, m)
		}
	}
	root["aps"] = aps
	if badge {
		aps["badge"] = n.Counts.Badge()
	}
	if text.key != "" {
		alert := make(map[string]any, 3)
		switch v := aps["alert"].(type) {
		case map[string]any:
			maps.Copy(alert, v)
		case string: // the short form of an alert that is all body
			alert["body"] = v
		}
		alert["loc-key"], alert["loc-args"] = text.key, text.args
		aps["alert"] = alert
		addIDs(root, n)
	}
	return root, nil
}

func addIDs(root map[string]any, n *push.Notification) {
	if n.RoomID.Truthy() {
		root["room_id"] = n.RoomID.Value()
	}
	if n.EventID.Truthy() {
		root["event_id"] = n.EventID.Value()
	}
}

// addTweaks adds the tweaks to a payload with an event; a badge makes no
// sound.
func addTweaks(root map[string]any, tweaks push.Tweaks) {
	if root["event_id"] == nil && root["room_id"] == nil {
		return
	}
	if _, set := root["highlight"]; !set && tweaks.Highlight {
		root["highlight"] = true
	}
	aps, ok := root["aps"].(map[string]any)
	if root["aps"] != nil && !ok {
		return
	}
	if _, set := aps["sound"]; !set && tweaks.Sound != "" {
		changed := make(map[string]any, len(aps)+1)
		maps.Copy(changed, aps)
		changed["sound"] = tweaks.Sound
		root["aps"] = changed
	}
}

// classifyPayload finds what Apple's rules for the push type and the priority
// look at ("Pushing background updates to your App").
func classifyPayload(root map[string]any) Payload {
	aps, _ := root["aps"].(map[string]any)
	if aps["alert"] != nil || aps["sound"] != nil {
		return Payload{}
	}
	_, badge := aps["badge"]
	available := false
	switch v := aps["content-available"].(type) {
	case json.Number:
		available = v.String() == "1"
	case bool:
		available = v
	}
	return Payload{Background: available && !badge, BadgeOnly: badge}
}
