package fcm

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/eventdata"
)

// maxData is what FCM lets the keys and values of a message's data weigh together,
// in bytes (Firebase, "Message types").
const maxData = 4096

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
	// Dart writes data as matrix-dart-sdk reads it, instead of Sygnal's.
	Dart bool

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
		p.base.Android["ttl"] = lifespan(ttl.Std())
	}
}

// lifespan is a time as FCM takes it.
func lifespan(d time.Duration) jsontext.Value {
	return jsontext.Value(`"` + strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + `s"`)
}

// Message returns the body of the request that sends d. If there is none to send
// it is nil and the outcome says why: Accepted when the notification has neither
// an event nor counts to send, Rejected when the pushkey cannot be one, or the
// pusher's default_payload is not an object or leaves no room for an event. It
// changes nothing of d.
func (p Payload) Message(d push.Delivery, now time.Time) ([]byte, push.Outcome) {
	n, m := d.Notification, p.base
	if !p.address(&m, d.Device.PushKey) {
		return nil, push.Outcome{Kind: push.Rejected, Reason: push.ReasonMalformedPushKey}
	}
	var out push.Outcome
	if m.Data, out = p.data().Data(d); m.Data == nil {
		return nil, out
	}
	alone, call := eventdata.Alone(n), d.Call(now)
	m.Android = make(map[string]jsontext.Value, len(p.base.Android)+2)
	maps.Copy(m.Android, p.base.Android)
	m.Android["priority"] = jsontext.Value(`"high"`)
	if (n.Low || alone || call.Quiet) && !call.Rings() { // FCM holds it against an app if urgent messages show nothing
		m.Android["priority"] = jsontext.Value(`"normal"`)
	}
	switch room := n.RoomID.String(); {
	case call.Rings():
		m.ring(call, now)
	case p.CollapseRoom && room != "":
		m.Android["collapse_key"] = collapseKey(room, d.Device)
	}
	if alone || call.Quiet {
		m.silence(n.Counts, alone)
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

// ring has a message end with its call, and not take the place of another one.
func (m *message) ring(call push.Call, now time.Time) {
	left := call.Left(now)
	own, err := time.ParseDuration(strings.Trim(string(m.Android["ttl"]), `"`))
	if err != nil || own > left {
		m.Android["ttl"] = lifespan(left)
	}
	delete(m.Android, "collapse_key")
	if m.APNS == nil {
		return
	}
	parts, headers := m.apns()
	headers["apns-expiration"] = strconv.FormatInt(call.RingsUntil.Unix(), 10)
	delete(headers, "apns-collapse-id")
	m.setAPNS(parts, headers)
}

// apns returns what goes by way of APNs, and its headers. It was checked.
func (m *message) apns() (parts map[string]jsontext.Value, headers map[string]string) {
	headers = make(map[string]string)
	_ = json.Unmarshal(m.APNS, &parts)
	_ = json.Unmarshal(parts["headers"], &headers)
	return parts, headers
}

func (m *message) setAPNS(parts map[string]jsontext.Value, headers map[string]string) {
	parts["headers"], _ = json.Marshal(headers, json.Deterministic(true)) // texts cannot fail
	m.APNS, _ = json.Marshal(parts, json.Deterministic(true))
}

// silence takes from a message what would be shown or heard, and what would have it
// replace another one. By way of APNs it is a badge, if there is anything to count.
func (m *message) silence(counts push.Counts, alone bool) {
	m.Notification, m.Webpush = nil, nil
	delete(m.Android, "notification")
	delete(m.Android, "collapse_key")
	if m.APNS == nil {
		return
	}
	if !alone && !counts.Known() {
		m.APNS = nil
		return
	}
	_, old := m.apns()
	headers := map[string]string{"apns-push-type": "alert", "apns-priority": "5"}
	if topic := old["apns-topic"]; topic != "" {
		headers["apns-topic"] = topic
	}
	badge := fmt.Appendf(nil, `{"aps":{"badge":%d}}`, counts.Badge())
	m.setAPNS(map[string]jsontext.Value{"payload": badge}, headers)
}

// fidPattern is the form of a Firebase installation ID. A registration token is
// longer and holds a colon.
var fidPattern = regexp.MustCompile(`^[cdef][A-Za-z0-9_-]{21}$`)

// address sends m to a pushkey: a registration token or an installation ID. It
// reports whether pushKey can be one.
func (p Payload) address(m *message, pushKey string) bool {
	key := push.Token(pushKey)
	if p.Target == TargetFID || p.Target != TargetToken && fidPattern.MatchString(key) {
		m.FID = key
	} else {
		m.Token = key
	}
	return key != ""
}

// data says what the data of messages holds.
func (p Payload) data() eventdata.Format {
	return eventdata.Format{
		Limit: cmp.Or(p.room, maxData), Max: maxData, Reserved: reserved,
		BadgeCounts: p.BadgeCounts, BadgeZero: p.BadgeZero, BadgeAlone: p.BadgeAlone, Tweaks: p.Tweaks, Dart: p.Dart,
	}
}

// reserved reports whether FCM refuses a message with such a data key
// (Firebase, "RemoteMessage data": from, message_type, google…, gcm…).
func reserved(key string) bool {
	return key == "" || key == "from" || key == "message_type" ||
		strings.HasPrefix(key, "google") || strings.HasPrefix(key, "gcm")
}
