package apns_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/apns"
)

var update = flag.Bool("update", false, "rewrite what the golden files want")

// goldenCase is one notification as a homeserver posts it and the payload that
// becomes of it.
type goldenCase struct {
	Name    string `json:"name"`
	Options struct {
		NoBadgeCounts bool   `json:"no_badge_counts,omitempty"`
		NoBadgeAlone  bool   `json:"no_badge_alone,omitempty"`
		Tweaks        bool   `json:"tweaks,omitempty"`
		DefaultSound  string `json:"default_sound,omitempty"`
	} `json:"options,omitzero"`
	Notification json.RawMessage `json:"notification"`
	Want         json.RawMessage `json:"want"` // null when nothing is sent
	Error        string          `json:"error,omitempty"`
}

// Conformance (APNs): payloads equal to Sygnal's as JSON: all events, names, counts, default_payload, event_id_only (also TestHomeserversNotificationsArrive)
// Conformance (APNs): ids that are objects, lists, or longer than 255 bytes (≠ Sygnal: sent) | absent
// Conformance (APNs): a body that is a number or a boolean (≠ Sygnal: sent as it is) | its text, as Apple has arguments
// Conformance (APNs): no event and no counts (≠ Sygnal: nothing) | badge 0
// Conformance (APNs): `disable_badge_count` in the pusher's data; `badge: with_events` | no counts; none without an event
// Conformance (APNs): `default_sound`: an alert of the default_payload without a sound, in event_id_only | has that sound
// Conformance (APNs): `aps.alert` that is a string in the full format (≠ Sygnal: 500) | becomes its body
// Conformance (APNs): members that `pass_on` names, with an event or without (MSC3013) | beside `aps`, none of them if they leave no room; FCM's data, Web Push and UnifiedPush have them too (also TestMessagesAreWhatAppsExpect, TestPayloadsAreThoseOfSygnal, TestAcceptedNotifications)
func TestPayloadGoldens(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.golden.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("golden files: %v, %v", files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".golden.json"), func(t *testing.T) {
			t.Parallel()
			var cases []goldenCase
			decode(t, readFile(t, file), &cases)
			for i := range cases {
				t.Run(cases[i].Name, func(t *testing.T) { checkGolden(t, &cases[i]) })
			}
			if *update {
				writeGolden(t, file, cases)
			}
		})
	}
}

func checkGolden(t *testing.T, c *goldenCase) {
	n, d := parse(t, c.Notification)
	again, againDevice := parse(t, c.Notification)
	o := c.Options
	got, err := newPayload(n, d, apns.PayloadOptions{
		BadgeCounts: !o.NoBadgeCounts, BadgeAlone: !o.NoBadgeAlone, Tweaks: o.Tweaks, DefaultSound: o.DefaultSound,
	})
	if *update {
		c.Want, c.Error = got.JSON, kindOf(err)
		return
	}
	if kindOf(err) != c.Error {
		t.Fatalf("the error is %v, want %q", err, c.Error)
	}
	var gotValue, wantValue any
	if got.JSON != nil {
		decode(t, got.JSON, &gotValue)
	}
	decode(t, c.Want, &wantValue)
	if diff := cmp.Diff(wantValue, gotValue); diff != "" {
		t.Errorf("payload (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(againDevice, d) + cmp.Diff(again, n, cmp.AllowUnexported(push.Member{})); diff != "" {
		t.Errorf("the input was changed:\n%s", diff)
	}
}

var errMalformed = errors.New("malformed data")

// newPayload makes the payload of n for d at a time that does not matter.
func newPayload(n *push.Notification, d *push.Device, o apns.PayloadOptions) (apns.Payload, error) {
	p, out := apns.NewPayload(push.Delivery{Notification: n, Device: d}, o, time.Unix(1_800_000_000, 0))
	if out.Reason == push.ReasonMalformedData {
		return p, errMalformed
	}
	return p, nil
}

func kindOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// Conformance (APNs): `content-available` written as 1.0 | is 1
func TestPayloadSaysWhatItsHeadersDependOn(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		notification           string
		background, badgeAlone bool
	}{
		"a message": {`{"event_id":"$e","type":"m.room.message","counts":{"unread":1},"devices":[{}]}`, false, false},
		"a badge":   {`{"counts":{"unread":1},"devices":[{}]}`, false, true},
		"an event id for an app that fetches the event in the background": {
			`{"event_id":"$e","devices":[{"data":{"default_payload":{"aps":{"content-available":1}}}}]}`, true, false},
		"an event id for an app that shows an alert and fetches": {
			`{"event_id":"$e","devices":[{"data":{"default_payload":{"aps":{"content-available":1,"alert":"x"}}}}]}`, false, false},
		"an event id for an app that makes a sound and fetches": {
			`{"event_id":"$e","devices":[{"data":{"default_payload":{"aps":{"content-available":1,"sound":"x"}}}}]}`, false, false},
		"a join with a badge for an app that fetches": {
			`{"event_id":"$e","type":"m.room.member","counts":{"unread":1},"devices":[{"data":{"default_payload":{"aps":{"content-available":1}}}}]}`, false, true},
		"content-available switched off": {
			`{"event_id":"$e","devices":[{"data":{"default_payload":{"aps":{"content-available":0}}}}]}`, false, false},
		"content-available written as a fraction": {
			`{"event_id":"$e","devices":[{"data":{"default_payload":{"aps":{"content-available":1.0}}}}]}`, true, false},
		"content-available written with an exponent": {
			`{"event_id":"$e","devices":[{"data":{"default_payload":{"aps":{"content-available":10e-1}}}}]}`, true, false},
		"content-available as a boolean": {
			`{"event_id":"$e","devices":[{"data":{"default_payload":{"aps":{"content-available":true}}}}]}`, true, false},
		"an event id without aps": {`{"event_id":"$e","devices":[{}]}`, false, false},
	} {
		n, d := parse(t, []byte(test.notification))
		got, err := newPayload(n, d, apns.PayloadOptions{BadgeCounts: true, BadgeAlone: true})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got.Background != test.background || got.BadgeOnly != test.badgeAlone {
			t.Errorf("%s: background %t, badge alone %t", name, got.Background, got.BadgeOnly)
		}
	}
}

// A phone whose app is sent a VoIP push and shows no call kills the app, and in
// the end delivers no more of them.
//
// Conformance (APNs): VoIP topics (≠ Sygnal: everything) | calls that ring, until they have rung, and event_id_only; `import-sygnal` warns (also TestACallIsUrgentAndEndsWhenItHasRung)
func TestVoIPTopicsCarryCallsThatRing(t *testing.T) {
	t.Parallel()
	now := time.UnixMilli(1_800_000_000_000)
	for name, test := range map[string]struct {
		notification string
		rings        time.Duration // 0 is not sent, -1 is sent with no end
	}{
		"a call":                                 {`"type":"m.call.invite","content":{"lifetime":30000}`, 30 * time.Second},
		"a call that says nothing of its length": {`"type":"m.call.invite","content":{}`, time.Minute},
		"a call of which nothing is known":       {`"type":"m.call.invite"`, time.Minute},
		"a call that would ring for hours":       {`"type":"m.call.invite","content":{"lifetime":1e8}`, 2 * time.Minute},
		"a call of a length beyond all":          {`"type":"m.call.invite","content":{"lifetime":1e999}`, time.Minute},
		"a call of odd length":                   {`"type":"m.call.invite","content":{"lifetime":"30000"}`, time.Minute},
		"a call that is over":                    {`"type":"m.call.invite","content":{"lifetime":0}`, 0},
		"a call that ends before it begins":      {`"type":"m.call.invite","content":{"lifetime":-5}`, 0},
		"a call of MatrixRTC that rings":         {`"type":"m.rtc.notification","content":{"application":{"notification_type":"ring","lifetime":30000}}`, 30 * time.Second},
		"one that was sent a while ago":          {`"type":"m.rtc.notification","content":{"notification_type":"ring","lifetime":30000,"sender_ts":1799999990000}`, 20 * time.Second},
		"one by a clock that is wrong":           {`"type":"m.rtc.notification","content":{"notification_type":"ring","lifetime":30000,"sender_ts":1799999900000}`, 30 * time.Second},
		"one from the near future":               {`"type":"m.rtc.notification","content":{"notification_type":"ring","lifetime":30000,"sender_ts":1800000010000}`, 30 * time.Second},
		"one by its former name":                 {`"type":"org.matrix.msc4075.rtc.notification","content":{"notification_type":"ring"}`, time.Minute},
		"one by an older name":                   {`"type":"org.matrix.msc4075.call.notify","content":{"application":{"type":"m.call"},"notify_type":"ring"}`, time.Minute},
		"a call of MatrixRTC that does not ring": {`"type":"m.rtc.notification","content":{"application":{"notification_type":"notification"}}`, 0},
		"a call of MatrixRTC without a word":     {`"type":"m.rtc.notification","content":[]`, 0},
		"an event of which only the id is known": {``, -1},
		"the end of a call":                      {`"type":"m.call.hangup","content":{"lifetime":30000}`, 0},
		"a message":                              {`"type":"m.room.message","content":{"msgtype":"m.text","body":"hi"},"counts":{"unread":1}`, 0},
		"an encrypted event, whatever is in it":  {`"type":"m.room.encrypted"`, 0},
		"an invitation":                          {`"type":"m.room.member","membership":"invite","user_is_target":true`, 0},
		"counts alone":                           {`"event_id":null,"counts":{"unread":1}`, 0},
		"nothing":                                {`"event_id":null`, 0},
	} {
		text := `{"event_id":"$e","devices":[{}]` + strings.TrimSuffix(","+test.notification, ",") + `}`
		n, d := parse(t, []byte(text))
		common := new(push.Common)
		got, out := apns.NewPayload(push.Delivery{Notification: n, Device: d, Common: common}, apns.PayloadOptions{VoIP: true, BadgeCounts: true, BadgeAlone: true}, now)
		if out.Kind != push.Accepted || (got.JSON != nil) != (test.rings != 0) {
			t.Errorf("%s: %s, %v", name, got.JSON, out)
		}
		if until := got.Call.RingsUntil; test.rings > 0 && until.Sub(now) != test.rings || test.rings < 0 && !until.IsZero() {
			t.Errorf("%s: rings until %v, want for %v", name, until, test.rings)
		}
		// Another attempt does not make it ring longer.
		got, out = apns.NewPayload(push.Delivery{Notification: n, Device: d, Common: common}, apns.PayloadOptions{VoIP: true}, now.Add(max(test.rings, 0)))
		if sent := got.JSON != nil; out.Kind != push.Accepted || sent != (test.rings < 0) {
			t.Errorf("%s: when it is over, %s, %v", name, got.JSON, out)
		}
	}
}

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func decode(t testing.TB, data []byte, dst any) {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	if err := decoder.Decode(dst); err != nil {
		t.Fatalf("%v in %.200s", err, data)
	}
}

func writeGolden(t *testing.T, file string, cases []goldenCase) {
	t.Helper()
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "\t")
	if err := encoder.Encode(cases); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// parse reads a "notification" object with one device, as push/httpapi does.
func parse(t testing.TB, data []byte) (*push.Notification, *push.Device) {
	t.Helper()
	var wire struct {
		EventID           any    `json:"event_id"`
		Type              any    `json:"type"`
		RoomID            any    `json:"room_id"`
		RoomName          any    `json:"room_name"`
		RoomAlias         any    `json:"room_alias"`
		Sender            any    `json:"sender"`
		SenderDisplayName any    `json:"sender_display_name"`
		Membership        any    `json:"membership"`
		UserIsTarget      bool   `json:"user_is_target"`
		Prio              string `json:"prio"`
		Content           any    `json:"content"`
		Counts            struct {
			Unread      *int64 `json:"unread"`
			MissedCalls *int64 `json:"missed_calls"`
		} `json:"counts"`
		Further map[string]any `json:"further"` // what the app passes on, of what stands beside the other members
		Devices []struct {
			AppID     string         `json:"app_id"`
			PushKey   string         `json:"pushkey"`
			PushKeyTS int64          `json:"pushkey_ts"`
			Data      map[string]any `json:"data"`
			Tweaks    push.Tweaks    `json:"tweaks"`
		} `json:"devices"`
	}
	decode(t, data, &wire)
	w := wire.Devices[0]
	m := push.NewMember
	return &push.Notification{
			EventID: m(wire.EventID), Type: m(wire.Type), RoomID: m(wire.RoomID), RoomName: m(wire.RoomName),
			RoomAlias: m(wire.RoomAlias), Sender: m(wire.Sender), SenderDisplayName: m(wire.SenderDisplayName),
			Membership: m(wire.Membership), UserIsTarget: wire.UserIsTarget, Low: wire.Prio == "low", Content: wire.Content,
			Counts: push.Counts{Unread: wire.Counts.Unread, MissedCalls: wire.Counts.MissedCalls}, Further: wire.Further,
		}, &push.Device{
			AppID: w.AppID, PushKey: w.PushKey, PushKeyTS: w.PushKeyTS, Data: w.Data, Tweaks: w.Tweaks,
		}
}
