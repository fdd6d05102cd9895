package hms_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/hms"
	"github.com/matrix-herald/herald/push/pushtest"
)

var update = flag.Bool("update", false, "rewrite testdata/messages.golden.json")

// variants change the message that every app sends.
var variants = map[string]func(*push.Notification, *push.Device){
	"a message":             func(*push.Notification, *push.Device) {},
	"a message of low prio": func(n *push.Notification, _ *push.Device) { n.Low = true },
	"a message in a chat":   func(n *push.Notification, _ *push.Device) { n.RoomName = push.Member{} },
	"an event by its id": func(n *push.Notification, d *push.Device) {
		*n = push.Notification{EventID: n.EventID, RoomID: n.RoomID, Counts: n.Counts}
		d.Data = map[string]any{"default_payload": map[string]any{"title": "消息", "body": "新消息", "cs": "secret"}}
	},
	"an encrypted event": func(n *push.Notification, _ *push.Device) {
		n.Type, n.Content = push.NewText("m.room.encrypted"), map[string]any{"algorithm": "m.megolm.v1.aes-sha2"}
	},
	"a call": func(n *push.Notification, _ *push.Device) {
		n.Low, n.Type, n.Content = true, push.NewText("m.call.invite"), map[string]any{"lifetime": json.Number("30000")}
	},
	"a hang-up": func(n *push.Notification, _ *push.Device) {
		n.Type, n.Content = push.NewText("m.call.hangup"), map[string]any{"call_id": "1"}
	},
	"a hang-up without counts": func(n *push.Notification, d *push.Device) {
		n.Type, n.Content, n.Counts = push.NewText("m.call.hangup"), nil, push.Counts{}
	},
	"counts alone":               func(n *push.Notification, _ *push.Device) { *n = push.Notification{Counts: n.Counts} },
	"counts alone that are zero": func(n *push.Notification, _ *push.Device) { *n = push.Notification{} },
	"many":                       func(n *push.Notification, _ *push.Device) { *n.Counts.Unread = 1000 },
	"counts alone for an app that counts by itself": func(n *push.Notification, d *push.Device) {
		*n, d.Data = push.Notification{Counts: n.Counts}, map[string]any{"disable_badge_count": true}
	},
	"sound and highlight":          func(_ *push.Notification, d *push.Device) { d.Tweaks = push.Tweaks{Sound: "default", Highlight: true} },
	"a pushkey that cannot be one": func(_ *push.Notification, d *push.Device) { d.PushKey = "a\x00b" },
	"a default_payload that is no object": func(_ *push.Notification, d *push.Device) {
		d.Data = map[string]any{"default_payload": "x"}
	},
	"a default_payload without room for an event": func(_ *push.Notification, d *push.Device) {
		d.Data = map[string]any{"default_payload": map[string]any{"x": strings.Repeat("x", 4000)}}
	},
	"signs that a terminal obeys": func(n *push.Notification, _ *push.Device) {
		n.RoomName, n.Content = push.NewText("a\x1b[2J\nb"), map[string]any{"body": "\x07<b>\u202e&amp;\xff"}
	},
}

// TestMessagesAreWhatAppsExpect sends each variant through the whole provider, to
// both kinds of apps, and compares what arrives.
//
// Conformance (Huawei): v1 and v2 | data for the app, a JSON text with the members of FCM's data; urgent unless `prio` is low; counts alone replace each other
// Conformance (Huawei): v3 | a notification with room, sender, text and badge, and the data with its click; counts alone set the badge
// Conformance (Huawei): an event without text, v3 | title and body of the pusher's `default_payload`, else English words
// Conformance (Huawei): a call | urgent, category VOIP (v3), kept as long as it rings; a hang-up shows nothing
func TestMessagesAreWhatAppsExpect(t *testing.T) {
	t.Parallel()
	const file = "testdata/messages.golden.json"
	fake := pushtest.StartHMS(t, nil)
	now := time.Now()
	connections := connect(t, fake, hms.Options{Now: func() time.Time { return now }})
	got := make(map[string]map[string]any)
	for app, cfg := range map[string]hms.Config{"Android": android(fake), "HarmonyOS": harmonyOS(fake)} {
		provider := openWith(t, connections, cfg)
		for name, change := range variants {
			d := message()
			change(d.Notification, d.Device)
			before, count := clone(t, d.Device.Data), fake.Count()
			out := provider.Send(t.Context(), d)
			if diff := cmp.Diff(before, clone(t, d.Device.Data)); diff != "" {
				t.Errorf("%s: the input was changed:\n%s", name, diff)
			}
			if got[name] == nil {
				got[name] = make(map[string]any)
			}
			got[name][app] = fmt.Sprintf("%s (%s)", out.Kind, out.Reason)
			if fake.Count() == count {
				continue
			}
			if out.Reason != push.ReasonSent {
				t.Errorf("%s, %s: %+v", app, name, out)
			}
			var m map[string]any
			if err := json.Unmarshal(sent(t, fake).Body, &m); err != nil {
				t.Fatal(err)
			}
			got[name][app] = m
		}
	}
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(got); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(file, text.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), text.String()); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
}

func clone(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// FuzzMessage makes messages of what strangers write. Each is one that Huawei takes:
// of at most 4096 bytes without its token, and what a room member writes never costs
// the pusher anything.
//
// Conformance (Huawei): 4096 bytes without the token | names, then the body are cut; then members go, the ids last; the pusher's own data is judged without the event
func FuzzMessage(f *testing.F) {
	long := strings.Repeat(`"\\`+"\u0001<é\U0001F468", 500)
	for _, s := range []string{"", "x", long, "\xff\xfe", strings.Repeat("\u0001", 255), strings.Repeat(`"`, 255), strings.Repeat("y", 5000)} {
		f.Add(s, s, s, s, "m.room.message", "body", "title", s)
		f.Add("$e:x", "!r:x", "Lunch", "Alice", "m.call.invite", s, "x", s)
		f.Add(strings.Repeat("e", 255), strings.Repeat("r", 255), s, s, "m.room.message", strings.Repeat("k", 3300), "x", s)
	}
	f.Fuzz(func(t *testing.T, event, room, name, sender, kind, key, defaultKey, body string) {
		n := push.Notification{
			EventID: push.NewText(event), RoomID: push.NewText(room), RoomName: push.NewText(name), RoomAlias: push.NewText(body),
			Sender: push.NewText(sender), SenderDisplayName: push.NewText(name), Type: push.NewText(kind),
			Content: map[string]any{"body": body, key: body, name: sender},
		}
		d := push.Delivery{Notification: &n, Device: &push.Device{PushKey: token, Data: map[string]any{"default_payload": map[string]any{defaultKey: key}}}}
		for version, payload := range map[string]hms.Payload{"v1": {TTL: time.Hour}, "v3": {TTL: time.Hour, HarmonyOS: true}, "v2": {TTL: time.Hour, Small: true}} {
			text, out := payload.Message(d, time.Now())
			if text == nil {
				own := clone(t, d.Device.Data["default_payload"])
				weight := len(own)
				if version != "v3" { // it is quoted once more
					weight += strings.Count(own, `"`) + strings.Count(own, `\`)
				}
				if out.Kind != push.Accepted && (weight < 3400 || out.Reason != push.ReasonMalformedData) {
					t.Errorf("%s: %s (%s)", version, out.Kind, out.Reason)
				}
				continue
			}
			req := pushtest.HMSRequest{Version: version, Body: text, Header: http.Header{"Content-Type": {"application/json; charset=UTF-8"}, "Push-Type": {"0"}}}
			if code, words := req.Check(); code != "" {
				t.Errorf("%s: %s %s", version, code, words)
			}
		}
	})
}
