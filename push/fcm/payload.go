package fcm

import (
	"bytes"
	"cmp"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"firebase.google.com/go/v4/messaging"

	"github.com/matrix-herald/herald/push"
)

const (
	// maxData is what FCM lets the keys and values of a message's data weigh
	// together, in bytes (Firebase, "Message types").
	maxData = 4096
	// maxField is what one member of an event may weigh in bytes, before all
	// of them together are measured.
	maxField = 1024

	// roomForEvent is what a pusher's default_payload has to leave: the members
	// event_id and room_id, of 255 bytes at most (Appendices, "Common
	// Identifier Format"), and prio.
	roomForEvent = len("event_id") + len("room_id") + 2*255 + len("prionormal")

	ellipsis      = "…"
	contentPrefix = "content_"
)

// Payload says what an app's messages look like. The zero value sends every
// notification's members and no badge counts.
type Payload struct {
	// Base holds the members that every message starts from, nil for none. It
	// is shared by all messages and never written to.
	Base *messaging.Message
	// TTL is how long FCM keeps a message for a device that is away: 0 is "now
	// or never", nil FCM's own default of four weeks.
	TTL *time.Duration
	// CollapseRoom lets a room's newer message replace an older one that still
	// waits for the device.
	CollapseRoom bool
	// BadgeCounts sends the unread and missed_calls counts, BadgeZero also
	// those that are 0.
	BadgeCounts, BadgeZero bool
	// Tweaks sends the tweaks of the push rule as "sound" and "highlight".
	Tweaks bool
}

// Message builds the message for one device. If there is none to send the
// message is nil and the outcome says why: Accepted when the notification has
// neither an event nor a count, Rejected when the pusher's default_payload is
// not an object or leaves no room for the event, Dropped when the event itself
// is too large. It changes neither n nor d.
func (p Payload) Message(n *push.Notification, d *push.Device) (*messaging.Message, push.Outcome) {
	defaults, ok := d.DefaultPayload()
	if !ok {
		return nil, push.Outcome{Kind: push.Rejected, Reason: push.ReasonMalformedData}
	}
	unread, hasUnread := p.count(n.Counts.Unread)
	missed, hasMissed := p.count(n.Counts.MissedCalls)
	if !n.EventID.Truthy() && !n.RoomID.Truthy() && !hasUnread && !hasMissed {
		return nil, push.Outcome{Kind: push.Accepted, Reason: push.ReasonNothingToSend}
	}

	data := make(map[string]string, 16)
	addDefaults(data, defaults)
	defaultsSize := size(data)
	addEvent(data, n)
	addContent(data, n, defaults)
	if hasUnread {
		data["unread"] = unread
	}
	if hasMissed {
		data["missed_calls"] = missed
	}
	if p.Tweaks {
		addTweaks(data, d.Tweaks)
	}
	if !fit(data) {
		// Only a pusher that leaves no room for any event is at fault. An event,
		// which strangers write, must not cost a device its pusher.
		if defaultsSize > maxData-roomForEvent {
			return nil, push.Outcome{Kind: push.Rejected, Reason: push.ReasonMalformedData}
		}
		return nil, push.Outcome{Kind: push.Dropped, Reason: push.ReasonTooLarge}
	}
	return p.wrap(data, n, d.PushKey), push.Outcome{}
}

// wrap puts data into the app's base message.
func (p Payload) wrap(data map[string]string, n *push.Notification, token string) *messaging.Message {
	var msg messaging.Message
	if p.Base != nil {
		msg = *p.Base
	}
	var android messaging.AndroidConfig
	if msg.Android != nil {
		android = *msg.Android
	}
	android.Priority = data["prio"]
	if p.TTL != nil {
		android.TTL = p.TTL
	}
	if room := n.RoomID.String(); p.CollapseRoom && room != "" {
		// Hashed because FCM bounds the key and only needs to compare it.
		android.CollapseKey = push.Fingerprint(room)
	}
	msg.Token, msg.Data, msg.Android = token, data, &android
	return &msg
}

// count returns the text of a badge count and whether it is sent.
func (p Payload) count(c *int64) (string, bool) {
	if c == nil || !p.BadgeCounts || *c == 0 && !p.BadgeZero {
		return "", false
	}
	return strconv.FormatInt(*c, 10), true
}

// addDefaults copies the pusher's default_payload. FCM takes only strings, so
// other values go out as their JSON text. Keys that FCM keeps for itself are
// left out: one of them would make FCM refuse every message of the pusher.
// The member "content" belongs to addContent.
func addDefaults(data map[string]string, defaults map[string]any) {
	for key, value := range defaults {
		if key == "content" || reserved(key) {
			continue
		}
		if s, ok := text(value); ok {
			data[strings.ToValidUTF8(key, "\uFFFD")] = s
		}
	}
}

// reserved reports whether FCM refuses a message with such a data key
// (Firebase, "RemoteMessage data": from, message_type, google…, gcm…).
func reserved(key string) bool {
	return key == "" || key == "from" || key == "message_type" ||
		strings.HasPrefix(key, "google") || strings.HasPrefix(key, "gcm")
}

// addEvent adds the members of the notification that are strings.
func addEvent(data map[string]string, n *push.Notification) {
	for _, m := range [...]struct {
		key   string
		value push.Member
	}{
		{"event_id", n.EventID},
		{"type", n.Type},
		{"sender", n.Sender},
		{"room_name", n.RoomName},
		{"room_alias", n.RoomAlias},
		{"membership", n.Membership},
		{"sender_display_name", n.SenderDisplayName},
		{"room_id", n.RoomID},
	} {
		if s, ok := m.value.Text(); ok {
			data[m.key] = cut(s, maxField)
		}
	}
	data["prio"] = "high"
	if n.Low {
		data["prio"] = "normal"
	}
}

// addContent adds the strings of the event's content as content_<key>. A
// notification without content has that of the default_payload.
func addContent(data map[string]string, n *push.Notification, defaults map[string]any) {
	content := n.Content
	if content == nil {
		var there bool
		if content, there = defaults["content"]; !there {
			return
		}
	}
	members, ok := content.(map[string]any)
	if !ok {
		if s, ok := text(content); ok {
			data["content"] = s
		}
		return
	}
	for key, value := range members {
		if s, ok := value.(string); ok {
			data[contentPrefix+strings.ToValidUTF8(key, "\uFFFD")] = cut(s, maxField)
		}
	}
}

func addTweaks(data map[string]string, t push.Tweaks) {
	if t.Sound != "" {
		data["sound"] = cut(t.Sound, maxField)
	}
	if t.Highlight {
		data["highlight"] = "true"
	}
}

// text returns a string as it is and anything else as its JSON text; false
// for what has none.
func text(value any) (string, bool) {
	if s, ok := value.(string); ok {
		return strings.ToValidUTF8(s, "\uFFFD"), true
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(value); err != nil {
		return "", false
	}
	return strings.TrimSuffix(b.String(), "\n"), true
}

// cut returns s if it has at most limit bytes, else as much of its beginning as
// fits before an ellipsis without splitting a character. Where not even the
// ellipsis fits it returns "".
func cut(s string, limit int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= limit {
		return s
	}
	end := limit - len(ellipsis)
	if end < 0 {
		return ""
	}
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + ellipsis
}

func size(data map[string]string) int {
	var n int
	for key, value := range data {
		n += len(key) + len(value)
	}
	return n
}

// fit makes data small enough for FCM and reports whether that was possible.
// It cuts the body first, then the content's longest members, then leaves the
// content out, and at last cuts the names that only people read. What apps
// find the event by stays whole.
func fit(data map[string]string) bool {
	over := size(data) - maxData
	if over <= 0 {
		return true
	}
	shorten := func(key string) {
		if value, there := data[key]; there && over > 0 {
			data[key] = cut(value, max(0, len(value)-over))
			over -= len(value) - len(data[key])
		}
	}
	drop := func(key string) {
		if value, there := data[key]; there && over > 0 {
			delete(data, key)
			over -= len(key) + len(value)
		}
	}

	var content []string
	for key := range data {
		if strings.HasPrefix(key, contentPrefix) {
			content = append(content, key)
		}
	}
	longestFirst(content, data)
	shorten("content_body")
	for _, key := range content {
		shorten(key)
	}
	drop("content")
	for _, key := range content {
		drop(key)
	}
	names := []string{"room_name", "room_alias", "sender_display_name"}
	longestFirst(names, data)
	for _, key := range names {
		shorten(key)
	}
	return over <= 0
}

// longestFirst sorts keys by the length of their values, equal ones by name so
// that the same event always gives the same message.
func longestFirst(keys []string, data map[string]string) {
	slices.SortFunc(keys, func(a, b string) int {
		return cmp.Or(cmp.Compare(len(data[b]), len(data[a])), cmp.Compare(a, b))
	})
}
