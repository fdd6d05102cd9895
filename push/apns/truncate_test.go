package apns_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/apns"
)

const (
	family   = "\U0001F468\u200d\U0001F469\u200d\U0001F467" // three people joined to one emoji, 18 bytes
	scotland = "\U0001F3F4\U000E0067\U000E0062\U000E0073\U000E0063\U000E0074\U000E007F"
)

func message(sender, room, body string) *push.Notification {
	return &push.Notification{
		EventID: push.NewMember("$e:x"), RoomID: push.NewMember("!r:x"), Type: push.NewMember("m.room.message"),
		Sender: push.NewMember(sender), RoomName: push.NewMember(room),
		Content: map[string]any{"msgtype": "m.text", "body": body},
	}
}

// shown is the part of a payload that is cut.
type shown struct {
	APS struct {
		Alert struct {
			Body string   `json:"body"`
			Args []string `json:"loc-args"`
		} `json:"alert"`
	} `json:"aps"`
}

func build(t testing.TB, n *push.Notification, d *push.Device, limit int) (apns.Payload, shown) {
	t.Helper()
	p, err := newPayload(n, d, apns.PayloadOptions{BadgeCounts: true, MaxBytes: limit})
	if err != nil {
		t.Fatal(err)
	}
	var s shown
	decode(t, p.JSON, &s)
	return p, s
}

// Conformance (APNs): size: 4096 bytes, 5120 for VoIP, without escapes for HTML; texts cut from the longest, whole characters, but some of a heap of marks; linear time (also TestTheLongestTextsAreCutFirst, TestCharactersStayWhole, TestVoIPPushesMayBeLarger, FuzzPayload)
func TestLongTextsAreCutToTheLastByte(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		body  string
		slack int // bytes that may stay free: part of the next character
	}{
		"letters":                       {strings.Repeat("x", 9000), 0},
		"emoji of four bytes":           {strings.Repeat("\U0001F600", 3000), 3},
		"HTML":                          {strings.Repeat("<&>", 3000), 0},
		"control characters":            {strings.Repeat("\x01", 9000), 5},
		"quotes and line breaks":        {strings.Repeat("\"\n\\", 9000), 1},
		"line separators":               {strings.Repeat("\u2028", 9000), 2},
		"replacement characters":        {strings.Repeat("\ufffd", 9000), 2},
		"one letter more than fits":     {strings.Repeat("x", 3990), 0},
		"a letter with a heap of marks": {"Z" + strings.Repeat("\u0351", 5000), 1},
	} {
		p, _ := build(t, message("@a:x", "Room", test.body), &push.Device{}, 0)
		if n := len(p.JSON); n > apns.MaxPayload || n < apns.MaxPayload-test.slack {
			t.Errorf("%s: the payload has %d bytes, want %d to %d", name, n, apns.MaxPayload-test.slack, apns.MaxPayload)
		}
		if !utf8.Valid(p.JSON) {
			t.Errorf("%s: the payload is not UTF-8", name)
		}
	}
}

func TestAPayloadOfExactlyTheLimitIsNotCut(t *testing.T) {
	t.Parallel()
	empty, _ := build(t, message("@a:x", "Room", "<"), &push.Device{}, 0)
	body := strings.Repeat("<", apns.MaxPayload-len(empty.JSON)+1) // HTML needs no escapes
	p, s := build(t, message("@a:x", "Room", body), &push.Device{}, 0)
	if len(p.JSON) != apns.MaxPayload || s.APS.Alert.Args[2] != body {
		t.Errorf("the payload has %d bytes and a body of %d, want %d and %d", len(p.JSON), len(s.APS.Alert.Args[2]), apns.MaxPayload, len(body))
	}
}

func TestTheLongestTextsAreCutFirst(t *testing.T) {
	t.Parallel()
	device := func(alert any) *push.Device {
		return &push.Device{Data: map[string]any{"default_payload": map[string]any{"aps": map[string]any{"alert": alert}}}}
	}
	text := func(n int) string { return strings.Repeat("x", n) }
	eventOnly := &push.Notification{EventID: push.NewMember("$e:x")}
	for name, test := range map[string]struct {
		n    *push.Notification
		d    *push.Device
		want []int // lengths of body and arguments; -1 for as long as the other -1
	}{
		"a long body and short names":               {message("a", "r", text(9000)), &push.Device{}, []int{0, 1, 1, -1}},
		"names as long as the body share its fate":  {message(text(1024), text(1024), text(1e5)), &push.Device{}, []int{0, 1024, 1024, -1}},
		"the app's own body and the message's":      {message("a", "r", text(9000)), device(map[string]any{"body": text(9000)}), []int{-1, 1, 1, -1}},
		"the app's own alert as text":               {message("a", "r", "b"), device(text(9000)), []int{-1, 1, 1, 1}},
		"arguments that are no text stay":           {eventOnly, device(map[string]any{"loc-args": []any{json.Number("1"), text(5000), text(5000)}}), nil},
		"an alert that is text of an event id only": {eventOnly, device(text(9000)), nil},
	} {
		p, err := newPayload(test.n, test.d, apns.PayloadOptions{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(p.JSON) > apns.MaxPayload || len(p.JSON) < apns.MaxPayload-1 {
			t.Errorf("%s: the payload has %d bytes", name, len(p.JSON))
		}
		if test.want == nil {
			continue
		}
		var s shown
		decode(t, p.JSON, &s)
		cutTo := 0
		for i, text := range append([]string{s.APS.Alert.Body}, s.APS.Alert.Args...) {
			switch {
			case test.want[i] >= 0 && len(text) != test.want[i]:
				t.Errorf("%s: text %d has %d bytes, want %d", name, i, len(text), test.want[i])
			case test.want[i] < 0 && cutTo != 0 && (len(text) < cutTo-1 || len(text) > cutTo+1):
				t.Errorf("%s: text %d has %d bytes, want %d like the one before", name, i, len(text), cutTo)
			case test.want[i] < 0:
				cutTo = len(text)
			}
		}
	}
}

func TestCharactersStayWhole(t *testing.T) {
	t.Parallel()
	for name, char := range map[string]string{
		"a letter with an accent of its own": "e\u0301",
		"a letter with many marks":           "Z\u0351\u036b\u0343",
		"a skin tone":                        "\U0001F44D\U0001F3FD",
		"a joined family":                    family,
		"a flag":                             "\U0001F1E9\U0001F1EA",
		"the flag of Scotland":               scotland,
		"a heart with a variation selector":  "\u2764\ufe0f",
		"a keycap":                           "1\ufe0f\u20e3",
		"a syllable with a vowel sign":       "\u0915\u093f",
	} {
		body := strings.Repeat(char, 4000/len(char)+10)
		for limit := apns.MaxPayload; limit > apns.MaxPayload-len(char); limit-- {
			p, s := build(t, message("@a:x", "Room", body), &push.Device{}, limit)
			got := s.APS.Alert.Args[2]
			if len(got)%len(char) != 0 || !strings.HasPrefix(body, got) || len(p.JSON) <= limit-len(char) {
				t.Errorf("%s: limit %d: %d bytes of text end %q, payload %d", name, limit, len(got), got[max(0, len(got)-8):], len(p.JSON))
			}
		}
	}
}

// Conformance (APNs): default_payload too large (≠ Sygnal: 500) | rejected; ids and sounds never cost a pushkey (also TestWhatIsNotSent)
func TestTooLongPayloads(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 5000)
	bulky := func(n int) *push.Device {
		return &push.Device{Data: map[string]any{"default_payload": map[string]any{"bulk": long[:n]}}}
	}
	for name, test := range map[string]struct {
		n    *push.Notification
		d    *push.Device
		want error
	}{
		"a default payload that is too long is the pusher's fault":          {message("a", "r", "b"), bulky(4096), errMalformed},
		"a default payload that leaves no room is, too":                     {message("a", "r", "b"), bulky(4050), errMalformed},
		"a default payload that leaves no room for the longest ids is, too": {&push.Notification{EventID: push.NewMember(long[:255]), RoomID: push.NewMember(long[:255])}, bulky(3600), errMalformed},
		"a default payload that leaves room for ids is fine":                {message("a", "r", long), bulky(3000), nil},
		"a sound beyond measure is not the pusher's fault":                  {message("a", "r", "b"), &push.Device{Tweaks: push.Tweaks{Sound: long}}, nil},
		"ids that need escapes are not the pusher's fault":                  {&push.Notification{EventID: push.NewMember(strings.Repeat("\x01", 255)), RoomID: push.NewMember(strings.Repeat("\x01", 255))}, bulky(3000), nil},
		"a default payload whose texts can be cut is fine":                  {message("a", "r", "b"), &push.Device{Data: map[string]any{"default_payload": map[string]any{"aps": map[string]any{"alert": long}}}}, nil},
		"a default payload with endless arguments is the pusher's fault":    {&push.Notification{EventID: push.NewMember("$e")}, &push.Device{Data: map[string]any{"default_payload": map[string]any{"aps": map[string]any{"alert": map[string]any{"loc-args": make([]any, 5000)}}}}}, errMalformed},
	} {
		_, err := newPayload(test.n, test.d, apns.PayloadOptions{Tweaks: true})
		if !errors.Is(err, test.want) {
			t.Errorf("%s: the error is %v, want %v", name, err, test.want)
		}
	}
}

func TestCuttingLeavesTheInputAlone(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 3000)
	alert := map[string]any{"body": long, "loc-args": []any{long, json.Number("1")}}
	aps := map[string]any{"alert": alert}
	data := map[string]any{"default_payload": map[string]any{"aps": aps}}
	for name, n := range map[string]*push.Notification{
		"an event id only": {EventID: push.NewMember("$e:x")},
		"a message":        message("a", "r", long),
	} {
		p, err := newPayload(n, &push.Device{Data: data}, apns.PayloadOptions{})
		if err != nil || len(p.JSON) < apns.MaxPayload-1 {
			t.Fatalf("%s: %d bytes, %v", name, len(p.JSON), err)
		}
		want := map[string]any{"body": long, "loc-args": []any{long, json.Number("1")}}
		if diff := cmp.Diff(want, alert) + cmp.Diff(map[string]any{"alert": want}, aps); diff != "" {
			t.Errorf("%s: the default payload was changed:\n%s", name, diff)
		}
		if len(data) != 1 || len(maps.Clone(data["default_payload"].(map[string]any))) != 1 {
			t.Errorf("%s: members were added to the pusher's data", name)
		}
	}
}

func FuzzPayload(f *testing.F) {
	f.Add("@a:x", "Room", "hello", "", uint8(1), uint16(0))
	f.Add("Zoë\u0301", "r", "<&>\u2028", "body", uint8(200), uint16(100))
	f.Add("\ufffd", family, family+scotland, "\U0001F1E9", uint8(90), uint16(3000))
	f.Add("\x00\x7f\"\\", "\u0301\u0301", "\u200d\u200d", "\ufffd", uint8(255), uint16(1))
	f.Fuzz(func(t *testing.T, sender, room, body, own string, times uint8, extra uint16) {
		if !utf8.ValidString(sender) || !utf8.ValidString(room) || !utf8.ValidString(body) || !utf8.ValidString(own) {
			return // is refused before it is decoded
		}
		limit := 500 + int(extra)%5000
		sender, room = strings.Repeat(sender, int(times)), strings.Repeat(room, int(times))
		body, own = strings.Repeat(body, 4*int(times)), strings.Repeat(own, int(times))
		n := message(sender, room, body)
		d := &push.Device{Data: map[string]any{"default_payload": map[string]any{
			"aps": map[string]any{"alert": map[string]any{"body": own}},
		}}}
		p, s := build(t, n, d, limit)
		if len(p.JSON) > limit {
			t.Fatalf("%d bytes, limit %d", len(p.JSON), limit)
		}
		if !utf8.Valid(p.JSON) {
			t.Fatal("not UTF-8")
		}
		for _, got := range append(s.APS.Alert.Args, s.APS.Alert.Body) {
			found := false
			for _, text := range []string{sender, room, body, own, " "} {
				found = found || strings.HasPrefix(text, got)
			}
			if !found {
				t.Fatalf("%q is no prefix of what was given", got)
			}
		}
	})
}

// BenchmarkPayload shows that the work grows linearly with the length of what
// is cut.
func BenchmarkPayload(b *testing.B) {
	device := &push.Device{Data: map[string]any{"default_payload": map[string]any{
		"aps": map[string]any{"mutable-content": json.Number("1"), "sound": "default"}, "cs": "secret",
	}}}
	unread := int64(3)
	run := func(name string, n *push.Notification) {
		n.Counts.Unread = &unread
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := newPayload(n, device, apns.PayloadOptions{BadgeCounts: true}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	run("event id only", &push.Notification{EventID: push.NewMember("$e:x"), RoomID: push.NewMember("!r:x")})
	for _, size := range []int{10, 8 << 10, 64 << 10, 512 << 10} {
		run(fmt.Sprintf("body=%d", size), message("@a:x", "Room", strings.Repeat("<", size)))
	}
}
