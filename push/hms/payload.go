package hms

import (
	"hash/fnv"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/eventdata"
)

const (
	// maxMessage is what Huawei lets a message weigh without its token, in bytes, and
	// frame what of that is neither data nor shown.
	maxMessage = 4096
	frame      = 256
	// maxTitle and maxText are what is shown of names and texts, in bytes.
	maxTitle = 128
	maxText  = 512
	// leastTitle and leastText are what stays of them beside a pusher's own data, as
	// it is sent, in bytes.
	leastTitle = 96
	leastText  = 160
	// maxBadge is the highest number that Huawei's launcher shows.
	maxBadge = 99
)

// Payload says what an app's messages look like.
type Payload struct {
	// HarmonyOS is for apps on HarmonyOS 5 and later. Huawei shows their messages
	// itself. Others are handed to the app.
	HarmonyOS bool
	// TTL is how long Push Kit keeps a message for a device that is offline.
	TTL time.Duration
	// Calm makes no message urgent.
	Calm bool
	// Small sends nothing of the event but its ids.
	Small bool
}

// Message returns the body of the request that sends d. If there is none to send it
// is nil and the outcome says why. It changes nothing of d.
func (p Payload) Message(d push.Delivery, now time.Time) ([]byte, push.Outcome) {
	token, call := push.Token(d.Device.PushKey), d.Call(now)
	alone := eventdata.Alone(d.Notification) || call.Quiet
	if token == "" {
		return nil, push.Outcome{Kind: push.Rejected, Reason: push.ReasonMalformedPushKey}
	}
	if call.Rings() {
		p.TTL = max(min(p.TTL, call.Left(now)), time.Second)
	}
	if p.Small {
		d = ids(d)
	}
	if p.HarmonyOS {
		return p.shown(d, token, alone, call)
	}
	text, out := data(2, 0, 0).Data(d)
	if text == nil {
		return nil, out
	}
	android := map[string]any{"urgency": "HIGH", "ttl": strconv.Itoa(int(p.TTL/time.Second)) + "s"}
	if p.Calm || alone || d.Notification.Low && !call.Rings() {
		android["urgency"] = "NORMAL"
	}
	if eventdata.Alone(d.Notification) {
		android["collapse_key"] = group(d.Device)
	}
	return encode(map[string]any{"message": map[string]any{"data": string(text), "android": android, "token": []string{token}}})
}

// ids returns d with an event that is its ids alone; what is the pusher's own stays.
func ids(d push.Delivery) push.Delivery {
	n := d.Notification
	d.Common, d.Notification = nil, &push.Notification{
		EventID: n.EventID, RoomID: n.RoomID, Low: n.Low, Counts: n.Counts, Content: map[string]any{},
	}
	return d
}

// data says what the data of messages holds: it is quoted so many times, and what is
// shown takes up so much of the room, or at least so much.
func data(quotes, shown, least int) eventdata.Format {
	return eventdata.Format{
		Limit: maxMessage - frame - shown, Max: maxMessage - frame - least, BadgeCounts: true, BadgeZero: true, BadgeAlone: true, Tweaks: true,
		Weigh: func(name, value string) int { return weigh(name, quotes) + weigh(value, quotes) + 2 },
	}
}

// weigh returns how many bytes a text is that is quoted so many times.
func weigh(s string, quotes int) int {
	text, _ := jsontext.AppendQuote(nil, s)
	if quotes == 1 {
		return len(text)
	}
	return len(text) + strings.Count(string(text), `"`) + strings.Count(string(text), `\`)
}

// shown returns a message that HarmonyOS shows by itself. The app gets the data when
// somebody touches it. Counts alone are a number at the app's icon.
func (p Payload) shown(d push.Delivery, token string, alone bool, call push.Call) ([]byte, push.Outcome) {
	n := d.Notification
	notification := make(map[string]any)
	if counts := n.Counts; (counts.Known() || eventdata.Alone(n)) && !d.Device.BadgeDisabled() {
		notification["badge"] = map[string]any{"setNum": min(counts.Badge(), maxBadge)}
	}
	if !alone {
		title, text := words(d, call)
		touched, out := data(1, weigh(title, 1)+weigh(text, 1), leastTitle+leastText).Data(d)
		if touched == nil {
			return nil, out
		}
		left := maxMessage - frame - len(touched)
		title = cutTo(title, max(leastTitle, left-weigh(text, 1)))
		text = cutTo(text, left-weigh(title, 1))
		notification["category"], notification["title"], notification["body"] = "IM", title, text
		if call.Rings() {
			notification["category"] = "VOIP"
		}
		notification["clickAction"] = map[string]any{"actionType": 0, "data": touched}
	} else if len(notification) == 0 {
		return nil, push.Outcome{Kind: push.Accepted, Reason: push.ReasonNothingToSend}
	}
	return encode(map[string]any{
		"payload": map[string]any{"notification": notification}, "pushOptions": map[string]any{"ttl": int(p.TTL / time.Second)},
		"target": map[string]any{"token": []string{token}},
	})
}

// words returns what is shown of an event. Where that has none, the pusher's
// default_payload may have them, in the language of the app.
func words(d push.Delivery, call push.Call) (title, text string) {
	n := d.Notification
	defaults, _ := d.Device.DefaultPayload()
	own := func(name string) string { s, _ := defaults[name].(string); return s }
	content, _ := n.Content.(map[string]any)
	body, _ := content["body"].(string)
	sender := shownOf(maxTitle, n.SenderDisplayName.String(), n.Sender.String())
	title = shownOf(maxTitle, n.RoomName.String(), n.RoomAlias.String(), sender, own("title"), "Matrix")
	generic := "New message"
	if call.Rings() {
		body, generic = "", "Incoming call"
	}
	text = shownOf(maxText, body, own("body"), generic)
	if sender != "" && sender != title {
		text = sender + ": " + text
	}
	return title, text
}

// shownOf returns at most limit bytes of the first text that has anything to show.
func shownOf(limit int, texts ...string) string {
	for _, s := range texts {
		s = strings.TrimSpace(strings.Map(func(r rune) rune {
			if unicode.IsControl(r) {
				return ' '
			}
			return r
		}, s))
		if s != "" {
			return eventdata.Cut(s, limit)
		}
	}
	return ""
}

// cutTo returns s cut so that it weighs at most limit.
func cutTo(s string, limit int) string {
	for over := weigh(s, 1) - limit; over > 0; over = weigh(s, 1) - limit {
		s = eventdata.Cut(s, len(s)-(over+1)/2) // no byte weighs more than two
	}
	return s
}

// group is which messages a message replaces that still waits, 1 to 100: two accounts
// on one device must not replace each other's counts.
func group(d *push.Device) int {
	text, _ := push.EncodeJSON(d.Data) // what was decoded from JSON cannot fail
	sum := fnv.New32a()
	_, _ = sum.Write(text)
	return 1 + int(sum.Sum32()%100)
}

func encode(message map[string]any) ([]byte, push.Outcome) {
	body, err := json.Marshal(message, json.Deterministic(true), jsontext.AllowDuplicateNames(true))
	if err != nil { // cannot be: all texts are UTF-8
		return nil, push.Outcome{Kind: push.Temporary, Reason: push.ReasonInternal, Err: err}
	}
	return body, push.Outcome{}
}
