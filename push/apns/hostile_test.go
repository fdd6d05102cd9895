package apns_test

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/apns"
	"github.com/matrix-herald/herald/push/pushtest"
)

// offline is an app whose pushes are taken by nobody but the test.
type offline struct {
	*apns.Provider
	bodies [][]byte
}

func newOffline(tb testing.TB, change func(*apns.Config)) *offline {
	tb.Helper()
	o := new(offline)
	connections := connect(tb, apns.Options{Wrap: func(http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			body, err := io.ReadAll(r.Body)
			o.bodies = append(o.bodies, body)
			return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Header: make(http.Header)}, err
		})
	}})
	cfg := apns.Config{Key: conf.Secret(pushtest.NewTokenKey(tb).P8(tb)), KeyID: "KEY4567890", TeamID: "TEAM567890", Topic: topic}
	change(&cfg)
	o.Provider = open(tb, connections, cfg)
	return o
}

// FuzzWhatAMemberOfARoomWrites: whatever JSON is the content of an event, and
// whatever its names and ids are within the specification's sizes, a push goes
// out that Apple takes.
//
// Conformance (APNs): whatever JSON is the content of an event, whatever its names and ids | a push goes out that Apple takes
func FuzzWhatAMemberOfARoomWrites(f *testing.F) {
	types := []string{"m.room.message", "m.room.encrypted", "m.call.invite", "m.rtc.notification", "org.example.custom", ""}
	for i, content := range []string{
		`{"msgtype":"m.text","body":"hello"}`, `{"msgtype":"m.image","body":1e999}`, `{"msgtype":{},"body":{"a":[]}}`, `{"msgtype":"m.emote","body":true}`,
		`[[[[[[[[]]]]]]]]`, `"text"`, `null`, `1`, `{"offer":{"sdp":["m=video"]}}`, `{"lifetime":-1,"sender_ts":1e300}`,
		`{"msgtype":"m.text","body":"Z` + strings.Repeat("\u0351", 3000) + `"}`, `{"aps":{"alert":"x"},"msgtype":"m.text","body":""}`,
	} {
		f.Add(content, "Alice", "Room", "#room:x", "!r:x", "$e:x", uint8(i), i%2 == 0, i%3 == 0)
	}
	f.Add(`{}`, strings.Repeat("\x01", 255), family, scotland, strings.Repeat("\"", 255), strings.Repeat("\x00", 255), uint8(0), true, true)
	app := newOffline(f, func(c *apns.Config) {
		c.SoundAndHighlight, c.DefaultSound, c.Collapse = true, "default", apns.CollapseRoom
	})
	f.Fuzz(func(t *testing.T, content, sender, room, alias, roomID, eventID string, kind uint8, low, further bool) {
		decoder := json.NewDecoder(strings.NewReader(content))
		decoder.UseNumber()
		n := &push.Notification{
			EventID: push.NewText(eventID), RoomID: push.NewText(roomID), Type: push.NewText(types[int(kind)%len(types)]),
			SenderDisplayName: push.NewText(sender), RoomName: push.NewText(room), RoomAlias: push.NewText(alias), Low: low,
		}
		if decoder.Decode(&n.Content) != nil || !utf8.ValidString(content+sender+room+alias+roomID+eventID) || max(len(roomID), len(eventID)) > 255 {
			return // is refused, or counts as absent
		}
		if further {
			n.Further = map[string]any{"further": n.Content}
		}
		d := device()
		d.Data = map[string]any{"default_payload": map[string]any{"aps": map[string]any{"alert": "x"}, "bulk": strings.Repeat("x", 3000)}}
		app.bodies = nil
		got := app.Send(t.Context(), push.Delivery{Notification: n, Device: d, ID: id})
		if got.Kind != push.Accepted || got.Reason != push.ReasonSent || len(app.bodies) != 1 {
			t.Fatalf("got %+v and %d pushes, want one that is taken", got, len(app.bodies))
		}
		var payload map[string]any
		if body := app.bodies[0]; len(body) > apns.MaxPayload || !utf8.Valid(body) || json.Unmarshal(body, &payload) != nil || payload["aps"] == nil {
			t.Errorf("the payload has %d bytes: %s", len(body), body)
		}
	})
}

// hostile are contents and ids that cost much to look at, of about size bytes.
var hostile = map[string]func(size int) *push.Notification{
	"many members": func(size int) *push.Notification {
		content := map[string]any{"msgtype": "m.text", "body": "hello"}
		for i := range size / 10 {
			content[fmt.Sprint(i)] = "x"
		}
		return &push.Notification{Content: content}
	},
	"deep nesting": func(size int) *push.Notification {
		content := map[string]any{"msgtype": "m.text", "body": "hello"}
		for i := range size / 124 {
			var list any = []any{}
			for range 60 {
				list = []any{list}
			}
			content[fmt.Sprint(i)] = list
		}
		return &push.Notification{Content: content}
	},
	"huge strings": func(size int) *push.Notification {
		text := strings.Repeat("\"", size/3)
		return &push.Notification{
			Content: map[string]any{"msgtype": "m.text", "body": text}, SenderDisplayName: push.NewText(text), RoomName: push.NewText(text),
		}
	},
	"huge ids": func(size int) *push.Notification {
		list := make([]any, size/8)
		for i := range list {
			list[i] = "x"
		}
		return &push.Notification{EventID: push.NewMember(list), RoomID: push.NewText(strings.Repeat("x", size/2))}
	},
	"many marks": func(size int) *push.Notification {
		text := "Z" + strings.Repeat("\u0351", size/6)
		return &push.Notification{
			Content: map[string]any{"msgtype": "m.text", "body": text}, SenderDisplayName: push.NewText(text), RoomName: push.NewText(text),
		}
	},
}

// BenchmarkHostileNotifications prints the CPU time that a notification for 100
// devices takes, as a multiple of what it takes for one device and 99 ordinary
// pushes of as many bytes take. It stays below 2: nothing looks into the
// notification for each device.
//
// Conformance (APNs): a notification for 100 devices, whatever is in it | costs at most twice as much as for one and 99 ordinary pushes of that size
func BenchmarkHostileNotifications(b *testing.B) {
	app := start(b, pushtest.APNsOptions{Discard: true}, func(c *apns.Config) { c.Collapse = apns.CollapseRoom })
	cost := func(n *push.Notification, devices int) time.Duration {
		const rounds = 20
		before := cpu(b)
		for range rounds {
			common := new(push.Common)
			for range devices {
				d := delivery(n)
				d.Common = common
				if got := app.Send(b.Context(), d); got.Kind != push.Accepted {
					b.Fatalf("got %+v, want accepted", got)
				}
			}
		}
		return (cpu(b) - before) / rounds
	}
	cost(message("@a:x", "Room", "hello"), 100) // to connect
	for _, kind := range slices.Sorted(maps.Keys(hostile)) {
		for _, size := range []int{1 << 10, 32 << 10, 512 << 10} {
			b.Run(fmt.Sprintf("%s/%d KiB", kind, size>>10), func(b *testing.B) {
				n := hostile[kind](size)
				n.Type = push.NewText("m.room.message")
				p, err := newPayload(n, device(), apns.PayloadOptions{})
				if err != nil {
					b.Fatal(err)
				}
				ordinary := message("@a:x", "Room", strings.Repeat("x", max(len(p.JSON)-150, 0)))
				var ratio float64
				for b.Loop() {
					ratio = float64(cost(n, 100)) / float64(cost(n, 1)+cost(ordinary, 99))
				}
				b.ReportMetric(ratio, "ratio")
			})
		}
	}
}

// cpu is the CPU time that the process has taken.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
