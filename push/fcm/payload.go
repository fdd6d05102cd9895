package fcm

import (
	"cmp"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/push"
)

const (
	// roomForEvent is what a pusher's default_payload has to leave: the members
	// event_id, room_id and prio.
	roomForEvent = len("event_id") + len("room_id") + 2*maxID + len("prionormal")
	// nameFloor is what stays of a long name while anything else can be cut, in
	// bytes: people still see who writes, and where.
	nameFloor = 64
)

// Values of Config.Target and Payload.Target: how pushkeys address devices.
const (
	TargetAuto  = "auto"  // by their form
	TargetToken = "token" // as registration tokens
	TargetFID   = "fid"   // as Firebase installation IDs
)

// Payload says what an app's messages look like. The zero value sends every
// notification's members and no counts.
type Payload struct {
	// Target says how pushkeys address devices: one of the Target constants.
	Target string
	// CollapseRoom lets a room's newer message replace an older one that still
	// waits for the device.
	CollapseRoom bool
	// BadgeCounts sends the counts of unread messages and missed calls with
	// events, those of 0 only with BadgeZero. BadgeAlone also sends counts that
	// come without an event: of 0 too, since they say nothing else.
	BadgeCounts, BadgeZero, BadgeAlone bool
	// Tweaks sends the tweaks of the push rule as "sound" and "highlight".
	Tweaks bool

	about  template // of messages about events
	counts template // of messages about counts alone
}

// Message returns the body of the request that sends d. If there is none to send
// it is nil and the outcome says why: Accepted when the notification has neither
// an event nor counts to send, Rejected when the pushkey cannot be one, or the
// pusher's default_payload is not an object or leaves no room for an event. It
// changes nothing of d.
func (p Payload) Message(d push.Delivery) ([]byte, push.Outcome) {
	n := d.Notification
	target, pushKey, ok := p.target(d.Device.PushKey)
	if !ok {
		return nil, push.Outcome{Kind: push.Rejected, Reason: push.ReasonMalformedPushKey}
	}
	defaults, ok := d.Device.DefaultPayload()
	if !ok {
		return nil, push.Outcome{Kind: push.Rejected, Reason: push.ReasonMalformedData}
	}
	alone := !n.EventID.Truthy() && !n.RoomID.Truthy()
	counts := p.countsFor(d, alone)
	if alone && counts == nil {
		return nil, push.Outcome{Kind: push.Accepted, Reason: push.ReasonNothingToSend}
	}
	t := p.about
	if alone {
		t = p.counts
	}

	data := p.data(d, defaults, counts, maxData-t.size)
	if data == nil {
		return nil, push.Outcome{Kind: push.Rejected, Reason: push.ReasonMalformedData}
	}
	message := t.message(n, alone)
	message["data"], message[target] = data, pushKey
	if room := n.RoomID.String(); p.CollapseRoom && room != "" {
		// Hashed because FCM bounds the key and only needs to compare it.
		message["android"].(map[string]any)["collapse_key"] = push.Fingerprint(room)
	}
	body, err := json.Marshal(map[string]any{"message": message}, json.Deterministic(true), jsontext.AllowDuplicateNames(true))
	if err != nil { // cannot be: all texts are UTF-8
		return nil, push.Outcome{Kind: push.Temporary, Reason: push.ReasonInternal, Err: err}
	}
	return body, push.Outcome{}
}

// fidPattern is the form of a Firebase installation ID. A registration token is
// longer and holds a colon.
var fidPattern = regexp.MustCompile(`^[cdef][A-Za-z0-9_-]{21}$`)

// target returns the member of a message that addresses a device, and its value:
// a registration token or an installation ID, which are printable ASCII. White
// space in a pushkey comes from copying it.
func (p Payload) target(pushKey string) (member, value string, ok bool) {
	value = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return -1
		}
		return r
	}, pushKey)
	if value == "" || len(value) > maxPushKey || strings.ContainsFunc(value, func(r rune) bool { return r < '!' || r > '~' }) {
		return "", "", false
	}
	if p.Target == TargetFID || p.Target != TargetToken && fidPattern.MatchString(value) {
		return "fid", value, true
	}
	return "token", value, true
}

// countsFor returns the counts to send. Without an event the homeserver left them
// out where they are zero (Push Gateway API, "counts"), and then the badge is to
// go.
func (p Payload) countsFor(d push.Delivery, alone bool) []field {
	if !p.BadgeCounts || alone && !p.BadgeAlone || d.Device.BadgeDisabled() {
		return nil
	}
	var counts []field
	for key, count := range map[string]*int64{"unread": d.Notification.Counts.Unread, "missed_calls": d.Notification.Counts.MissedCalls} {
		if count != nil && (*count != 0 || p.BadgeZero) {
			counts = append(counts, field{key, strconv.FormatInt(*count, 10)})
		}
	}
	if alone && counts == nil {
		return []field{{"unread", "0"}}
	}
	return counts
}

// data returns the data of a message, which weighs at most limit if that can be,
// and never more than maxData; nil if the pusher's defaults leave no room for the
// event.
func (p Payload) data(d push.Delivery, defaults map[string]any, counts []field, limit int) jsontext.Value {
	e := push.Once(d.Common, func() *event { return newEvent(d.Notification) })
	content := e.content
	if d.Notification.Content == nil { // then that of the pusher stands in
		content = flatten(defaults["content"])
	}
	m := message{data: make(map[string]string, 16)}
	m.addDefaults(defaults)
	m.add(e.members...)
	m.add(content.known...)
	m.add(counts...)
	if sound := d.Device.Tweaks.Sound; p.Tweaks && sound != "" {
		m.add(field{"sound", cut(sound, maxField)})
	}
	if p.Tweaks && d.Device.Tweaks.Highlight {
		m.add(field{"highlight", "true"})
	}
	m.fit(limit)
	if m.size > maxData {
		return nil
	}
	return m.encode(content.others, limit)
}

// message is the data of a message and what it weighs by FCM's rules, in bytes.
type message struct {
	data map[string]string
	size int
}

func (m *message) add(fields ...field) {
	for _, f := range fields {
		m.drop(f.key)
		m.data[f.key] = f.value
		m.size += f.size()
	}
}

func (m *message) drop(key string) {
	if old, there := m.data[key]; there {
		delete(m.data, key)
		m.size -= len(key) + len(old)
	}
}

// encode returns the data with as many of others as there is room for.
func (m *message) encode(others []encoded, limit int) jsontext.Value {
	fit, length := 0, 0
	for _, f := range others {
		size := m.size + f.size()
		old, there := m.data[f.key] // the pusher's
		if there {
			size -= len(f.key) + len(old)
		}
		if size > limit {
			break
		}
		delete(m.data, f.key)
		m.size = size
		fit++
		length += len(f.json) + 1
	}
	text, _ := json.Marshal(m.data, json.Deterministic(true)) // all texts are UTF-8, and prio is among them
	text = slices.Grow(text, length)
	for _, f := range others[:fit] {
		text = append(text[:len(text)-1], ',')
		text = append(append(text, f.json...), '}')
	}
	return text
}

// addDefaults copies the pusher's default_payload. FCM takes only strings, so
// other values go out as their JSON text. Keys that FCM keeps for itself are
// left out: one of them would make FCM refuse every message of the pusher.
// The member "content" is no part of it.
func (m *message) addDefaults(defaults map[string]any) {
	for key, value := range defaults {
		if key == "content" || reserved(key) {
			continue
		}
		if s, ok := text(value); ok {
			m.add(field{strings.ToValidUTF8(key, "\uFFFD"), s})
		}
	}
}

// reserved reports whether FCM refuses a message with such a data key
// (Firebase, "RemoteMessage data": from, message_type, google…, gcm…).
func reserved(key string) bool {
	return key == "" || key == "from" || key == "message_type" ||
		strings.HasPrefix(key, "google") || strings.HasPrefix(key, "gcm")
}

// fit makes the data weigh at most limit, as far as it can. Of names a beginning
// stays, then the body is cut, then goes all but the pusher's own data and what
// apps find the event by. The members of the content that apps do not show are
// not there yet: they get the room that is left.
func (m *message) fit(limit int) {
	names := []string{"room_name", "room_alias", "sender_display_name"}
	slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(len(m.data[b]), len(m.data[a])) })
	for _, key := range names {
		m.shorten(key, nameFloor, limit)
	}
	m.shorten(contentPrefix+"body", 0, limit)
	for _, key := range append(names, contentPrefix+"body", contentPrefix+"msgtype", "sound", "highlight", "membership", "sender", "type",
		"missed_calls", "unread") {
		if m.size > limit {
			m.drop(key)
		}
	}
}

// shorten cuts a member down to floor if the data weighs more than limit.
func (m *message) shorten(key string, floor, limit int) {
	if value, there := m.data[key]; there && m.size > limit {
		m.add(field{key, cut(value, max(floor, len(value)-(m.size-limit)))})
	}
}

// template is what all messages of an app start from.
type template struct {
	members map[string]any // but android
	android map[string]any
	badge   map[string]any // the headers of a badge by way of APNs; nil without iOS
	size    int            // bytes of what FCM counts besides the data
}

// newTemplates returns the templates of messages about events, and about counts
// alone: whatever would be shown or heard is not in those.
func newTemplates(options map[string]jsontext.Value, ttl *conf.Duration) (about, counts template) {
	about = template{members: make(map[string]any), android: make(map[string]any)}
	counts = template{members: make(map[string]any), android: make(map[string]any)}
	for name, value := range options {
		about.size += len(value) // or more than that: it is different for each system
		switch name {
		case "android":
			_ = json.Unmarshal(value, &about.android) // it was checked
		case "fcm_options":
			counts.members[name] = value
			fallthrough
		default:
			about.members[name] = value
		}
	}
	about.size = min(about.size, maxData/2)
	if ttl != nil {
		about.android["ttl"] = strconv.FormatFloat(ttl.Std().Seconds(), 'f', -1, 64) + "s"
	}
	maps.Copy(counts.android, about.android)
	delete(counts.android, "notification")
	delete(counts.android, "collapse_key") // counts must not take the place of an event
	if apns, ok := options["apns"]; ok {
		var block struct {
			Headers map[string]any `json:"headers"`
		}
		_ = json.Unmarshal(apns, &block)
		counts.badge = map[string]any{"apns-push-type": "alert", "apns-priority": "5"}
		if topic, ok := block.Headers["apns-topic"]; ok {
			counts.badge["apns-topic"] = topic
		}
	}
	return about, counts
}

func (t template) message(n *push.Notification, alone bool) map[string]any {
	message, android := make(map[string]any, len(t.members)+3), make(map[string]any, len(t.android)+2)
	maps.Copy(message, t.members)
	maps.Copy(android, t.android)
	android["priority"] = "high"
	if n.Low || alone { // nothing is shown, and FCM holds that against urgent messages
		android["priority"] = "normal"
	}
	message["android"] = android
	if alone && t.badge != nil {
		message["apns"] = map[string]any{
			"headers": t.badge,
			"payload": map[string]any{"aps": map[string]any{"badge": n.Counts.Badge()}},
		}
	}
	return message
}
