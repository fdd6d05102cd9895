package webpush

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"maps"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/eventdata"
)

const (
	// maxBody is where Sygnal cuts a text, in characters, and maxCiphertext from
	// where it leaves a ciphertext out.
	maxBody       = 1000
	maxCiphertext = 2000
	// maxField is what one text of an event may weigh, in bytes, before all of
	// them together are measured; nameFloor is what stays of it at least.
	maxField  = 1024
	nameFloor = 64
	// maxID is the longest id of a room or an event (Appendices, "Common
	// Identifier Format").
	maxID = 255
	// roomForEvent is what a pusher's own data has to leave.
	roomForEvent = 1024
	// smallPlain fits, padded and encrypted, into the 2744 bytes that Mozilla passes
	// on to Firefox for Android.
	smallPlain = 20 * padStep

	ellipsis = "…"
)

// event is what a notification brings to every message about it. It is made
// once for all devices of a request, and nobody may change it.
type event map[string]any

// newEvent returns the members that Sygnal's Web Push sends.
func newEvent(n *push.Notification) event {
	e := make(event, 10)
	for name, member := range map[string]push.Member{
		"event_id": n.EventID, "room_id": n.RoomID, "type": n.Type, "room_name": n.RoomName, "room_alias": n.RoomAlias,
		"membership": n.Membership, "sender": n.Sender, "sender_display_name": n.SenderDisplayName,
	} {
		isID := strings.HasSuffix(name, "_id")
		if !member.Truthy() || isID && len(member.String()) > maxID {
			continue
		}
		e[name] = member.Value()
		if text, ok := member.Text(); ok {
			e[name] = eventdata.Cut(text, maxField)
		}
	}
	if n.UserIsTarget {
		e["user_is_target"] = true
	}
	return e
}

// newSygnalEvent adds the content as Sygnal shortens it.
func newSygnalEvent(n *push.Notification) event {
	e := newEvent(n)
	content, _ := n.Content.(map[string]any)
	if len(content) == 0 {
		return e
	}
	content = maps.Clone(content)
	delete(content, "formatted_body")
	if body, ok := content["body"].(string); ok && utf8.RuneCountInString(body) > maxBody {
		content["body"] = string([]rune(body)[:maxBody-1]) + ellipsis
	}
	if text, ok := content["ciphertext"].(string); ok && utf8.RuneCountInString(text) > maxCiphertext {
		delete(content, "ciphertext")
	}
	return e.with(content)
}

// relayed is what goes on to a UnifiedPush server: the notification without its
// devices.
type relayed event

func newRelayed(n *push.Notification) relayed {
	e := newEvent(n)
	e["prio"] = "high"
	if n.Low {
		e["prio"] = "low"
	}
	if content, ok := n.Content.(map[string]any); ok {
		e = e.with(maps.Clone(content))
	}
	return relayed(e)
}

// with returns e with content, of which only what apps show stays if it is larger
// than any message.
func (e event) with(content map[string]any) event {
	if len(encode(content)) > recordSize {
		shown := make(map[string]any, 2)
		for _, name := range []string{"body", "msgtype"} {
			if text, ok := content[name].(string); ok {
				shown[name] = eventdata.Cut(text, recordSize)
			}
		}
		content = shown
	}
	if len(content) > 0 {
		e["content"] = content
	}
	return e
}

// fit has write make the message of as much of e as the limit allows: the body is
// cut, then goes the content, then names and all but what apps find the event by, its
// id last.
// It returns nil where not even that fits.
func fit(limit int, e event, write func(event) []byte) []byte {
	text := write(e)
	cutBody := func(e event) {
		content, _ := e["content"].(map[string]any)
		if body, _ := content["body"].(string); body != "" {
			content = maps.Clone(content)
			content["body"] = eventdata.Cut(body, max(0, len(body)-(len(text)-limit)))
			e["content"] = content
		}
	}
	for _, shorten := range []func(event){
		cutBody, cutBody, cutBody, // escapes make a text longer than it is
		func(e event) { delete(e, "content") },
		func(e event) {
			for _, name := range []string{"room_name", "room_alias", "sender_display_name"} {
				if value, ok := e[name].(string); ok {
					e[name] = eventdata.Cut(value, nameFloor)
				}
			}
		},
		func(e event) { maps.DeleteFunc(e, func(name string, _ any) bool { return !isID(name) }) },
		func(e event) { delete(e, "room_id") },
	} {
		if len(text) <= limit {
			return text
		}
		e = maps.Clone(e) // others have the same
		shorten(e)
		text = write(e)
	}
	if len(text) > limit {
		return nil
	}
	return text
}

// isID reports whether apps find an event by a member.
func isID(name string) bool { return name == "event_id" || name == "room_id" || name == "prio" }

// message is what is sent to one device.
type message struct {
	plain   []byte
	ttl     int // seconds
	urgency string
	topic   string
}

// message returns the message for a delivery, at most limit bytes of text; small
// sends nothing of the event but its ids. What is passed on gives way to the event,
// and so does the device's own entry. Without a message the outcome says why.
func (s *settings) message(d push.Delivery, e *endpoint, limit int, small bool, now time.Time) (*message, push.Outcome) {
	m, out := s.tryMessage(d, e, limit, small, now)
	if out.Reason != push.ReasonTooLarge {
		return m, out
	}
	bare := *s
	bare.ownDevice = false
	less := d.WithoutFurther()
	for _, without := range []func() (*message, push.Outcome){
		func() (*message, push.Outcome) { return s.tryMessage(less, e, limit, small, now) },
		func() (*message, push.Outcome) { return bare.tryMessage(d, e, limit, small, now) },
		func() (*message, push.Outcome) { return bare.tryMessage(less, e, limit, small, now) },
	} {
		if m, out = without(); out.Reason != push.ReasonTooLarge {
			break
		}
	}
	return m, out
}

func (s *settings) tryMessage(d push.Delivery, e *endpoint, limit int, small bool, now time.Time) (*message, push.Outcome) {
	defaults, ok := d.Device.DefaultPayload()
	if !ok && !s.unified {
		return nil, push.Outcome{Kind: push.Rejected, Reason: push.ReasonMalformedData}
	}
	n := d.Notification
	alone, call := eventdata.Alone(n), d.Call(now)
	switch skip := alone && d.Device.BadgeDisabled(); {
	// Safari takes a subscription away that shows nothing.
	case skip, (alone || call.Quiet) && !s.unified && e.name == appleHost, !s.unified && d.Device.Data["events_only"] == true && !n.EventID.Truthy() && n.Further == nil:
		return nil, push.Outcome{Kind: push.Accepted, Reason: push.ReasonNothingToSend}
	}
	if !s.unified && len(encode(defaults)) > limit-roomForEvent {
		return nil, push.Outcome{Kind: push.Rejected, Reason: push.ReasonMalformedData}
	}
	m := &message{ttl: s.ttl, urgency: s.urgency(n, alone), topic: topic(d.Device, n, alone)}
	switch {
	case call.Quiet:
		m.urgency, m.topic = "low", "" // it does not take the place of what is shown
	case call.Rings():
		m.ttl, m.topic = min(s.ttl, max(1, int(call.Left(now).Seconds()))), "" // it does not take the place of a message
		m.urgency = "high"
	}
	whole, write := s.writer(d, defaults, alone, call.Quiet)
	if small {
		whole = maps.Clone(whole)
		maps.DeleteFunc(whole, func(name string, _ any) bool { return !isID(name) })
	}
	if m.plain = fit(limit, whole, write); m.plain == nil {
		return nil, push.Outcome{Kind: push.Dropped, Reason: push.ReasonTooLarge}
	}
	return m, push.Outcome{}
}

// writer returns the event of a delivery, and what makes a text of it.
func (s *settings) writer(d push.Delivery, defaults map[string]any, alone, quiet bool) (event, func(event) []byte) {
	n, counts := d.Notification, counts(d, alone)
	further := maps.Clone(n.Further)
	maps.DeleteFunc(further, func(_ string, v any) bool { return v == nil })
	switch {
	case s.unified:
		return event(push.Once(d.Common, func() relayed { return newRelayed(n) })), func(e event) []byte {
			e = maps.Clone(e)
			maps.Copy(e, further)
			if len(counts) > 0 {
				e["counts"] = counts
			}
			if s.ownDevice {
				e["devices"] = []any{eventdata.Entry(d.Device)}
			}
			return encode(map[string]any{"notification": map[string]any(e)})
		}
	case s.declarative && !alone && !quiet:
		return push.Once(d.Common, func() event { return newSygnalEvent(n) }), func(e event) []byte {
			return encode(s.declare(overlay(defaults, e, further, counts), e, n))
		}
	default:
		return push.Once(d.Common, func() event { return newSygnalEvent(n) }), func(e event) []byte {
			return encode(overlay(defaults, e, further, counts))
		}
	}
}

func overlay(all ...map[string]any) map[string]any {
	m := make(map[string]any, 16)
	for _, o := range all {
		maps.Copy(m, o)
	}
	return m
}

// counts returns the counts to send. Without an event the homeserver left them
// out where they are zero (Push Gateway API, "counts").
func counts(d push.Delivery, alone bool) map[string]any {
	m := make(map[string]any, 2)
	if d.Device.BadgeDisabled() {
		return m
	}
	for name, count := range map[string]*int64{"unread": d.Notification.Counts.Unread, "missed_calls": d.Notification.Counts.MissedCalls} {
		if count != nil {
			m[name] = *count
		}
	}
	if alone && len(m) == 0 {
		m["unread"] = int64(0)
	}
	return m
}

// declare returns a declarative message, which Safari shows without asking a
// service worker (https://webkit.org/blog/16535). For others it is a push like
// any other, with everything in notification.data.
func (s *settings) declare(data map[string]any, e event, n *push.Notification) map[string]any {
	text := func(name string) string { v, _ := e[name].(string); return v }
	sender := cmp.Or(text("sender_display_name"), text("sender"))
	title := cmp.Or(text("room_name"), text("room_alias"), sender)
	notification := map[string]any{"navigate": s.navigate(n), "data": data}
	content, _ := e["content"].(map[string]any)
	body, _ := content["body"].(string)
	if body != "" && sender != "" && sender != title {
		body = sender + ": " + body
	}
	for name, value := range map[string]string{"title": cmp.Or(title, s.title), "body": body, "tag": topicOf("room", text("room_id"))} {
		if value != "" {
			notification[name] = value
		}
	}
	m := map[string]any{"web_push": int64(8030), "notification": notification}
	if unread, ok := data["unread"].(int64); ok { // older Safaris look for it in the notification
		m["app_badge"], notification["app_badge"] = unread, unread
	}
	return m
}

// navigate returns the page that shows the event.
func (s *settings) navigate(n *push.Notification) string {
	escape := func(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }
	return strings.NewReplacer("{room_id}", escape(n.RoomID.String()), "{event_id}", escape(n.EventID.String())).Replace(s.page)
}

// urgency says what a phone may wait with (RFC 8030, section 5.3).
func (s *settings) urgency(n *push.Notification, alone bool) string {
	switch {
	case n.Low, alone:
		return "low"
	default:
		return "high"
	}
}

// topic is what a message replaces that still waits (RFC 8030, section 5.4): one
// of its room if the app wants that, and earlier counts.
func topic(d *push.Device, n *push.Notification, alone bool) string {
	switch {
	case alone:
		return topicOf("counts", string(encode(d.Data["default_payload"])))
	case d.Data["only_last_per_room"] == true:
		return topicOf("", n.RoomID.String())
	}
	return ""
}

// topicOf has 32 characters, which all services take: Apple decodes them.
func topicOf(kind, of string) string {
	if of == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(kind + of))
	return base64.RawURLEncoding.EncodeToString(sum[:24])
}

func encode(v any) []byte {
	text, _ := push.EncodeJSON(v) // what was decoded from JSON cannot fail
	return text
}
