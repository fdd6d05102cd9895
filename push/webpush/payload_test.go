package webpush_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/pushtest"
	"github.com/matrix-herald/herald/push/webpush"
)

func number(n int64) *int64 { return &n }

// The golden payloads are what Sygnal sends for the same.
//
// Conformance (Web Push): the payload, `events_only`, `only_last_per_room`, event_id_only, counts alone | as Sygnal's; without event and counts unread is 0
// Conformance (Web Push): counts alone for Safari (≠ Sygnal: sent) | nothing to send
// Conformance (Web Push): Topic (≠ Sygnal: outside of the alphabet), Urgency | 32 characters; high, normal and low
func TestPayloadsAreThoseOfSygnal(t *testing.T) {
	t.Parallel()
	session := map[string]any{"session_id": "s"}
	for name, tc := range map[string]struct {
		change func(*push.Notification, *push.Device)
		want   string // "" sends nothing
		urgent string
		topic  string
	}{
		"an event": {nil, `{"session_id":"s","room_id":"!r:x","room_name":"R","event_id":"$e:x","sender":"@a:x","type":"m.room.message",` +
			`"unread":2,"content":{"msgtype":"m.text","body":"hallo"}}`, "high", ""},
		"event_id_only": {func(n *push.Notification, _ *push.Device) {
			*n = push.Notification{EventID: n.EventID, RoomID: n.RoomID, Counts: n.Counts}
		}, `{"session_id":"s","room_id":"!r:x","event_id":"$e:x","unread":2}`, "high", ""},
		"counts of Synapse alone": {func(n *push.Notification, _ *push.Device) {
			*n = push.Notification{Sender: push.NewText(""), Counts: n.Counts}
		}, `{"session_id":"s","unread":2}`, "low", "any"},
		"neither an event nor counts": {func(n *push.Notification, _ *push.Device) { *n = push.Notification{} },
			`{"session_id":"s","unread":0}`, "low", "any"},
		"counts alone for Safari, which must show something": {func(n *push.Notification, d *push.Device) {
			*n, d.Data["endpoint"] = push.Notification{Counts: n.Counts}, "https://web.push.apple.com/Q"
		}, "", "", ""},
		"counts alone with events_only": {func(n *push.Notification, d *push.Device) {
			*n, d.Data["events_only"] = push.Notification{Counts: n.Counts}, true
		}, "", "", ""},
		"counts alone for who counts by himself": {func(n *push.Notification, d *push.Device) {
			*n, d.Data["disable_badge_count"] = push.Notification{Counts: n.Counts}, true
		}, "", "", ""},
		"what default_payload says too": {func(n *push.Notification, d *push.Device) {
			d.Data["default_payload"] = map[string]any{"type": "mine", "room_alias": "#mine:x", "x": json.Number("1")}
			*n = push.Notification{EventID: n.EventID, RoomID: n.RoomID, Type: n.Type, Membership: push.NewText("join"), UserIsTarget: true,
				SenderDisplayName: push.NewText("A"), Low: true, Counts: push.Counts{Unread: number(0), MissedCalls: number(1)}}
		}, `{"type":"m.room.message","room_alias":"#mine:x","x":1,"room_id":"!r:x","event_id":"$e:x","membership":"join","user_is_target":true,` +
			`"sender_display_name":"A","unread":0,"missed_calls":1}`, "low", ""},
		"a long body, HTML and ciphertext": {func(n *push.Notification, _ *push.Device) {
			n.Content = map[string]any{"body": strings.Repeat("ü", 1001), "formatted_body": "<b>", "ciphertext": strings.Repeat("c", 2001), "x": "<&>"}
		}, `{"session_id":"s","room_id":"!r:x","room_name":"R","event_id":"$e:x","sender":"@a:x","type":"m.room.message","unread":2,` +
			`"content":{"body":"` + strings.Repeat("ü", 999) + `…","x":"<&>"}}`, "high", ""},
		"an encrypted notification": {func(n *push.Notification, d *push.Device) {
			d.Data["events_only"] = true
			*n = push.Notification{Further: map[string]any{"ciphertext": "c", "mac": "m", "ephemeral": nil}}
		}, `{"session_id":"s","ciphertext":"c","mac":"m"}`, "high", ""},
		"more to pass on than there is room for": {func(n *push.Notification, _ *push.Device) {
			*n = push.Notification{EventID: n.EventID, Further: map[string]any{"ciphertext": strings.Repeat("c", 4000)}}
		}, `{"session_id":"s","event_id":"$e:x"}`, "high", ""},
		"one for each room": {func(n *push.Notification, d *push.Device) {
			d.Data["only_last_per_room"] = true
			*n = push.Notification{EventID: n.EventID, RoomID: n.RoomID}
		}, `{"session_id":"s","room_id":"!r:x","event_id":"$e:x"}`, "high", "Vjv6LBXUmaccH8pC0-SfHhpI9AwqSwWF"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := pushtest.StartWebPush(t, nil)
			d := message(browser(fake, mozilla))
			d.Device.Data["default_payload"] = session
			if tc.change != nil {
				tc.change(d.Notification, d.Device)
			}
			out := open(t, fake, nil).Send(t.Context(), d)
			if tc.want == "" {
				expect(t, out, push.Accepted, push.ReasonNothingToSend)
				return
			}
			expect(t, out, push.Accepted, push.ReasonSent)
			var want map[string]any
			if err := json.Unmarshal([]byte(tc.want), &want); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, last(t, fake)); diff != "" {
				t.Errorf("payload (-want +got):\n%s", diff)
			}
			header := fake.Requests()[0].Header
			if got := header.Get("Urgency"); got != tc.urgent {
				t.Errorf("urgency %s, want %s", got, tc.urgent)
			}
			if got := header.Get("Topic"); got != tc.topic && (tc.topic != "any" || len(got) != 32) {
				t.Errorf("topic %q, want %q", got, tc.topic)
			}
		})
	}
}

// Conformance (Web Push): a call | urgent, gone when it has rung, and it replaces nothing
func TestACallIsUrgentAndEndsWhenItHasRung(t *testing.T) {
	t.Parallel()
	fake := pushtest.StartWebPush(t, nil)
	d := message(browser(fake, mozilla))
	d.Notification.Type, d.Notification.Low = push.NewText("m.call.invite"), true
	d.Notification.Content = map[string]any{"lifetime": json.Number("90000")}
	d.Device.Data["only_last_per_room"] = true
	expect(t, open(t, fake, nil).Send(t.Context(), d), push.Accepted, push.ReasonSent)
	header := fake.Requests()[0].Header
	if header.Get("Ttl") != "90" || header.Get("Urgency") != "high" || header.Get("Topic") != "" {
		t.Errorf("the header is %v", header)
	}
}

// Conformance (Web Push): somebody hangs up or declines | not urgent, shows nothing and replaces nothing; Safari, which has to show something, gets none
func TestAHangUpShowsNothing(t *testing.T) {
	t.Parallel()
	fake := pushtest.StartWebPush(t, nil)
	declarative := func(c *webpush.Config) {
		c.Payload, c.Navigate = webpush.PayloadDeclarative, "https://app.example.org/#/{room_id}"
	}
	for _, provider := range []*webpush.Provider{open(t, fake, nil), open(t, fake, declarative), openUnified(t, fake, webpush.Options{}, nil)} {
		for _, kind := range []string{"m.call.hangup", "org.matrix.msc4310.rtc.decline"} {
			device := browser(fake, mozilla)
			device.Data["only_last_per_room"] = true
			if provider.Destination(device) == "" { // UnifiedPush
				device.PushKey = mozilla
				delete(device.Data, "auth")
			}
			d := message(device)
			d.Notification.Type = push.NewText(kind)
			expect(t, provider.Send(t.Context(), d), push.Accepted, push.ReasonSent)
			got := last(t, fake)
			if inner, ok := got["notification"].(map[string]any); ok && inner["title"] == nil {
				got = inner
			}
			if got["type"] != kind || got["web_push"] != nil {
				t.Errorf("arrived: %v", got)
			}
			all := fake.Requests()
			if header := all[len(all)-1].Header; header.Get("Urgency") != "low" || header.Get("Topic") != "" {
				t.Errorf("%s: the header is %v", kind, header)
			}
			if device.PushKey != mozilla {
				device.Data["endpoint"] = "https://web.push.apple.com/Q"
				expect(t, provider.Send(t.Context(), d), push.Accepted, push.ReasonNothingToSend)
			}
		}
	}
}

// Conformance (Web Push): declarative Web Push | with title, body, tag, page, badge, and Sygnal's members as data
func TestADeclarativePayloadShowsItself(t *testing.T) {
	t.Parallel()
	fake := pushtest.StartWebPush(t, nil)
	provider := open(t, fake, func(c *webpush.Config) {
		c.Payload, c.Navigate, c.Title = webpush.PayloadDeclarative, "https://app.example.org/#/{room_id}/{event_id}", "Chat"
	})
	d := message(browser(fake, "https://web.push.apple.com/Q"))
	expect(t, provider.Send(t.Context(), d), push.Accepted, push.ReasonSent)
	got := last(t, fake)
	notification, _ := got["notification"].(map[string]any)
	data, _ := notification["data"].(map[string]any)
	if tag, _ := notification["tag"].(string); len(tag) != 32 {
		t.Errorf("the tag is %q", tag)
	}
	if data["event_id"] != "$e:x" || data["unread"] != 2.0 {
		t.Errorf("the data is %v", data)
	}
	delete(notification, "tag")
	delete(notification, "data")
	want := map[string]any{"web_push": 8030.0, "app_badge": 2.0, "notification": map[string]any{
		"title": "R", "body": "@a:x: hallo", "navigate": "https://app.example.org/#/%21r%3Ax/%24e%3Ax", "app_badge": 2.0,
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("payload (-want +got):\n%s", diff)
	}
	d = message(browser(fake, mozilla))
	*d.Notification = push.Notification{EventID: push.NewText("$e:x"), RoomID: push.NewText("!r:x")}
	expect(t, provider.Send(t.Context(), d), push.Accepted, push.ReasonSent)
	if title := last(t, fake)["notification"].(map[string]any)["title"]; title != "Chat" {
		t.Errorf("without names the title is %v", title)
	}
}

// Whatever a member of the room writes, the message fits and names the event, and
// the pusher lives.
//
// Conformance (Web Push): whatever a member of the room writes (≠ Sygnal: 413) | fits, and keeps the event's id
// Conformance (UnifiedPush): more than fits | the content goes, the event's id stays
func TestEveryEventFitsAndKeepsItsIDs(t *testing.T) {
	t.Parallel()
	fake := pushtest.StartWebPush(t, nil)
	web := open(t, fake, nil)
	unified := openUnified(t, fake, webpush.Options{}, nil)
	long := strings.Repeat("<\u2028\x01\U0001F468", 4000)
	for name, change := range map[string]func(*push.Notification){
		"a body that is cut": func(n *push.Notification) {
			n.Content = map[string]any{"msgtype": "m.text", "body": strings.Repeat("\U0001F468", 1000)}
		},
		"a long body": func(n *push.Notification) { n.Content = map[string]any{"msgtype": "m.text", "body": long} },
		"long names": func(n *push.Notification) {
			n.RoomName, n.SenderDisplayName, n.RoomAlias, n.Sender = push.NewText(long), push.NewText(long), push.NewText(long), push.NewText(long)
		},
		"much content": func(n *push.Notification) { n.Content = map[string]any{"x": long, "body": long, "msgtype": long} },
		"long ids": func(n *push.Notification) {
			n.EventID, n.RoomID = push.NewText("$"+strings.Repeat("\x01", 254)), push.NewText("!"+strings.Repeat("\x01", 254))
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := message(browser(fake, mozilla))
			d.Device.Data["default_payload"] = map[string]any{"x": strings.Repeat("x", 400)}
			change(d.Notification)
			expect(t, web.Send(t.Context(), d), push.Accepted, push.ReasonSent)
			if got := last(t, fake); got["event_id"] != d.Notification.EventID.String() || got["x"] == nil {
				t.Errorf("the browser gets %v", got)
			}
			if all := fake.Requests(); len(all[len(all)-1].Body) > 2744 { // what Mozilla passes on to Android
				t.Errorf("the body has %d bytes", len(all[len(all)-1].Body))
			}
			d.Device = &push.Device{AppID: "app", PushKey: mozilla}
			expect(t, unified.Send(t.Context(), d), push.Accepted, push.ReasonSent)
			if got := last(t, fake)["notification"].(map[string]any); got["event_id"] != d.Notification.EventID.String() || got["counts"] == nil {
				t.Errorf("the phone gets %v", got)
			}
		})
	}
}
