package push

import (
	"crypto/sha256"
	"encoding/base64"
	"log/slog"
	"strings"
	"unicode/utf8"
)

// Notification is one notification of a homeserver, without its devices: the
// "notification" object of POST /_matrix/push/v1/notify (Push Gateway API,
// "Push Notifications"). Members that were absent, null or of a type that
// means nothing are zero.
type Notification struct {
	EventID           Member // any JSON type passes through to APNs
	Type              Member // any JSON type; only strings name an event type
	RoomID            Member
	RoomName          Member
	RoomAlias         Member
	Sender            Member
	SenderDisplayName Member
	Membership        Member
	UserIsTarget      bool
	// Low is true when the homeserver sent "prio": "low". Everything else,
	// absent included, is high.
	Low bool
	// Content is the event's content, decoded with numbers as json.Number:
	// normally a map[string]any, nil when absent.
	Content any
	Counts  Counts
	// Further are members that the specification does not name and that an app
	// passes on, nil where there are none. One that is too long is nil.
	Further map[string]any
	// Source stands for who posted it, "" where that is not known. It is compared
	// and never shown.
	Source string
}

// passing returns n with those of its further members that are named.
func (n *Notification) passing(names []string) *Notification {
	if n.Further == nil {
		return n
	}
	c := *n
	c.Further = nil
	for _, name := range names {
		if v, there := n.Further[name]; there {
			if c.Further == nil {
				c.Further = make(map[string]any, len(names))
			}
			c.Further[name] = v
		}
	}
	return &c
}

// Counts are the badge counts of a notification. A nil count was not sent; a
// count is never negative.
type Counts struct {
	Unread      *int64
	MissedCalls *int64
}

// Known reports whether the homeserver sent any count.
func (c Counts) Known() bool { return c.Unread != nil || c.MissedCalls != nil }

// Badge is the number an app icon shows: unread messages and missed calls.
func (c Counts) Badge() int64 {
	var sum int64
	if c.Unread != nil {
		sum += *c.Unread
	}
	if c.MissedCalls != nil {
		sum += *c.MissedCalls
	}
	return sum
}

// Device is one device of a notification.
type Device struct {
	AppID   string
	PushKey string
	// PushKeyTS is when the pushkey was last updated, in seconds since the
	// epoch; 0 when the homeserver did not say.
	PushKeyTS int64
	// Data is the pusher's data, decoded with numbers as json.Number; nil when
	// absent.
	Data   map[string]any
	Tweaks Tweaks
}

// Limits of a pusher (Client-Server API, POST /_matrix/client/v3/pushers/set).
const (
	maxAppID   = 64  // characters
	maxPushKey = 512 // bytes
)

// impossible reports whether d breaks the specification's limits: then it was
// never registered, and no push service needs to be asked.
func (d *Device) impossible() bool {
	return len(d.PushKey) > maxPushKey || len(d.AppID) > maxAppID && utf8.RuneCountInString(d.AppID) > maxAppID
}

// Token returns the token of a push service that a pushkey stands for, without the
// white space that comes from copying it. It is "" where the pushkey cannot be one:
// tokens are printable ASCII.
func Token(pushKey string) string {
	token := strings.Join(strings.Fields(pushKey), "")
	if len(token) > maxPushKey || strings.ContainsFunc(token, func(r rune) bool { return r < '!' || r > '~' }) {
		return ""
	}
	return token
}

// DefaultPayload is the "default_payload" member of the pusher's data: the
// object that the app asked to have merged into each push, nil when absent.
// Its second result is false when there is such a member and it is not an
// object: then the pusher is broken and its pushkey is rejected.
func (d Device) DefaultPayload() (map[string]any, bool) {
	v, there := d.Data["default_payload"]
	if !there {
		return nil, true
	}
	m, ok := v.(map[string]any)
	return m, ok
}

// BadgeDisabled reports whether the app asked for pushes without counts
// (MSC4076), because it counts by itself.
func (d Device) BadgeDisabled() bool {
	return d.Data["disable_badge_count"] == true || d.Data["org.matrix.msc4076.disable_badge_count"] == true
}

// Tweaks are the tweaks of the push rule that matched (Client-Server API,
// "Push Rules: Actions").
type Tweaks struct {
	// Sound is the name of the sound to play, "" for none. A sound without a
	// name (true) is "default".
	Sound string
	// Highlight says that the message should be highlighted.
	Highlight bool
}

// Fingerprint stands for a secret such as a pushkey wherever people can see
// it: the first 12 characters of the base64url of its SHA-256.
func Fingerprint(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return base64.RawURLEncoding.EncodeToString(sum[:9])
}

// LogValue shows the app and a fingerprint of the pushkey, nothing else. An
// app_id that cannot be one is shown by its fingerprint too: strangers must not
// fill the log.
func (d Device) LogValue() slog.Value {
	appID := d.AppID
	if d.impossible() {
		appID = Fingerprint(appID)
	}
	return slog.GroupValue(slog.String("app_id", appID), slog.String("pushkey", Fingerprint(d.PushKey)))
}

// Member is an optional member of a notification. Homeservers are believed
// about what they mean, so a value of the wrong JSON type may be kept. The zero
// Member is absent, and so is JSON null.
type Member struct {
	text   string // nearly always a text, and then not in an interface
	isText bool
	other  any
}

// NewMember holds v, a value as encoding/json decodes it (numbers as
// json.Number). NewMember(nil) is absent.
func NewMember(v any) Member {
	if s, ok := v.(string); ok {
		return NewText(s)
	}
	return Member{other: v}
}

// NewText holds a string.
func NewText(s string) Member { return Member{text: s, isText: true} }

// Text returns the member if it is a string, the empty one included.
func (m Member) Text() (string, bool) { return m.text, m.isText }

// String returns the member if it is a string, else "".
func (m Member) String() string { return m.text }

// Value returns the member as it was decoded, nil when absent.
func (m Member) Value() any {
	if m.isText {
		return m.text
	}
	return m.other
}

// Truthy reports whether the member is there and not empty, false or zero. It
// is what decides between the payload formats, as deployed apps have come to
// expect.
func (m Member) Truthy() bool {
	switch v := m.other.(type) {
	case nil:
		return m.text != ""
	case bool:
		return v
	case map[string]any:
		return len(v) > 0
	case []any:
		return len(v) > 0
	case interface{ Float64() (float64, error) }: // json.Number
		f, err := v.Float64()
		return err != nil || f != 0
	default:
		return true
	}
}
