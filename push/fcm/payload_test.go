package fcm_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/fcm"
	"github.com/matrix-herald/herald/push/pushtest"
)

var update = flag.Bool("update", false, "rewrite the expectations in testdata/payload")

// payloadCase is one file of testdata/payload: an app's options, a
// notification and a device as a homeserver sends them, and what FCM gets.
type payloadCase struct {
	App          json.RawMessage `json:"app"`
	Notification json.RawMessage `json:"notification"`
	Device       json.RawMessage `json:"device"`
	Want         struct {
		Message json.RawMessage `json:"message,omitempty"` // without its token
		Outcome string          `json:"outcome,omitempty"` // when nothing is sent
	} `json:"want"`
}

// TestMessagesAreWhatAppsExpect sends each case through the whole provider and
// compares what arrives at FCM.
func TestMessagesAreWhatAppsExpect(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/payload/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	fake := pushtest.StartFCM(t, pushtest.FCMOptions{})
	connections := connect(t, fcm.Options{RootCAs: fake.CA().Pool()})
	for _, file := range files {
		t.Run(strings.ReplaceAll(strings.TrimSuffix(filepath.Base(file), ".json"), "_", " "), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var c payloadCase
			if err := json.Unmarshal(text, &c); err != nil {
				t.Fatal(err)
			}
			provider := openWith(t, connections, c.config(t, fake))
			n, d := parseNotification(t, c.Notification), parseDevice(t, c.Device)
			before := clone(t, d.Data, n.Content)
			out := provider.Send(t.Context(), push.Delivery{Notification: &n, Device: &d})
			if diff := cmp.Diff(before, clone(t, d.Data, n.Content)); diff != "" {
				t.Errorf("the input was changed (-before +after):\n%s", diff)
			}
			if *update {
				c.rewrite(t, file, out, fake)
				return
			}
			c.check(t, out, fake)
		})
	}
}

func (c payloadCase) config(t *testing.T, fake *pushtest.FCM) fcm.Config {
	t.Helper()
	var file struct {
		App fcm.Config `yaml:"app"`
	}
	file.App = configFor(fake)
	if err := conf.Load(conf.LoadOptions{Name: "case", Data: append([]byte("app: "), c.App...)}, &file); err != nil {
		t.Fatal(err)
	}
	return file.App
}

func (c payloadCase) check(t *testing.T, out push.Outcome, fake *pushtest.FCM) {
	t.Helper()
	if c.Want.Outcome != "" {
		if got := out.Kind.String() + " " + string(out.Reason); got != c.Want.Outcome {
			t.Fatalf("the outcome is %s (%v), want %s", got, out.Err, c.Want.Outcome)
		}
		return
	}
	if out.Kind != push.Accepted || out.Reason != push.ReasonSent {
		t.Fatalf("the outcome is %s (%s) %v", out.Kind, out.Reason, out.Err)
	}
	if diff := cmp.Diff(decode(t, c.Want.Message), decode(t, sent(t, fake))); diff != "" {
		t.Errorf("the message differs (-want +got):\n%s", diff)
	}
}

func (c payloadCase) rewrite(t *testing.T, file string, out push.Outcome, fake *pushtest.FCM) {
	t.Helper()
	c.Want.Message, c.Want.Outcome = nil, ""
	if out.Reason == push.ReasonSent {
		c.Want.Message = sent(t, fake)
	} else {
		c.Want.Outcome = out.Kind.String() + " " + string(out.Reason)
	}
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(c); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// sent is the latest message that arrived, without its token.
func sent(t *testing.T, fake *pushtest.FCM) json.RawMessage {
	t.Helper()
	requests := fake.Requests()
	var body struct {
		Message map[string]json.RawMessage `json:"message"`
	}
	if err := json.Unmarshal(requests[len(requests)-1].Body, &body); err != nil {
		t.Fatal(err)
	}
	if got := string(body.Message["token"]); got != `"token:1"` {
		t.Errorf("the token is %s", got)
	}
	delete(body.Message, "token")
	text, err := json.Marshal(body.Message)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func decode(t *testing.T, text []byte) any {
	t.Helper()
	var v any
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	if err := dec.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

func clone(t *testing.T, values ...any) any {
	t.Helper()
	text, err := json.Marshal(values)
	if err != nil {
		t.Fatal(err)
	}
	return decode(t, text)
}

// parseNotification reads a notification as the Push Gateway API does, as far
// as this package looks at it.
func parseNotification(t *testing.T, text []byte) push.Notification {
	t.Helper()
	m := decode(t, text).(map[string]any)
	member := func(key string) push.Member { return push.NewMember(m[key]) }
	count := func(key string) *int64 {
		counts, _ := m["counts"].(map[string]any)
		number, ok := counts[key].(json.Number)
		if !ok {
			return nil
		}
		n, err := number.Int64()
		if err != nil {
			t.Fatal(err)
		}
		return &n
	}
	return push.Notification{
		EventID: member("event_id"), Type: member("type"), RoomID: member("room_id"),
		RoomName: member("room_name"), RoomAlias: member("room_alias"), Sender: member("sender"),
		SenderDisplayName: member("sender_display_name"), Membership: member("membership"),
		UserIsTarget: m["user_is_target"] == true, Low: m["prio"] == "low", Content: m["content"],
		Counts: push.Counts{Unread: count("unread"), MissedCalls: count("missed_calls")},
	}
}

func parseDevice(t *testing.T, text []byte) push.Device {
	t.Helper()
	m := decode(t, text).(map[string]any)
	data, _ := m["data"].(map[string]any)
	tweaks, _ := m["tweaks"].(map[string]any)
	sound, _ := tweaks["sound"].(string)
	return push.Device{
		AppID: "com.example.app", PushKey: "token:1", Data: data,
		Tweaks: push.Tweaks{Sound: sound, Highlight: tweaks["highlight"] == true},
	}
}

// FuzzMessage checks what must hold for any event: the message is valid,
// within FCM's bounds, and refused only for the reasons there are.
func FuzzMessage(f *testing.F) {
	f.Add("m.room.message", "Room", "body", "hello", `{"cs":"secret"}`, uint16(1))
	f.Add("", "", "", "", `null`, uint16(0))
	f.Add("m.room.message", strings.Repeat("é", 700), "body", strings.Repeat("😀", 400), `{"content":{"a":1}}`, uint16(9))
	f.Add("t", "r", strings.Repeat("k", 300), "v", `{"from":"x","google":[1],"x":"`+strings.Repeat("y", 3000)+`"}`, uint16(60))
	f.Add("t", "\xff\xfe", "\xff", "\xf0\x9f", `{"a":"\ud800"}`, uint16(3))
	f.Fuzz(func(t *testing.T, kind, room, key, value, defaults string, copies uint16) {
		var payload any
		if json.Unmarshal([]byte(defaults), &payload) != nil {
			return
		}
		content := make(map[string]any)
		for i := range copies % 64 {
			content[key+strings.Repeat("x", int(i))] = strings.Repeat(value, int(i)%8)
		}
		unread := int64(copies)
		n := push.Notification{
			EventID: push.NewMember("$e:x"), RoomID: push.NewMember("!r:x"), Type: push.NewMember(kind),
			RoomName: push.NewMember(room), SenderDisplayName: push.NewMember(value), Content: content,
			Counts: push.Counts{Unread: &unread},
		}
		d := push.Device{PushKey: "token", Data: map[string]any{"default_payload": payload}}
		msg, out := fcm.Payload{BadgeCounts: true, Tweaks: true}.Message(&n, &d)
		if msg == nil {
			_, object := payload.(map[string]any)
			if out.Kind != push.Rejected && out.Kind != push.Dropped || object && len(defaults) < 2048 && out.Kind == push.Rejected {
				t.Fatalf("refused: %s (%s)", out.Kind, out.Reason)
			}
			return
		}
		size := 0
		for key, value := range msg.Data {
			if !utf8.ValidString(key) || !utf8.ValidString(value) {
				t.Errorf("%q: %q is not UTF-8", key, value)
			}
			if key == "" || key == "from" || key == "message_type" || strings.HasPrefix(key, "google") || strings.HasPrefix(key, "gcm") {
				t.Errorf("the key %q is reserved", key)
			}
			size += len(key) + len(value)
		}
		if size > 4096 {
			t.Errorf("the data has %d bytes", size)
		}
		again, _ := fcm.Payload{BadgeCounts: true, Tweaks: true}.Message(&n, &d)
		if !maps.Equal(msg.Data, again.Data) {
			t.Error("the same event gave two different messages")
		}
	})
}

// BenchmarkMessage shows that the work grows with the event's size and not
// faster.
func BenchmarkMessage(b *testing.B) {
	for _, members := range []int{2, 200, 20_000} {
		content := make(map[string]any, members)
		for i := range members {
			content["k"+strings.Repeat("x", i%7)+string(rune('A'+i%26))+string(rune(0x4e00+i))] = "some text"
		}
		n := push.Notification{EventID: push.NewMember("$e:x"), RoomID: push.NewMember("!r:x"), Content: content}
		d := push.Device{PushKey: "token"}
		b.Run(strconv.Itoa(members)+" members", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if msg, _ := (fcm.Payload{}).Message(&n, &d); msg == nil {
					b.Fatal("no message")
				}
			}
		})
	}
}
