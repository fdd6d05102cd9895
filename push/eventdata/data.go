// Package eventdata makes the data that an app gets with a notification: texts by
// name, as Firebase's and Huawei's libraries hand them over. It is pure. It does
// not know the messages in which the data travels; those are the providers'.
package eventdata

import (
	"cmp"
	stdjson "encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/matrix-herald/herald/push"
)

const (
	// nameFloor is what stays of a long name while anything else can be cut, in
	// bytes: people still see who writes, and where.
	nameFloor = 64
	// maxIDWeight is what an id may weigh, of which a push service can count each
	// byte several times: the ids of strangers must not use up the room.
	maxIDWeight = 2 * maxID
	// roomForEvent is what the pusher's own has to leave, for ids as homeservers make
	// them.
	roomForEvent = 128
)

// Format says what of a notification becomes data, and how much of it there is room
// for.
type Format struct {
	// Weigh returns what a member adds to a message, in bytes; nil counts name and
	// value. It is never less than that.
	Weigh func(key, value string) int
	// Limit is what all members together should weigh at most. The pusher's own
	// and what apps find the event by may reach Max.
	Limit, Max int
	// Reserved reports whether the push service refuses a member of that name; nil
	// is none.
	Reserved func(key string) bool
	// BadgeCounts sends the counts of unread messages and missed calls with
	// events, those of 0 only with BadgeZero. BadgeAlone also sends counts that
	// come without an event: of 0 too, since they say nothing else.
	BadgeCounts, BadgeZero, BadgeAlone bool
	// Tweaks sends the tweaks of the push rule as "sound" and "highlight".
	Tweaks bool
	// Dart writes the data as matrix-dart-sdk reads it: content, counts and the
	// device's own entry are JSON texts, and the pusher's data stays in the last.
	Dart bool
}

// Alone reports whether n is about counts alone.
func Alone(n *push.Notification) bool {
	return !n.EventID.Truthy() && !n.RoomID.Truthy() && n.Further == nil
}

// Data returns the data of d, a JSON object of texts. Without any the outcome says
// why: Accepted when the notification has neither an event nor counts to send,
// Rejected when the pusher's default_payload is not an object or leaves no room for
// an event, whatever is in this one. It changes nothing of d.
func (f Format) Data(d push.Delivery) (jsontext.Value, push.Outcome) {
	defaults, ok := d.Device.DefaultPayload()
	if !ok {
		return nil, push.Outcome{Kind: push.Rejected, Reason: push.ReasonMalformedData}
	}
	alone := Alone(d.Notification)
	counts := f.counts(d, alone)
	if alone && counts == nil {
		return nil, push.Outcome{Kind: push.Accepted, Reason: push.ReasonNothingToSend}
	}
	e := push.Once(d.Common, func() *event { return newEvent(d.Notification) })
	m := data{format: f, members: make(map[string]string, 16)}
	if f.Dart {
		s, _ := text([]any{Entry(d.Device)}) // what was decoded from JSON cannot fail
		m.add(field{"devices", s})
	} else {
		m.addDefaults(defaults)
	}
	if m.size > f.Max-roomForEvent {
		return nil, push.Outcome{Kind: push.Rejected, Reason: push.ReasonMalformedData}
	}
	for _, f := range e.members {
		if m.weigh(f) <= maxIDWeight || !strings.HasSuffix(f.key, "_id") {
			m.add(f)
		}
	}
	for name, value := range d.Notification.Further {
		if s, ok := text(value); ok && value != nil {
			m.add(field{name, s})
		}
	}
	var rest content
	if f.Dart {
		rest = m.addDart(d, counts)
	} else {
		rest = m.addSygnal(d, e, defaults, counts)
	}
	m.fit()
	if m.size > f.Max && len(d.Notification.Further) > 0 { // which are of strangers
		return f.Data(d.WithoutFurther())
	}
	for _, key := range []string{"counts", "room_id", "event_id"} {
		if m.size > f.Max { // by ids that strangers made as long as they may be
			m.drop(key)
		}
	}
	return m.encode(rest.others), push.Outcome{}
}

// addSygnal adds content, counts and tweaks as Sygnal's apps know them. It returns
// the content, of which there is more.
func (m *data) addSygnal(d push.Delivery, e *event, defaults map[string]any, counts []field) content {
	content := e.content
	if d.Notification.Content == nil { // then that of the pusher stands in
		content = flatten(defaults["content"])
	}
	m.add(content.known...)
	m.add(counts...)
	if sound := d.Device.Tweaks.Sound; m.format.Tweaks && sound != "" {
		m.add(field{"sound", Cut(sound, maxField)})
	}
	if m.format.Tweaks && d.Device.Tweaks.Highlight {
		m.add(field{"highlight", "true"})
	}
	return content
}

// whole is the content of an event as one JSON text, if it is not too long.
type whole content

// addDart adds prio and counts as matrix-dart-sdk reads them
// (PushNotification.fromJson), and returns the content, which stays out where there
// is no room.
func (m *data) addDart(d push.Delivery, counts []field) content {
	if d.Notification.Low {
		m.add(field{"prio", "low"})
	}
	if len(counts) > 0 {
		numbers := make(map[string]any, len(counts))
		for _, c := range counts {
			numbers[c.key] = stdjson.Number(c.value)
		}
		s, _ := text(numbers)
		m.add(field{"counts", s})
	}
	return content(push.Once(d.Common, func() whole {
		f := field{key: "content"}
		f.value, _ = text(d.Notification.Content)
		if d.Notification.Content == nil || f.size() > maxData {
			return whole{}
		}
		return whole{others: []encoded{encode(f)}}
	}))
}

// counts returns the counts to send. Without an event the homeserver left them
// out where they are zero (Push Gateway API, "counts"), and then the badge is to
// go.
func (f Format) counts(d push.Delivery, alone bool) []field {
	if !f.BadgeCounts || alone && !f.BadgeAlone || d.Device.BadgeDisabled() {
		return nil
	}
	var counts []field
	for key, count := range map[string]*int64{"unread": d.Notification.Counts.Unread, "missed_calls": d.Notification.Counts.MissedCalls} {
		if count != nil && (*count != 0 || f.BadgeZero) {
			counts = append(counts, field{key, strconv.FormatInt(*count, 10)})
		}
	}
	if alone && counts == nil {
		return []field{{"unread", "0"}}
	}
	return counts
}

// data is the data of a message and what it weighs.
type data struct {
	format  Format
	members map[string]string
	size    int
}

func (m *data) weigh(f field) int {
	if m.format.Weigh == nil {
		return f.size()
	}
	return m.format.Weigh(f.key, f.value)
}

func (m *data) add(fields ...field) {
	for _, f := range fields {
		m.drop(f.key)
		m.members[f.key] = f.value
		m.size += m.weigh(f)
	}
}

func (m *data) drop(key string) {
	if old, there := m.members[key]; there {
		delete(m.members, key)
		m.size -= m.weigh(field{key, old})
	}
}

// addDefaults copies the pusher's default_payload. Data is texts alone, so other
// values go out as their JSON text. A name that the push service keeps for itself is
// left out: it would refuse every message of the pusher. The member "content" is not
// part of it.
func (m *data) addDefaults(defaults map[string]any) {
	for key, value := range defaults {
		if s, ok := text(value); ok && key != "content" && (m.format.Reserved == nil || !m.format.Reserved(key)) {
			m.add(field{strings.ToValidUTF8(key, "\uFFFD"), s})
		}
	}
}

// fit makes the data weigh no more than its limit, as far as it can. Of names a
// beginning stays, then the body is cut, then goes all but the pusher's own data
// and what apps find the event by. The members of the content that apps do not
// show are not there yet: they get the room that is left.
func (m *data) fit() {
	const body = contentPrefix + "body"
	names := []string{"room_name", "room_alias", "sender_display_name"}
	slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(len(m.members[b]), len(m.members[a])) })
	for _, key := range append(names, body) {
		floor := nameFloor
		if key == body {
			floor = 0
		}
		if value, there := m.members[key]; there && m.size > m.format.Limit {
			m.add(field{key, Cut(value, max(floor, len(value)-(m.size-m.format.Limit)))})
		}
	}
	for _, key := range append(names, body, contentPrefix+"msgtype", "sound", "highlight", "membership", "sender", "type", "missed_calls", "unread") {
		if m.size > m.format.Limit {
			m.drop(key)
		}
	}
}

// encode returns the data with as many of others as there is room for.
func (m *data) encode(others []encoded) jsontext.Value {
	fit, length := 0, 0
	for _, f := range others {
		old, there := m.members[f.key] // the pusher's
		size := m.size + m.weigh(f.field)
		if there {
			size -= m.weigh(field{f.key, old})
		}
		if size > m.format.Limit {
			break
		}
		delete(m.members, f.key)
		m.size = size
		fit++
		length += len(f.json) + 1
	}
	text, _ := json.Marshal(m.members, json.Deterministic(true)) // all texts are UTF-8, and prio is among them
	text = slices.Grow(text, length)
	for _, f := range others[:fit] {
		text = append(text[:len(text)-1], ',')
		text = append(append(text, f.json...), '}')
	}
	return text
}
