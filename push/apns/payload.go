package apns

import (
	"errors"
	"maps"
	"time"

	"github.com/matrix-herald/herald/push"
)

// Largest payloads that Apple takes, in bytes of JSON ("Generating a remote
// notification").
const (
	MaxPayload     = 4096
	MaxVoIPPayload = 5120
)

// malformed is the outcome where the pusher's default_payload cannot become an APNs
// payload, or is so long that it leaves no room for an event.
func malformed(why string) push.Outcome {
	return push.Outcome{Kind: push.Rejected, Reason: push.ReasonMalformedData, Err: errors.New("default_payload: " + why)}
}

// nothing is the outcome where there is nothing to send.
var nothing = push.Outcome{Kind: push.Accepted, Reason: push.ReasonNothingToSend}

// PayloadOptions are the settings of an app that shape its payloads.
type PayloadOptions struct {
	// BadgeCounts puts the counts of the notification into the payload.
	BadgeCounts bool
	// BadgeAlone also sends counts that come without an event.
	BadgeAlone bool
	// Tweaks passes the push rule's tweaks on: the sound as aps.sound, unless
	// the default_payload has a sound of its own, and "highlight": true beside
	// aps.
	Tweaks bool
	// DefaultSound is the sound of an alert that is the default_payload's, where
	// nothing else names one; "" is none.
	DefaultSound string
	// VoIP is set for pushes that make a phone ring: the limit is larger, and
	// nothing but calls is sent.
	VoIP bool
	// MaxBytes is the size limit; 0 is Apple's.
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
	// Call is what is known of a call: it must not come later.
	Call push.Call
}

// NewPayload makes the payload of d at now, as Sygnal makes it. There are two
// formats: when only the event's id is known (pusher data "format":
// "event_id_only") the payload is the default_payload and the ids; otherwise
// the notification becomes a localised alert, a badge, or both.
//
// Texts are cut so that the payload fits. Without a payload the outcome says why. d
// is not changed.
func NewPayload(d push.Delivery, o PayloadOptions, now time.Time) (Payload, push.Outcome) {
	call := d.Call(now)
	e := push.Once(d.Common, func() *event { return newEvent(d.Notification, call) })
	if further := d.Notification.Further; further != nil && e.countsOnly { // the app finds the event in them
		shown := *e
		shown.idOnly, shown.countsOnly = true, false
		e = &shown
	}
	base, ok := d.Device.DefaultPayload()
	if !ok {
		return Payload{}, malformed("not an object")
	}
	limit := MaxPayload
	if o.VoIP {
		// An app that takes a VoIP push and shows no call is killed, and gets no
		// more of them in the end.
		if !e.idOnly && call.Left(now) == 0 {
			return Payload{}, nothing
		}
		limit = MaxVoIPPayload
	}
	if o.MaxBytes != 0 {
		limit = o.MaxBytes
	}
	counts := d.Notification.Counts
	if !o.BadgeCounts || d.Device.BadgeDisabled() || e.countsOnly && !o.BadgeAlone {
		counts = push.Counts{}
		if e.countsOnly {
			return Payload{}, nothing
		}
	}
	var root map[string]any
	if e.idOnly {
		root = e.idPayload(base, counts)
	} else {
		var out push.Outcome
		if root, out = e.fullPayload(base, counts); root == nil {
			return Payload{}, out
		}
	}
	if o.Tweaks {
		addTweaks(root, d.Device.Tweaks)
	}
	if e.idOnly && alerts(root) {
		addSound(root, o.DefaultSound)
	}
	p := classifyPayload(root)
	p.Call = call
	for name, v := range d.Notification.Further {
		if v != nil {
			root[name] = v
		}
	}
	switch p.JSON = fit(root, limit); {
	case p.JSON != nil:
		return p, push.Outcome{}
	case len(d.Notification.Further) > 0: // which are of strangers
		return NewPayload(d.WithoutFurther(), o, now)
	}
	return p, malformed("it cannot be cut and leaves no room")
}

// idPayload is the payload of a notification that names nothing but ids. It
// leaves aps as the app wrote it, the badge included.
func (e *event) idPayload(base map[string]any, counts push.Counts) map[string]any {
	root := make(map[string]any, len(base)+4)
	maps.Copy(root, base)
	e.addIDs(root)
	if counts.Unread != nil {
		root["unread_count"] = *counts.Unread
	}
	if counts.MissedCalls != nil {
		root["missed_calls"] = *counts.MissedCalls
	}
	return root
}

// fullPayload is the payload of a notification with its event, or of counts
// alone, where those that are 0 may be missing. It is nil when there is neither
// an alert nor a badge to show.
func (e *event) fullPayload(base map[string]any, counts push.Counts) (map[string]any, push.Outcome) {
	badge := counts.Known() || e.countsOnly
	if e.alertKey == "" && !badge {
		return nil, nothing
	}
	root := make(map[string]any, len(base)+3)
	aps := make(map[string]any, 2)
	if !e.countsOnly && !e.quiet {
		maps.Copy(root, base)
		if v, there := base["aps"]; there {
			m, ok := v.(map[string]any)
			if !ok {
				return nil, malformed("aps is not an object")
			}
			maps.Copy(aps, m)
		}
	}
	root["aps"] = aps
	if badge {
		aps["badge"] = counts.Badge()
	}
	if e.alertKey != "" {
		alert := make(map[string]any, 3)
		switch v := aps["alert"].(type) {
		case map[string]any:
			maps.Copy(alert, v)
		case string: // the short form of an alert that is all body
			alert["body"] = v
		}
		alert["loc-key"], alert["loc-args"] = e.alertKey, e.alertArgs
		aps["alert"] = alert
		e.addIDs(root)
	}
	return root, push.Outcome{}
}

func (e *event) addIDs(root map[string]any) {
	if e.roomID != nil {
		root["room_id"] = e.roomID
	}
	if e.eventID != nil {
		root["event_id"] = e.eventID
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
	addSound(root, tweaks.Sound)
}

// addSound adds a sound, "" for none, to a payload that has none.
func addSound(root map[string]any, sound string) {
	aps, ok := root["aps"].(map[string]any)
	if root["aps"] != nil && !ok || sound == "" || encodedLen(sound) > maxSound {
		return
	}
	if _, there := aps["sound"]; !there {
		changed := make(map[string]any, len(aps)+1)
		maps.Copy(changed, aps)
		changed["sound"] = sound
		root["aps"] = changed
	}
}

// alerts reports whether a payload shows an alert.
func alerts(root map[string]any) bool {
	aps, _ := root["aps"].(map[string]any)
	return aps["alert"] != nil
}

// classifyPayload finds what Apple's rules for the push type and the priority
// look at ("Pushing background updates to your App").
func classifyPayload(root map[string]any) Payload {
	aps, _ := root["aps"].(map[string]any)
	if aps["alert"] != nil || aps["sound"] != nil {
		return Payload{}
	}
	_, badge := aps["badge"]
	available := aps["content-available"] == true
	if n, ok := push.Number(aps["content-available"]); ok {
		available = n == 1 // however it is written
	}
	return Payload{Background: available && !badge, BadgeOnly: badge}
}
