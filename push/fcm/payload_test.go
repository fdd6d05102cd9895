package fcm_test

import (
	"bytes"
	cmp2 "cmp"
	"encoding/json"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/eventdata"
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
//
// Conformance (FCM): messages equal to Sygnal's as JSON (also TestHomeserversNotificationsArrive)
// Conformance (FCM): values of default_payload and content that are no strings (≠ Sygnal: FCM refuses them) | their JSON text
// Conformance (FCM): keys that FCM reserves in default_payload (≠ Sygnal: FCM refuses the message) | left out
// Conformance (FCM): counts alone (≠ Sygnal: urgent, with what fcm_options shows) | normal priority, data alone; by way of APNs a badge at priority 5
// Conformance (FCM): counts alone that are 0 or missing (≠ Sygnal: nothing is sent) | `unread` is 0; with events zero counts go out where `badge: all`
// Conformance (FCM): `payload: dart` | members as matrix-dart-sdk's PushNotification reads them; content gives way first
// Conformance (FCM): a call that rings; one that ends (≠ Sygnal: any event) | urgent, gone when it has rung, and it replaces nothing; data alone (also TestARingByWayOfAPNsEndsWithItsCall)
// Conformance (FCM): `disable_badge_count` in the pusher's data (MSC4076), `badge: with_events` | no counts for that device; none without an event
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
	further, _ := m["further"].(map[string]any) // what the app passes on, of what stands beside the other members
	return push.Notification{
		Further: further,
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

// dataOf is the data of a request's body.
func dataOf(t testing.TB, body []byte) map[string]string {
	t.Helper()
	var request struct {
		Message struct {
			Data map[string]string `json:"data"`
		} `json:"message"`
	}
	if err := json.Unmarshal(body, &request); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	return request.Message.Data
}

func weight(data map[string]string) int {
	size := 0
	for key, value := range data {
		size += len(key) + len(value)
	}
	return size
}

var noon = time.Unix(1_800_000_000, 0)

var everything = fcm.Payload{BadgeCounts: true, BadgeZero: true, BadgeAlone: true, Tweaks: true}

// FuzzMessage checks what must hold for anything that a room member can write,
// and for any pusher that leaves room for an event: something is sent, it is
// valid and within FCM's bounds, apps find the event by it, and it does not
// matter whether other devices of the request got it before.
//
// Conformance (FCM): anything that a room member can write | is pushed, valid and within 4096 bytes, with the ids; it costs no pushkey (also TestContract, TestOptionsTakeTheirRoom)
func FuzzMessage(f *testing.F) {
	f.Add(`{"msgtype":"m.text","body":"hello"}`, "m.room.message", "Room", "!r:x", `{"cs":"secret"}`, int64(1), uint16(0))
	f.Add(`null`, "", "", "", `null`, int64(0), uint16(9))
	f.Add(`{"a":[[[[]]]],"":"\\ud800"}`, "m.room.member", "é", "r", `{"content":{"a":1},"from":"x","google":[1]}`, int64(-60), uint16(100))
	f.Add(`["😀"]`, "\xff\xfe", "\xf0\x9f<", "\x00", `{"content_x0":"y","event_id":[]}`, int64(1)<<62, uint16(2000))
	for times := range uint16(2) { // for both payloads
		f.Add(`{}`, "m.room.message", "Room", strings.Repeat("i", 255), `{"x":"`+strings.Repeat("x", 3750)+`"}`, int64(1), times)
	}
	f.Fuzz(func(t *testing.T, contentText, kind, room, id, defaults string, unread int64, times uint16) {
		content, ok := tryDecode(contentText)
		payload, ok2 := tryDecode(defaults)
		if !ok || !ok2 {
			return
		}
		if members, ok := content.(map[string]any); ok {
			for i := range int(times) % 3000 {
				members[kind+strconv.Itoa(i)] = strings.Repeat(room, i%50)
			}
			members["body"] = strings.Repeat(room, int(times))
		}
		kind, id, room = kind[:min(len(kind), 255)], id[:min(len(id), 255)], strings.Repeat(room, int(times)%500)
		n := push.Notification{
			EventID: push.NewText(id), RoomID: push.NewText(id), Type: push.NewText(kind),
			RoomName: push.NewText(room), RoomAlias: push.NewText(room), Sender: push.NewText(kind),
			SenderDisplayName: push.NewText(room), Membership: push.NewText(kind), Content: content,
			Counts: push.Counts{Unread: &unread},
		}
		if times%3 == 0 {
			n.Further = map[string]any{"further": content}
		}
		app := everything
		app.Dart = times%2 == 0
		d := push.Delivery{Notification: &n, Device: &push.Device{PushKey: "token", Data: map[string]any{"default_payload": payload}}}
		body, out := app.Message(d, noon)
		object, isObject := payload.(map[string]any)
		own := weight(texts(object))
		if app.Dart {
			text, _ := json.Marshal([]any{eventdata.Entry(d.Device)})
			own = len(text) + len("devices")
		}
		if body == nil {
			if out.Reason != push.ReasonMalformedData || isObject && own < 4096-128 {
				t.Fatalf("refused: %s (%s)", out.Kind, out.Reason)
			}
			return
		}
		data := dataOf(t, body)
		for key := range data {
			if key == "" || key == "from" || key == "message_type" || strings.HasPrefix(key, "google") || strings.HasPrefix(key, "gcm") {
				t.Errorf("the key %q is reserved", key)
			}
		}
		if size := weight(data); size > 4096 || !utf8.Valid(body) {
			t.Errorf("the data has %d bytes", size)
		}
		if utf8.ValidString(id) && own < 4096-600 && (data["event_id"] != id || data["room_id"] != id) {
			t.Errorf("nobody finds the event by %v", data)
		}
		d.Common = new(push.Common)
		for range 2 {
			if again, _ := app.Message(d, noon); !bytes.Equal(again, body) {
				t.Error("the same event gave two different messages")
			}
		}
	})
}

// tryDecode reads any JSON as the gateway does.
func tryDecode(text string) (v any, ok bool) {
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	return v, dec.Decode(&v) == nil
}

// texts is what a pusher's default_payload becomes, or more.
func texts(defaults map[string]any) map[string]string {
	m := make(map[string]string)
	for key, value := range defaults {
		if s, ok := value.(string); ok {
			m[key] = s
			continue
		}
		text, _ := json.Marshal(value)
		m[key] = string(text)
	}
	return m
}

// TestUnknownMembersGiveWayFirst: the members that apps show stay whole as long
// as others can be left out, and of those the shortest stay: as if the longest had
// been dropped, one after the other, until the rest fits.
//
// Conformance (FCM): 4096 bytes in total (≠ Sygnal: FCM refuses the message) | members of the content that apps do not show go first, the longest before the others; then names are cut, the body last (also TestMessagesAreWhatAppsExpect)
func TestUnknownMembersGiveWayFirst(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(content map[string]any){
		"six members of a kilobyte": func(c map[string]any) {
			for i := range 6 {
				c["x"+strconv.Itoa(i)] = strings.Repeat("y", 1000)
			}
		},
		"two thousand members": func(c map[string]any) {
			for i := range 2000 {
				c[strconv.Itoa(i)] = strings.Repeat("z", i%50)
			}
		},
		"forty-five thousand members": func(c map[string]any) {
			for i := range 45_000 {
				c[strconv.Itoa(i)] = "a"
			}
		},
		"a name of 60 KiB":  func(c map[string]any) { c[strings.Repeat("n", 60<<10)] = "a" },
		"a value of 60 KiB": func(c map[string]any) { c["v"] = strings.Repeat("n", 60<<10) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := strings.Repeat("b", 900)
			content := map[string]any{"msgtype": "m.text", "body": text}
			change(content)
			d := message("token")
			d.Notification.Content = content
			body, _ := everything.Message(d, noon)
			got := dataOf(t, body)
			if got["content_body"] != text || got["content_msgtype"] != "m.text" {
				t.Errorf("the body has %d bytes", len(got["content_body"]))
			}
			if diff := cmp.Diff(dropLongest(got, content), got); diff != "" {
				t.Errorf("the data differs (-want +got):\n%s", diff)
			}
		})
	}
}

// dropLongest adds all of content to data and drops from it what gives way.
func dropLongest(data map[string]string, content map[string]any) map[string]string {
	all := maps.Clone(data)
	var others []string
	for key, value := range content {
		s := value.(string)
		if len(s) > 1024 {
			s = s[:1021] + "…"
		}
		all["content_"+key] = s
		if key != "body" && key != "msgtype" {
			others = append(others, "content_"+key)
		}
	}
	slices.SortFunc(others, func(a, b string) int {
		return cmp2.Or(cmp2.Compare(len(b)+len(all[b]), len(a)+len(all[a])), cmp2.Compare(b, a))
	})
	for size := weight(all); size > 4096; others = others[1:] {
		size -= len(others[0]) + len(all[others[0]])
		delete(all, others[0])
	}
	return all
}

// FCM counts what fcm_options show, too.
func TestOptionsTakeTheirRoom(t *testing.T) {
	t.Parallel()
	fake := pushtest.StartFCM(t, pushtest.FCMOptions{})
	cfg := configFor(fake)
	cfg.Options = map[string]any{"notification": map[string]any{"title": strings.Repeat("t", 500)}}
	d := message("token")
	content := map[string]any{"body": strings.Repeat("b", 1000)}
	for i := range 100 {
		content[strconv.Itoa(i)] = strings.Repeat("x", 100)
	}
	d.Notification.Content = content
	expect(t, openWith(t, connect(t, fcm.Options{RootCAs: fake.CA().Pool()}), cfg).Send(t.Context(), d), push.Accepted, push.ReasonSent)
	request := fake.Requests()[0].Message
	if size := weight(request.Data) + len(request.Notification); size > 4096 || size < 3800 || len(request.Data["content_body"]) != 1000 {
		t.Errorf("data and notification have %d bytes, the body has %d", size, len(request.Data["content_body"]))
	}
}

// What goes by way of APNs ends with its call too.
func TestARingByWayOfAPNsEndsWithItsCall(t *testing.T) {
	t.Parallel()
	fake := pushtest.StartFCM(t, pushtest.FCMOptions{})
	cfg := configFor(fake)
	cfg.Options = map[string]any{"apns": map[string]any{
		"headers": map[string]any{"apns-collapse-id": "k", "apns-topic": "t"}, "payload": map[string]any{"aps": map[string]any{"alert": "Call"}},
	}}
	d := message("token")
	d.Notification.Type, d.Notification.Content = push.NewText("m.call.invite"), map[string]any{"lifetime": json.Number("90000")}
	provider := openWith(t, connect(t, fcm.Options{RootCAs: fake.CA().Pool(), Now: func() time.Time { return noon }}), cfg)
	expect(t, provider.Send(t.Context(), d), push.Accepted, push.ReasonSent)
	want := `{"headers":{"apns-expiration":"1800000090","apns-topic":"t"},"payload":{"aps":{"alert":"Call"}}}`
	if diff := cmp.Diff(want, string(fake.Requests()[0].Message.APNS)); diff != "" {
		t.Errorf("apns (-want +got):\n%s", diff)
	}
}

// Two accounts on one device share its token, and must not replace each other's
// messages.
//
// Conformance (FCM): `collapse: room` | of two accounts on one device each keeps its own
func TestAccountsOfOneDeviceCollapseApart(t *testing.T) {
	t.Parallel()
	key := func(data map[string]any, room string) string {
		d := message("token")
		d.Device.Data, d.Notification.RoomID = data, push.NewText(room)
		body, _ := fcm.Payload{CollapseRoom: true}.Message(d, noon)
		var request struct {
			Message pushtest.FCMMessage `json:"message"`
		}
		if err := json.Unmarshal(body, &request); err != nil {
			t.Fatal(err)
		}
		return request.Message.Android.CollapseKey
	}
	one, other := map[string]any{"default_payload": map[string]any{"cs": "1"}}, map[string]any{"default_payload": map[string]any{"cs": "2"}}
	first := key(one, "!r:x")
	if first != key(one, "!r:x") || first == key(one, "!s:x") || first == key(other, "!r:x") {
		t.Error("the collapse key is not that of one account's room")
	}
}

// TestAnEventIsReadOnce: what a room member wrote is looked at once for all devices
// of a request, of whatever app.
//
// Conformance (FCM): a hundred devices and an event of any size | the event's part is made once (also BenchmarkDevices)
// Conformance (attacks): a content of 45,000 members, 480 KiB, for a hundred devices, 6 times a second | the event's part of a message is made once; flattening ends where the message is full; a request's time also ends work of the gateway's own (also BenchmarkDevices, TestTheEndOfARequestEndsOurOwnWorkToo)
func TestAnEventIsReadOnce(t *testing.T) {
	t.Parallel()
	content := map[string]any{"body": "first", "x": "y"}
	d := message("token")
	d.Notification.Content, d.Common = content, new(push.Common)
	first, _ := everything.Message(d, noon)
	clear(content)
	d.Device = &push.Device{PushKey: "token", Data: map[string]any{"default_payload": map[string]any{"content_x": "z", "cs": "secret"}}}
	second, _ := fcm.Payload{Target: fcm.TargetFID}.Message(d, noon)
	want := dataOf(t, first)
	want["cs"] = "secret"
	if diff := cmp.Diff(want, dataOf(t, second)); diff != "" {
		t.Errorf("the data differs (-want +got):\n%s", diff)
	}
}
