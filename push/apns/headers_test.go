package apns_test

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/apns"
	"github.com/matrix-herald/herald/push/pushtest"
)

// background is an app that fetches events without showing anything.
var background = map[string]any{"default_payload": map[string]any{"aps": map[string]any{"content-available": json.Number("1")}}}

// Conformance (APNs): badge alone (≠ Sygnal: no push type) | alert, priority 5
// Conformance (APNs): the push types `controls` and `widgets` | as `push_type` says
// Conformance (APNs): push type, topic, priority, expiration (also 0), collapse id (also TestExpiration, TestCollapse)
func TestHeaders(t *testing.T) {
	t.Parallel()
	unread := int64(1)
	msg := message("@a:x", "", "hi")
	low := message("@a:x", "", "hi")
	low.Low = true
	badge := &push.Notification{Counts: push.Counts{Unread: &unread}}
	eventOnly := &push.Notification{EventID: push.NewMember("$e:x"), RoomID: push.NewMember("!r:x")}
	for name, test := range map[string]struct {
		change         func(*apns.Config)
		n              *push.Notification
		data           map[string]any
		kind, priority string
	}{
		"a message":                     {n: msg, kind: "alert", priority: "10"},
		"a message of low priority":     {n: low, kind: "alert", priority: "5"},
		"a badge":                       {n: badge, kind: "alert", priority: "5"},
		"a background push":             {n: eventOnly, data: background, kind: "background", priority: "5"},
		"an event id without a payload": {n: eventOnly, kind: "alert", priority: "10"},
		"a VoIP topic":                  {change: func(c *apns.Config) { c.Topic += ".voip" }, n: eventOnly, kind: "voip", priority: "10"},
		"a background push to a VoIP topic": {
			change: func(c *apns.Config) { c.Topic += ".voip" }, n: eventOnly, data: background, kind: "voip", priority: "10"},
		"a push type by configuration": {change: func(c *apns.Config) { c.PushType = "complication" }, n: msg, kind: "complication", priority: "10"},
		"controls by configuration":    {change: func(c *apns.Config) { c.PushType = "controls" }, n: msg, kind: "controls", priority: "10"},
		"widgets by configuration":     {change: func(c *apns.Config) { c.PushType = "widgets" }, n: msg, kind: "widgets", priority: "10"},
		"background by configuration":  {change: func(c *apns.Config) { c.PushType = "background" }, n: msg, kind: "background", priority: "5"},
		"alert by configuration of a background push": {
			change: func(c *apns.Config) { c.PushType = "alert" }, n: eventOnly, data: background, kind: "alert", priority: "5"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := start(t, pushtest.APNsOptions{}, test.change)
			d := delivery(test.n)
			d.Device.Data = test.data
			got := send(t, a, d)
			want := map[string]string{
				"Apns-Push-Type": test.kind, "Apns-Priority": test.priority, "Apns-Id": id, "Apns-Expiration": "", "Apns-Collapse-Id": "",
				"Content-Type": "application/json; charset=utf-8",
			}
			for header, value := range want {
				if got.Header.Get(header) != value {
					t.Errorf("%s is %q, want %q", header, got.Header.Get(header), value)
				}
			}
			if got.Token != hexKey {
				t.Errorf("the device token is %q", got.Token)
			}
		})
	}
}

// send sends d, which must be taken, and returns the request.
func send(t *testing.T, a app, d push.Delivery) pushtest.APNsRequest {
	t.Helper()
	if out := a.Send(t.Context(), d); out.Kind != push.Accepted || out.Reason != push.ReasonSent {
		t.Fatalf("got %+v, want sent", out)
	}
	requests := a.fake.Requests()
	return requests[len(requests)-1]
}

func TestExpiration(t *testing.T) {
	t.Parallel()
	expire := func(d time.Duration) func(*apns.Config) {
		return func(c *apns.Config) { c.KeepFor = new(conf.Duration(d)) }
	}
	msg := message("@a:x", "", "hi")
	if got := send(t, start(t, pushtest.APNsOptions{}, expire(0)), delivery(msg)); got.Header.Get("apns-expiration") != "0" {
		t.Errorf("try once: apns-expiration is %q, want 0", got.Header.Get("apns-expiration"))
	}
	got := send(t, start(t, pushtest.APNsOptions{}, expire(time.Hour)), delivery(msg))
	at, err := strconv.ParseInt(got.Header.Get("apns-expiration"), 10, 64)
	if left := time.Until(time.Unix(at, 0)); err != nil || left < 50*time.Minute || left > time.Hour {
		t.Errorf("an hour: apns-expiration is %q, in %v", got.Header.Get("apns-expiration"), left)
	}
}

func TestCollapse(t *testing.T) {
	t.Parallel()
	collapseID := func(a app, room, event string, data map[string]any) string {
		n := message("@a:x", "", "hi")
		n.RoomID, n.EventID = push.NewMember(room), push.NewMember(event)
		d := delivery(n)
		d.Device.Data = data
		return send(t, a, d).Header.Get("apns-collapse-id")
	}
	other := map[string]any{"default_payload": map[string]any{"cs": "another account"}}
	for _, test := range []struct {
		setting                           string
		sameRoom, sameEvent, otherAccount bool // are collapsed
	}{
		{apns.CollapseRoom, true, false, false},
		{apns.CollapseEvent, false, true, false},
	} {
		a := start(t, pushtest.APNsOptions{}, func(c *apns.Config) { c.Collapse = test.setting })
		first := collapseID(a, "!a:x", "$1", nil)
		if first == "" || len(first) > 64 {
			t.Errorf("%s: the id is %q, want 1 to 64 bytes", test.setting, first)
		}
		got := []bool{collapseID(a, "!a:x", "$2", nil) == first, collapseID(a, "!b:x", "$1", nil) == first, collapseID(a, "!a:x", "$1", other) == first}
		if diff := cmp.Diff([]bool{test.sameRoom, test.sameEvent, test.otherAccount}, got); diff != "" {
			t.Errorf("%s: same room, same event, other account (-want +got):\n%s", test.setting, diff)
		}
		if again := collapseID(a, "!a:x", "$1", nil); again != first {
			t.Errorf("%s: %q becomes %q", test.setting, first, again)
		}
		unread := int64(1)
		if got := send(t, a, delivery(&push.Notification{Counts: push.Counts{Unread: &unread}})); got.Header.Get("apns-collapse-id") != "" {
			t.Errorf("%s: a badge has the id %q", test.setting, got.Header.Get("apns-collapse-id"))
		}
	}
}

func TestVoIPPushesMayBeLarger(t *testing.T) {
	t.Parallel()
	d := call()
	d.Device.Data = map[string]any{"default_payload": map[string]any{"aps": map[string]any{"alert": strings.Repeat("x", 9000)}}}
	got := send(t, start(t, pushtest.APNsOptions{}, func(c *apns.Config) { c.Topic += ".voip" }), d)
	if len(got.Body) != apns.MaxVoIPPayload {
		t.Errorf("the payload has %d bytes, want %d", len(got.Body), apns.MaxVoIPPayload)
	}
}

// call is of a call that rings for 90 seconds, and that the homeserver takes for
// unimportant.
func call() push.Delivery {
	return delivery(&push.Notification{
		EventID: push.NewText("$e:x"), RoomID: push.NewText("!r:x"), Type: push.NewText("m.call.invite"),
		Content: map[string]any{"lifetime": json.Number("90000")}, Low: true,
	})
}

// Conformance (APNs): a call that rings, on any topic (≠ Sygnal) | urgent, gone when it has rung, and it takes the place of nothing
func TestACallIsUrgentAndEndsWhenItHasRung(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change   func(*apns.Config)
		from, to time.Duration // 0 is to try once
	}{
		"an alert":                 {nil, time.Minute, 90 * time.Second},
		"a VoIP push":              {func(c *apns.Config) { c.Topic += ".voip"; c.KeepFor = new(conf.Duration(24 * time.Hour)) }, time.Minute, 90 * time.Second},
		"an app that expires soon": {func(c *apns.Config) { c.KeepFor = new(conf.Duration(10 * time.Second)) }, 0, 10 * time.Second},
		"an app that tries once":   {func(c *apns.Config) { c.KeepFor = new(conf.Duration(0)) }, 0, 0},
	} {
		got := send(t, start(t, pushtest.APNsOptions{}, func(c *apns.Config) {
			c.Collapse = apns.CollapseRoom
			if test.change != nil {
				test.change(c)
			}
		}), call()).Header
		at, err := strconv.ParseInt(got.Get("apns-expiration"), 10, 64)
		if left := time.Until(time.Unix(at, 0)); err != nil || at != 0 && (left < test.from || left > test.to) || (at == 0) != (test.to == 0) {
			t.Errorf("%s: apns-expiration is %q, in %v", name, got.Get("apns-expiration"), left)
		}
		if got.Get("apns-priority") != "10" || got.Get("apns-collapse-id") != "" {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestWhatIsSentIsThePayload(t *testing.T) {
	t.Parallel()
	a := start(t, pushtest.APNsOptions{}, func(c *apns.Config) { c.Badge, c.SoundAndHighlight = apns.BadgeOff, true })
	unread := int64(1)
	n := message("@a:x", "", "<&>\u2028")
	n.Counts.Unread = &unread
	d := delivery(n)
	d.Device.Tweaks.Sound = "bing"
	want, err := newPayload(n, d.Device, apns.PayloadOptions{Tweaks: true})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want.JSON), string(send(t, a, d).Body)); diff != "" {
		t.Errorf("body (-want +got):\n%s", diff)
	}
}
