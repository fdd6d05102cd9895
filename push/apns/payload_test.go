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
		NoBadgeCounts bool `json:"no_badge_counts,omitempty"`
		Tweaks        bool `json:"tweaks,omitempty"`
	} `json:"options,omitzero"`
	Notification json.RawMessage `json:"notification"`
	Want         json.RawMessage `json:"want"` // null when nothing is sent
	Error        string          `json:"error,omitempty"`
}

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
	got, err := apns.NewPayload(n, d, apns.PayloadOptions{BadgeCounts: !c.Options.NoBadgeCounts, Tweaks: c.Options.Tweaks})
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

func kindOf(err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, apns.ErrMalformedData):
		return "malformed data"
	case errors.Is(err, apns.ErrTooLarge):
		return "too large"
	}
	return err.Error()
}

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
		"content-available as a boolean": {
			`{"event_id":"$e","devices":[{"data":{"default_payload":{"aps":{"content-available":true}}}}]}`, true, false},
		"an event id without aps": {`{"event_id":"$e","devices":[{}]}`, false, false},
	} {
		n, d := parse(t, []byte(test.notification))
		got, err := apns.NewPayload(n, d, apns.PayloadOptions{BadgeCounts: true})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got.Background != test.background || got.BadgeOnly != test.badgeAlone {
			t.Errorf("%s: background %t, badge alone %t", name, got.Background, got.BadgeOnly)
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
			Counts: push.Counts{Unread: wire.Counts.Unread, MissedCalls: wire.Counts.MissedCalls},
		}, &push.Device{
			AppID: w.AppID, PushKey: w.PushKey, PushKeyTS: w.PushKeyTS, Data: w.Data, Tweaks: w.Tweaks,
		}
}
