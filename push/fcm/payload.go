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
	// maxPushKey is the longest pushkey, in bytes (Client-Server API, POST
	// /pushers/set).
	maxPushKey = 512
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

	base message // what all messages start from
	room int     // what base leaves for data, in bytes
}

// message is FCM's message. What fcm_options says goes out as it is written.
type message struct {
	Notification jsontext.Value            `json:"notification,omitzero"`
	Android      map[string]jsontext.Value `json:"android"`
	Webpush      jsontext.Value            `json:"webpush,omitzero"`
	APNS         jsontext.Value            `json:"apns,omitzero"`
	FCMOptions   jsontext.Value            `json:"fcm_options,omitzero"`
	Data         jsontext.Value            `json:"data,omitzero"`
	Token        string                    `json:"token,omitzero"`
	FID          string                    `json:"fid,omitzero"`
}

// start has all messages start from fcm_options, which have been checked.
func (p *Payload) start(options map[string]any, ttl *conf.Duration) {
	text, err := json.Marshal(options, json.Deterministic(true))
	if err != nil || json.Unmarshal(text, &p.base) != nil {
		return // and that is a fault
	}
	// FCM counts what is shown as well, differently for each system.
	p.room = maxData - min(len(text)-len("{}"), maxData/2)
	if p.base.Android == nil {
		p.base.Android = make(map[string]jsontext.Value)
	}
	if ttl != nil {
		p.base.Android["ttl"] = jsontext.Value(`"` + strconv.FormatFloat(ttl.Std().Seconds(), 'f', -1, 64) + `s"`)
	}
}

// Message returns the body of the request that sends d. If there is none to send
// it is nil and the outcome says why: Accepted when the notification has neither
// an event nor counts to send, Rejected when the pushkey cannot be one, or the
// pusher's default_payload is not an object or leaves no room for an event. It
// changes nothing of d.
func (p Payload) Message(d push.Delivery) ([]byte, push.Outcome) {
	n, m := d.Notification, p.base
	if !p.address(&m, d.Device.PushKey) {
		return nil, push.Outcome{Kind: push.Rejected, Reason: push.ReasonMalformedPushKey}
	}
	defaults, ok := d.Device.DefaultPayload()
	if !ok {
		return nil, push.Outcome{Kind: push.Rejected, Reason: push.ReasonMalformedData}
	}
	alone := !n.EventID.Truthy() && !n.RoomID.Truthy()
	counts := p.counts(d, alone)
	if alone && counts == nil {
		return nil, push.Outcome{Kind: push.Accepted, Reason: push.ReasonNothingToSend}
	}
	if m.Data = p.data(d, defaults, counts); m.Data == nil {
		return nil, push.Outcome{Kind: push.Rejected, Reason: push.ReasonMalformedData}
	}
	m.Android = make(map[string]jsontext.Value, len(p.base.Android)+2)
	maps.Copy(m.Android, p.base.Android)
	m.Android["priority"] = jsontext.Value(`"high"`)
	if n.Low || alone { // FCM holds it against an app if urgent messages show nothing
		m.Android["priority"] = jsontext.Value(`"normal"`)
	}
	if room := n.RoomID.String(); p.CollapseRoom && room != "" {
		m.Android["collapse_key"] = collapseKey(room, d.Device)
	}
	if alone {
		m.silence(n.Counts.Badge())
	}
	body, err := json.Marshal(map[string]*message{"message": &m}, json.Deterministic(true), jsontext.AllowDuplicateNames(true))
	if err != nil { // cannot be: all texts are UTF-8
		return nil, push.Outcome{Kind: push.Temporary, Reason: push.ReasonInternal, Err: err}
	}
	return body, push.Outcome{}
}

// collapseKey stands for a room at a device, because FCM bounds the key. It covers
// the pusher's data: two accounts on one device must not replace each other's
// messages.
func collapseKey(room string, d *push.Device) jsontext.Value {
	text, _ := push.EncodeJSON([]any{room, d.Data}) // what was decoded from JSON cannot fail
	return jsontext.Value(strconv.Quote(push.Fingerprint(string(text))))
}

// silence takes from a message about counts alone what would be shown or heard,
// and what would have it replace one about an event. By way of APNs it is a badge.
func (m *message) silence(badge int64) {
	m.Notification, m.Webpush = nil, nil
	delete(m.Android, "notification")
	delete(m.Android, "collapse_key")
	if m.APNS == nil {
		return
	}
	var apns struct {
		Headers map[string]string `json:"headers"`
	}
	_ = json.Unmarshal(m.APNS, &apns) // it was checked
	headers := map[string]string{"apns-push-type": "alert", "apns-priority": "5"}
	if topic := apns.Headers["apns-topic"]; topic != "" {
		headers["apns-topic"] = topic
	}
	m.APNS, _ = json.Marshal(map[string]any{ // texts and a number cannot fail
		"headers": headers, "payload": map[string]any{"aps": map[string]int64{"badge": badge}},
	}, json.Deterministic(true))
}

// fidPattern is the form of a Firebase installation ID. A registration token is
// longer and holds a colon.
var fidPattern = regexp.MustCompile(`^[cdef][A-Za-z0-9_-]{21}$`)

// address sends m to a pushkey: a registration token or an installation ID, which
// are printable ASCII. It reports whether pushKey can be one. White space in it
// comes from copying it.
func (p Payload) address(m *message, pushKey string) bool {
	key := strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return -1
		}
		return r
	}, pushKey)
	if p.Target == TargetFID || p.Target != TargetToken && fidPattern.MatchString(key) {
		m.FID = key
	} else {
		m.Token = key
	}
	return key != "" && len(key) <= maxPushKey && !strings.ContainsFunc(key, func(r rune) bool { return r < '!' || r > '~' })
}

// counts returns the counts to send. Without an event the homeserver left them
// out where they are zero (Push Gateway API, "counts"), and then the badge is to
// go.
func (p Payload) counts(d push.Delivery, alone bool) []field {
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

// data returns the data of a message, nil if the pusher's defaults leave no room
// for what is in every one: ids of up to 255 bytes and prio.
func (p Payload) data(d push.Delivery, defaults map[string]any, counts []field) jsontext.Value {
	e := push.Once(d.Common, func() *event { return newEvent(d.Notification) })
	content := e.content
	if d.Notification.Content == nil { // then that of the pusher stands in
		content = flatten(defaults["content"])
	}
	m := data{members: make(map[string]string, 16), limit: cmp.Or(p.room, maxData)}
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
	m.fit()
	if m.size > maxData {
		return nil
	}
	return m.encode(content.others)
}

// data is the data of a message, what it weighs by FCM's rules, and what it should
// weigh at most, in bytes.
type data struct {
	members     map[string]string
	size, limit int
}

func (m *data) add(fields ...field) {
	for _, f := range fields {
		m.drop(f.key)
		m.members[f.key] = f.value
		m.size += f.size()
	}
}

func (m *data) drop(key string) {
	if old, there := m.members[key]; there {
		delete(m.members, key)
		m.size -= len(key) + len(old)
	}
}

// addDefaults copies the pusher's default_payload. FCM takes only strings, so
// other values go out as their JSON text. Keys that FCM keeps for itself are
// left out: one of them would make FCM refuse every message of the pusher.
// The member "content" is no part of it.
func (m *data) addDefaults(defaults map[string]any) {
	for key, value := range defaults {
		if s, ok := text(value); ok && key != "content" && !reserved(key) {
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
		if value, there := m.members[key]; there && m.size > m.limit {
			m.add(field{key, cut(value, max(floor, len(value)-(m.size-m.limit)))})
		}
	}
	for _, key := range append(names, body, contentPrefix+"msgtype", "sound", "highlight", "membership", "sender", "type", "missed_calls", "unread") {
		if m.size > m.limit {
			m.drop(key)
		}
	}
}

// encode returns the data with as many of others as there is room for.
func (m *data) encode(others []encoded) jsontext.Value {
	fit, length := 0, 0
	for _, f := range others {
		old, there := m.members[f.key] // the pusher's
		size := m.size + f.size()
		if there {
			size -= len(f.key) + len(old)
		}
		if size > m.limit {
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
