package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/apns"
	"github.com/matrix-herald/herald/push/fcm"
	"github.com/matrix-herald/herald/push/hms"
	"github.com/matrix-herald/herald/push/webpush"
)

// dev turns the configuration into one for development: nothing is sent to a
// push service, and stopping takes no time.
func (c *Config) dev() {
	c.Apps = nil
	c.Dev = true
	c.HTTP.DrainDelay = 0
	// Nothing of it may reach what real gateways remember.
	c.Redis.URL = ""
}

// printExample prints the line that a reader pastes to see a notification.
func (p *program) printExample(api []net.Addr) {
	address := api[0].String()
	target := "http://" + address + "/_matrix/push/v1/notify"
	if api[0].Network() == "unix" {
		target = "--unix-socket " + address + " http://localhost/_matrix/push/v1/notify"
	}
	fmt.Fprintf(p.stdout, `
pushgw prints here what phones would show. Send it a notification:

  curl %s -d '{"notification":{"event_id":"$1","room_id":"!room:example.org","type":"m.room.message","sender":"@alice:example.org","sender_display_name":"Alice","room_name":"Lunch","content":{"msgtype":"m.text","body":"Noodles today?"},"counts":{"unread":2},"devices":[{"app_id":"org.example.app","pushkey":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}]}}'

`, target)
}

// printer is the provider of development: it prints notifications as a phone
// would show them, and what would have been sent. It writes to the terminal
// and never to the log, because it shows what must not be logged.
type printer struct {
	mu  sync.Mutex
	out io.Writer
}

func newPrinter(out io.Writer) *printer { return &printer{out: out} }

// Destination is nothing that could fail.
func (p *printer) Destination(*push.Device) string { return "" }

// Address is the pushkey, whatever it is.
func (p *printer) Address(d *push.Device) string { return d.PushKey }

// Send prints the delivery.
func (p *printer) Send(_ context.Context, d push.Delivery) push.Outcome {
	var b bytes.Buffer
	fmt.Fprintf(&b, "--- notification for %s, pushkey %s\n", quoted(d.Device.AppID), quoted(d.Device.PushKey))
	title, body := display(d.Notification)
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%-11s %s\n", name, value)
		}
	}
	line("title", title)
	line("body", body)
	if d.Notification.Counts.Known() {
		line("badge", fmt.Sprint(d.Notification.Counts.Badge()))
	}
	line("sound", quoted(d.Device.Tweaks.Sound))
	for _, kind := range kindsOf(d.Device) {
		text, out := preview(kind, d, time.Now())
		if text == nil {
			text = []byte(strings.ReplaceAll(string(out.Reason), "_", " "))
		}
		line(kind, printable(string(text)))
	}
	b.WriteByte('\n')

	p.mu.Lock()
	defer p.mu.Unlock()
	if _, err := p.out.Write(b.Bytes()); err != nil {
		return push.Outcome{Kind: push.Temporary, Reason: push.ReasonInternal, Err: err}
	}
	return push.Outcome{Kind: push.Accepted, Reason: push.ReasonSent}
}

// display says what an app would put into words.
func display(n *push.Notification) (title, body string) {
	from := n.SenderDisplayName.String()
	if from == "" {
		from = n.Sender.String()
	}
	title = n.RoomName.String()
	if title == "" {
		title = n.RoomAlias.String()
	}
	content, _ := n.Content.(map[string]any)
	text, _ := content["body"].(string)
	switch {
	case n.Type.String() == "m.call.invite":
		body = from + " is calling"
	case n.Type.String() == "m.room.member" && n.UserIsTarget && n.Membership.String() == "invite":
		body = from + " invites you"
	case n.Type.Truthy() && text != "":
		body = from + ": " + text
	case n.Type.Truthy():
		body = "A message from " + from
	case n.EventID.Truthy():
		body = "(the app fetches the event by its id)"
	}
	return quoted(title), quoted(body)
}

// quoted makes text from strangers harmless to a terminal.
func quoted(s string) string {
	q := strconv.Quote(s)
	return q[1 : len(q)-1]
}

// printable replaces what a terminal might obey in JSON, where the usual
// control characters are escaped already.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return '\ufffd'
		}
		return r
	}, s)
}

// kindsOf returns the names of the payloads that a pushkey like d's can get.
func kindsOf(d *push.Device) []string {
	_, subscription := d.Data["endpoint"]
	switch {
	case strings.HasPrefix(d.PushKey, "https://"):
		return []string{"unifiedpush"}
	case subscription:
		return []string{"webpush", "declarative"}
	case apns.DeviceToken(d.PushKey) != "":
		return []string{"apns", "fcm"}
	}
	return []string{"fcm", "dart", "hms", "harmonyos"}
}

// preview returns what an app gets of a kind of payload: of a type of app, or of
// another value of its option payload. Other options have their defaults.
func preview(kind string, d push.Delivery, now time.Time) ([]byte, push.Outcome) {
	switch kind {
	case "apns":
		payload, out := apns.NewPayload(d, apns.PayloadOptions{BadgeCounts: true, BadgeAlone: true}, now)
		return payload.JSON, out
	case "webpush":
		return webpush.Config{}.Preview(d, now)
	case "declarative":
		return webpush.Config{Payload: webpush.PayloadDeclarative, Navigate: "https://app.example.org/#/room/{room_id}/{event_id}"}.Preview(d, now)
	case "unifiedpush":
		return webpush.UnifiedPush{}.Preview(d, now)
	case "hms", "harmonyos":
		return hms.Payload{TTL: 24 * time.Hour, HarmonyOS: kind == "harmonyos"}.Message(d, now)
	default:
		return fcm.Payload{BadgeCounts: true, BadgeAlone: true, Dart: kind == "dart"}.Message(d, now)
	}
}
