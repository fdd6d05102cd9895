package httpapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/dedup"
	"github.com/matrix-herald/herald/push/health"
	"github.com/matrix-herald/herald/push/httpapi"
)

// phone is a push service in the test's own memory. It answers by pushkey and
// remembers what it got.
type phone struct {
	answers map[string]push.Outcome

	mu            sync.Mutex
	notifications []push.Notification
	devices       []push.Device
}

func (p *phone) Destination(*push.Device) string { return "phone" }

func (p *phone) Address(d *push.Device) string { return "phone " + d.PushKey }

func (p *phone) Send(_ context.Context, d push.Delivery) push.Outcome {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.notifications = append(p.notifications, *d.Notification)
	p.devices = append(p.devices, *d.Device)
	if out, ok := p.answers[d.Device.PushKey]; ok {
		return out
	}
	return push.Outcome{Reason: push.ReasonSent, Status: 200}
}

func newAPI(t testing.TB, p push.Provider, change func(*httpapi.Options)) http.Handler {
	t.Helper()
	apps, err := push.NewApps([]push.App{{Name: "app", ProviderName: "apns", Provider: p, MaxInFlight: 100, PassOn: []string{"mac", "ciphertext"}}})
	if err != nil {
		t.Fatal(err)
	}
	reg := prometheus.NewRegistry()
	opts := httpapi.Options{
		Registerer: reg, Log: slog.New(slog.DiscardHandler), Timeout: 25 * time.Second,
	}
	memory, err := dedup.NewMemory(dedup.Options{Events: dedup.MinEvents})
	if err != nil {
		t.Fatal(err)
	}
	opts.Gateway, err = push.NewGateway(apps, push.Options{
		Log: opts.Log, Metrics: push.NewMetrics(reg), UnknownApp: push.UnknownAppKeep,
		RetryWait: time.Millisecond, Dedup: memory, Health: health.New(health.Options{}),
	})
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&opts)
	}
	h, err := httpapi.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func post(t testing.TB, h http.Handler, body string) *http.Response {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/_matrix/push/v1/notify", strings.NewReader(body))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func errcode(t testing.TB, res *http.Response) string {
	t.Helper()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	var e struct{ Errcode, Error string }
	if err := json.Unmarshal(data, &e); err != nil {
		t.Fatalf("%q: %v", data, err)
	}
	if e.Errcode != "" && e.Error == "" {
		t.Errorf("%s without an error text", e.Errcode)
	}
	if got := res.Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type %q", got)
	}
	return e.Errcode
}

// device puts members into the one device of a notification.
func device(members string) string {
	return `{"notification":{"event_id":"$e","devices":[{"app_id":"app","pushkey":"k"` + members + `}]}}`
}

// notification puts members into a notification with one device.
func notification(members string) string {
	return `{"notification":{"devices":[{"app_id":"app","pushkey":"k"}]` + members + `}}`
}

// Conformance (requests): not JSON, empty, NaN, invalid UTF-8, text after the object | 400 `M_NOT_JSON` (also FuzzNotify, FuzzDecodeObject)
// Conformance (requests): JSON that is no object, no `notification`, `notification` that is no object (≠ Sygnal: 500 for some) | 400 `M_BAD_JSON`, `M_MISSING_PARAM`
// Conformance (requests): `devices` missing, null, no list, empty | 400
// Conformance (requests): a device that is no object (≠ Sygnal: 500 for some), app_id or pushkey missing or no string | 400
// Conformance (requests): more than 100 devices | 413 `M_TOO_LARGE`
// Conformance (requests): more than 512 KiB (≠ Sygnal: connection reset) | 413 `M_TOO_LARGE`; linear time (also BenchmarkHostileBodies)
// Conformance (requests): counts that are strings, fractions or booleans | 400 `M_BAD_JSON`
// Conformance (requests): member names in another case | unknown, as the specification has it (also TestAcceptedNotifications)
func TestRefusedRequests(t *testing.T) {
	t.Parallel()
	many := strings.Repeat(`{"app_id":"app","pushkey":"k"},`, 100)
	tests := map[string]struct {
		body    string
		status  int
		errcode string
	}{
		"an empty body":                    {``, 400, "M_NOT_JSON"},
		"no JSON":                          {`notification`, 400, "M_NOT_JSON"},
		"NaN":                              {notification(`,"counts":{"unread":NaN}`), 400, "M_NOT_JSON"},
		"invalid UTF-8":                    {notification(",\"room_name\":\"\xff\""), 400, "M_NOT_JSON"},
		"text after the object":            {notification(``) + `x`, 400, "M_NOT_JSON"},
		"a second object":                  {notification(``) + `{}`, 400, "M_NOT_JSON"},
		"a list":                           {`[]`, 400, "M_BAD_JSON"},
		"a string":                         {`"x"`, 400, "M_BAD_JSON"},
		"a string that names the member":   {`"notification"`, 400, "M_BAD_JSON"},
		"a number":                         {`5`, 400, "M_BAD_JSON"},
		"null":                             {`null`, 400, "M_BAD_JSON"},
		"an empty object":                  {`{}`, 400, "M_MISSING_PARAM"},
		"a notification in another case":   {strings.Replace(notification(``), "notification", "Notification", 1), 400, "M_MISSING_PARAM"},
		"a notification that is a string":  {`{"notification":"x"}`, 400, "M_BAD_JSON"},
		"a notification that is null":      {`{"notification":null}`, 400, "M_BAD_JSON"},
		"no devices member":                {`{"notification":{}}`, 400, "M_MISSING_PARAM"},
		"devices null":                     {`{"notification":{"devices":null}}`, 400, "M_BAD_JSON"},
		"devices an object":                {`{"notification":{"devices":{}}}`, 400, "M_BAD_JSON"},
		"no device":                        {`{"notification":{"devices":[]}}`, 400, "M_BAD_JSON"},
		"a device that is a string":        {`{"notification":{"devices":["x"]}}`, 400, "M_BAD_JSON"},
		"a device that is a number":        {`{"notification":{"devices":[1]}}`, 400, "M_BAD_JSON"},
		"a device that is null":            {`{"notification":{"devices":[null]}}`, 400, "M_BAD_JSON"},
		"no app_id":                        {`{"notification":{"devices":[{"pushkey":"k"}]}}`, 400, "M_MISSING_PARAM"},
		"an app_id that is a number":       {`{"notification":{"devices":[{"app_id":1,"pushkey":"k"}]}}`, 400, "M_BAD_JSON"},
		"no pushkey":                       {`{"notification":{"devices":[{"app_id":"app"}]}}`, 400, "M_MISSING_PARAM"},
		"a pushkey that is null":           {`{"notification":{"devices":[{"app_id":"app","pushkey":null}]}}`, 400, "M_BAD_JSON"},
		"a broken device after a good one": {`{"notification":{"devices":[{"app_id":"app","pushkey":"k"},{}]}}`, 400, "M_MISSING_PARAM"},
		"a count that is a string":         {notification(`,"counts":{"unread":"1"}`), 400, "M_BAD_JSON"},
		"a count that is a fraction":       {notification(`,"counts":{"missed_calls":1.5}`), 400, "M_BAD_JSON"},
		"a count that is true":             {notification(`,"counts":{"unread":true}`), 400, "M_BAD_JSON"},
		"a count beyond all numbers":       {notification(`,"counts":{"unread":1e999}`), 400, "M_BAD_JSON"},
		"a hundred and one devices":        {`{"notification":{"devices":[` + many + `{"app_id":"app","pushkey":"k"}]}}`, 413, "M_TOO_LARGE"},
		"more than 512 KiB":                {notification(`,"x":"` + strings.Repeat("x", 512<<10) + `"`), 413, "M_TOO_LARGE"},
		"brackets that do not close":       {notification(`,"content":` + strings.Repeat(`[`, 20000)), 400, "M_NOT_JSON"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := &phone{}
			res := post(t, newAPI(t, p, nil), tt.body)
			if code := errcode(t, res); res.StatusCode != tt.status || code != tt.errcode {
				t.Errorf("%d %s, want %d %s", res.StatusCode, code, tt.status, tt.errcode)
			}
			if len(p.devices) != 0 {
				t.Errorf("%d pushes", len(p.devices))
			}
		})
	}
}

// Conformance (requests): `pushkey_ts` in milliseconds | is taken for what it is
// Conformance (requests): `pushkey_ts` of another type (≠ Sygnal: 400) | ignored
// Conformance (requests): `data` or `tweaks` null or of another type (≠ Sygnal: 400) | absent
// Conformance (requests): `"sound": true` of Synapse (≠ Sygnal: 400, which blocks the pusher for a day) | the sound "default"
// Conformance (requests): `"highlight": null` of Dendrite | true
func TestAcceptedDevices(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		members string
		want    push.Device
	}{
		"pushkey_ts":                        {`,"pushkey_ts":1795294577`, push.Device{PushKeyTS: 1795294577}},
		"pushkey_ts in milliseconds":        {`,"pushkey_ts":1795294577123`, push.Device{PushKeyTS: 1795294577}},
		"pushkey_ts as a float":             {`,"pushkey_ts":1795294577.9`, push.Device{PushKeyTS: 1795294577}},
		"pushkey_ts as a string":            {`,"pushkey_ts":"1795294577"`, push.Device{}},
		"pushkey_ts null":                   {`,"pushkey_ts":null`, push.Device{}},
		"pushkey_ts true":                   {`,"pushkey_ts":true`, push.Device{}},
		"pushkey_ts beyond all time":        {`,"pushkey_ts":1e300`, push.Device{}},
		"data null":                         {`,"data":null`, push.Device{}},
		"data a list":                       {`,"data":[1]`, push.Device{}},
		"data":                              {`,"data":{"default_payload":{"n":1}}`, push.Device{Data: map[string]any{"default_payload": map[string]any{"n": json.Number("1")}}}},
		"tweaks null":                       {`,"tweaks":null`, push.Device{}},
		"tweaks a string":                   {`,"tweaks":"x"`, push.Device{}},
		"a sound":                           {`,"tweaks":{"sound":"bing"}`, push.Device{Tweaks: push.Tweaks{Sound: "bing"}}},
		"a sound without a value (Synapse)": {`,"tweaks":{"sound":true}`, push.Device{Tweaks: push.Tweaks{Sound: "default"}}},
		"a sound that is false":             {`,"tweaks":{"sound":false}`, push.Device{}},
		"a sound that is null":              {`,"tweaks":{"sound":null}`, push.Device{}},
		"a sound that is a number":          {`,"tweaks":{"sound":1}`, push.Device{}},
		"a highlight (Dendrite)":            {`,"tweaks":{"highlight":null,"sound":"default"}`, push.Device{Tweaks: push.Tweaks{Sound: "default", Highlight: true}}},
		"a highlight (Synapse)":             {`,"tweaks":{"highlight":true}`, push.Device{Tweaks: push.Tweaks{Highlight: true}}},
		"no highlight":                      {`,"tweaks":{"highlight":false}`, push.Device{}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := &phone{}
			if res := post(t, newAPI(t, p, nil), device(tt.members)); res.StatusCode != 200 {
				t.Fatalf("status %d, errcode %s", res.StatusCode, errcode(t, res))
			}
			tt.want.AppID, tt.want.PushKey = "app", "k"
			if diff := cmp.Diff([]push.Device{tt.want}, p.devices); diff != "" {
				t.Errorf("devices (-want +got):\n%s", diff)
			}
		})
	}
}

// Conformance (requests): counts null, `counts` null or no object, integral floats, negative counts (≠ Sygnal) | absent, absent, taken, 0
// Conformance (requests): other members of another type (≠ Sygnal: 500 for some) | ignored; a short scalar as `event_id` or `type` passes through
// Conformance (requests): duplicate members | the last one counts, also where a former one is of a wrong shape (also TestTheLastOfSeveralMembersCounts)
// Conformance (attacks): an event_id that is an object of 400 KiB, for a hundred devices | an id is a short scalar, or absent
func TestAcceptedNotifications(t *testing.T) {
	t.Parallel()
	m := push.NewMember
	n := func(i int64) *int64 { return &i }
	tests := map[string]struct {
		members string
		want    push.Notification
	}{
		"nothing at all":               {``, push.Notification{}},
		"counts":                       {`,"counts":{"unread":2,"missed_calls":1}`, push.Notification{Counts: push.Counts{Unread: n(2), MissedCalls: n(1)}}},
		"a count of zero is a count":   {`,"counts":{"unread":0}`, push.Notification{Counts: push.Counts{Unread: n(0)}}},
		"a negative count is zero":     {`,"counts":{"unread":-3}`, push.Notification{Counts: push.Counts{Unread: n(0)}}},
		"an integral float is a count": {`,"counts":{"unread":2.0,"missed_calls":1e1}`, push.Notification{Counts: push.Counts{Unread: n(2), MissedCalls: n(10)}}},
		"a count beyond any badge":     {`,"counts":{"unread":1e300}`, push.Notification{Counts: push.Counts{Unread: n(1<<31 - 1)}}},
		"a count that is null":         {`,"counts":{"unread":null,"missed_calls":1}`, push.Notification{Counts: push.Counts{MissedCalls: n(1)}}},
		"counts null":                  {`,"counts":null`, push.Notification{}},
		"counts a list":                {`,"counts":[]`, push.Notification{}},
		"strings": {
			`,"event_id":"$e","type":"m.room.member","room_id":"!r","room_name":"R","room_alias":"#a","sender":"@s","sender_display_name":"S","membership":"invite","user_is_target":true,"prio":"low"`,
			push.Notification{
				EventID: m("$e"), Type: m("m.room.member"), RoomID: m("!r"), RoomName: m("R"), RoomAlias: m("#a"), Sender: m("@s"),
				SenderDisplayName: m("S"), Membership: m("invite"), UserIsTarget: true, Low: true,
			},
		},
		"an empty string is there":                 {`,"sender_display_name":""`, push.Notification{SenderDisplayName: m("")}},
		"an unknown prio is high":                  {`,"prio":"weird"`, push.Notification{}},
		"prio in another case is unknown":          {`,"prio":"LOW"`, push.Notification{}},
		"wrong types of strings are ignored":       {`,"room_id":1,"room_name":{},"room_alias":[],"sender":true,"sender_display_name":0,"membership":null`, push.Notification{}},
		"a short event_id and type of any type":    {`,"event_id":1,"type":true`, push.Notification{EventID: m(json.Number("1")), Type: m(true)}},
		"ids that are lists or objects are absent": {`,"event_id":{"a":1},"type":[1]`, push.Notification{}},
		"ids that are too long are absent": {`,"event_id":"$` + strings.Repeat("e", 255) + `","room_id":"!` + strings.Repeat("r", 255) + `","type":` + strings.Repeat("1", 256),
			push.Notification{}},
		"content of any type is kept":               {`,"content":"x"`, push.Notification{Content: "x"}},
		"content with numbers as they were written": {`,"content":{"body":1.50}`, push.Notification{Content: map[string]any{"body": json.Number("1.50")}}},
		"a member twice: the last one counts":       {`,"event_id":"a","event_id":"b"`, push.Notification{EventID: m("b")}},
		"member names in another case are unknown":  {`,"Event_id":"a"`, push.Notification{}},
		"nulls everywhere": {
			`,"event_id":null,"type":null,"room_id":null,"sender":null,"content":null,"prio":null,"user_is_target":null`, push.Notification{},
		},
		"escapes in names and texts":           {`,"event\u005fid":"\u0024\n","room_n\u0061me":"R"`, push.Notification{EventID: m("$\n"), RoomName: m("R")}},
		"half of a character is U+FFFD":        {`,"room_name":"\ud83d"`, push.Notification{RoomName: m("\ufffd")}},
		"a member twice with different values": {`,"prio":"low","prio":5,"counts":{"unread":1},"counts":null`, push.Notification{}},
		"members that the app passes on":       {`,"mac":"m","m\u0061c":[1.50],"ephemeral":"e"`, push.Notification{Further: map[string]any{"mac": []any{json.Number("1.50")}}}},
		"one of them is too long":              {`,"mac":"m","ciphertext":"` + strings.Repeat("c", 5<<10) + `"`, push.Notification{Further: map[string]any{"mac": "m", "ciphertext": nil}}},
		"Synapse's badge update": {
			`,"id":"","type":null,"sender":"","counts":{"unread":3}`, push.Notification{Sender: m(""), Counts: push.Counts{Unread: n(3)}},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := &phone{}
			if res := post(t, newAPI(t, p, nil), notification(tt.members)); res.StatusCode != 200 {
				t.Fatalf("status %d, errcode %s", res.StatusCode, errcode(t, res))
			}
			if diff := cmp.Diff([]push.Notification{tt.want}, p.notifications,
				cmp.AllowUnexported(push.Member{}), cmpopts.IgnoreFields(push.Notification{}, "Source")); diff != "" {
				t.Errorf("notifications (-want +got):\n%s", diff)
			}
		})
	}
}

// What a member of a room nests too deeply is an empty string, and the rest of the
// event is pushed.
//
// Conformance (requests): nesting deeper than 64 (≠ Sygnal), ids that are lists, objects or longer than 255 bytes | absent; the rest of the event is pushed (also TestAcceptedNotifications)
// Conformance (attacks): a room in which every message nests 62 lists | what is too deep is absent, the rest is pushed (also FuzzWhatAnybodyMayWrite)
func TestWhatNestsTooDeeplyIsAbsent(t *testing.T) {
	t.Parallel()
	for name, value := range map[string]string{
		"lists":    strings.Repeat(`[`, 62) + strings.Repeat(`]`, 62),
		"objects":  strings.Repeat(`{"a":`, 20000) + `"}]"` + strings.Repeat(`}`, 20000),
		"a change": strings.Repeat(`[{"a":`, 40) + `1` + strings.Repeat(`}]`, 40),
	} {
		p := &phone{}
		if res := post(t, newAPI(t, p, nil), notification(`,"content":{"deep":`+value+`,"body":"x"}`)); res.StatusCode != 200 {
			t.Errorf("%s: status %d", name, res.StatusCode)
			continue
		}
		content := p.notifications[0].Content.(map[string]any)
		depth, v := 0, content["deep"]
		for ; v != ""; depth++ {
			switch inner := v.(type) {
			case []any:
				v = inner[0]
			case map[string]any:
				v = inner["a"]
			}
		}
		if depth != 61 || content["body"] != "x" {
			t.Errorf("%s: %d levels beside the body %q", name, depth, content["body"])
		}
	}
}

// Sixteen events, each with what the largest text can take in memory, are on their way
// at once; the homeserver has room for two that are decoded whole.
//
// Conformance (requests): content or a member that is passed on which takes more than 256 KiB in memory | absent, and counts against no budget; the event is pushed (also FuzzWhatAnybodyMayWrite)
func TestWhatTakesMuchMemoryIsAbsent(t *testing.T) {
	t.Parallel()
	const events = 16
	p := held{begun: make(chan struct{}, events), answer: make(chan struct{})}
	h := newAPI(t, p, func(o *httpapi.Options) { o.BytesInFlight = 64 << 20 })
	small := strings.Repeat(`{},`, 64<<10/3) + `{"a":[{}]}`
	var posts sync.WaitGroup
	for i, member := range []string{`"content":[` + small + `]`, `"content":{"body":"x","a":{"b":[` + small + `],"c":"}"}}`, `"mac":[` + small + `]`, `"type":[` + small + `]`} {
		for j := range events / 4 {
			posts.Go(func() {
				if res := post(t, h, notification(fmt.Sprintf(`,"event_id":"$%d-%d",%s`, i, j, member))); res.StatusCode != 200 {
					t.Errorf("%.20s: status %d %s", member, res.StatusCode, errcode(t, res))
					p.begun <- struct{}{}
				}
			})
		}
	}
	for range events {
		<-p.begun
	}
	close(p.answer)
	posts.Wait()

	took := &phone{}
	post(t, newAPI(t, took, nil), notification(`,"content":{"a":[`+strings.Repeat(`[],`, 100<<10)+`1],"body":"x"},"room_name":"Room"`))
	if n := took.notifications[0]; n.Content != nil || n.RoomName.String() != "Room" {
		t.Errorf("the content is a %T, the room %q", n.Content, n.RoomName)
	}
}

// Of members with the same name the last one counts, also if a former one is of a
// shape that would be refused.
func TestTheLastOfSeveralMembersCounts(t *testing.T) {
	t.Parallel()
	const good = `{"app_id":"app","pushkey":"k"}`
	for _, body := range []string{
		`{"notification":{"devices":[]},"notification":{"devices":[` + good + `]}}`,
		`{"notification":null,"notification":{"devices":[` + good + `]}}`,
		`{"notification":{"devices":[],"devices":[` + good + `]}}`,
		`{"notification":{"counts":{"unread":"x"},"counts":{"unread":1},"devices":[` + good + `]}}`,
		`{"notification":{"devices":[{"app_id":1,"app_id":"app","pushkey":"k"}]}}`,
	} {
		p := &phone{}
		if res := post(t, newAPI(t, p, nil), body); res.StatusCode != 200 || len(p.devices) != 1 {
			t.Errorf("%s: %d with %d pushes", body, res.StatusCode, len(p.devices))
		}
	}
}

// TestRequestsDoNotMix reads many requests at a time, good and bad ones, because
// what reads one is used again for another.
func TestRequestsDoNotMix(t *testing.T) {
	t.Parallel()
	p := &phone{}
	h := newAPI(t, p, nil)
	const senders, each = 8, 50
	var sending sync.WaitGroup
	for i := range senders {
		sending.Go(func() {
			for j := range each {
				id := fmt.Sprint(i, "-", j, strings.Repeat("x", j))
				post(t, h, `{"notification":{"event_id":"`+id+`","devices":[{"app_id":"app"`)
				res := post(t, h, `{"notification":{"event_id":"`+id+`","content":{"body":"`+id+`"},"devices":[{"app_id":"app","pushkey":"`+id+`","data":{"n":"`+id+`"}}]}}`)
				if res.StatusCode != 200 {
					t.Errorf("%s: status %d", id, res.StatusCode)
				}
			}
		})
	}
	sending.Wait()
	if len(p.devices) != senders*each {
		t.Fatalf("%d pushes, want %d", len(p.devices), senders*each)
	}
	for i, d := range p.devices {
		n := p.notifications[i]
		content, _ := n.Content.(map[string]any)
		if n.EventID.String() != d.PushKey || content["body"] != d.PushKey || d.Data["n"] != d.PushKey {
			t.Errorf("%s got the event %s with %v and %v", d.PushKey, n.EventID, content, d.Data)
		}
	}
}

// Conformance (requests): the Content-Type of a request | ignored
func TestTheContentTypeOfARequestDoesNotMatter(t *testing.T) {
	t.Parallel()
	for _, contentType := range []string{"", "text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16"} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/_matrix/push/v1/notify", strings.NewReader(device("")))
		r.Header.Set("Content-Type", contentType)
		w := httptest.NewRecorder()
		newAPI(t, &phone{}, nil).ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			t.Errorf("%q: status %d", contentType, w.Code)
		}
	}
}

func temporary(r push.Reason, after time.Duration) push.Outcome {
	return push.Outcome{Kind: push.Temporary, Reason: r, RetryAfter: after}
}

// Conformance (answers): `rejected` is there, in request order | 200 (also TestVerdictsReachTheHomeserver)
// Conformance (answers): something may succeed later | 502, or 429 and 503 where all devices have that reason; Retry-After
func TestAnswers(t *testing.T) {
	t.Parallel()
	answers := map[string]push.Outcome{
		"dead":    {Kind: push.Rejected, Reason: push.ReasonUnregistered, Status: 410},
		"large":   {Kind: push.Dropped, Reason: push.ReasonTooLarge, Status: 413},
		"down":    temporary(push.ReasonUnavailable, 0),
		"down30":  temporary(push.ReasonUnavailable, 30*time.Second),
		"limited": temporary(push.ReasonRateLimited, 60*time.Second),
		"busy":    temporary(push.ReasonBusy, 2*time.Second),
		"waiting": temporary(push.ReasonInFlight, 2*time.Second),
		"wrong":   temporary(push.ReasonWithheld, 0),
		"paused":  temporary(push.ReasonPaused, 90*time.Second),
		"outage":  temporary(push.ReasonOutage, 4*time.Second),
		"broken":  temporary(push.ReasonInternal, 0),
	}
	tests := map[string]struct {
		pushKeys   []string
		status     int
		rejected   []string
		errcode    string
		retryAfter string
	}{
		"all accepted":                                 {[]string{"a", "b"}, 200, []string{}, "", ""},
		"the dead are listed in request order":         {[]string{"dead", "a", "x/../dead", "dead"}, 200, []string{"dead", "dead"}, "", ""},
		"a dropped message is not tried again":         {[]string{"large"}, 200, []string{}, "", ""},
		"one down is a bad gateway":                    {[]string{"a", "down", "dead"}, 502, nil, "M_UNKNOWN", "5"},
		"the longest Retry-After counts":               {[]string{"down", "down30"}, 502, nil, "M_UNKNOWN", "30"},
		"only rate limits are a rate limit":            {[]string{"a", "limited", "limited"}, 429, nil, "M_LIMIT_EXCEEDED", "60"},
		"a rate limit beside a fault is a bad gateway": {[]string{"limited", "down"}, 502, nil, "M_UNKNOWN", "60"},
		"only at the limit is unavailable":             {[]string{"busy"}, 503, nil, "M_UNKNOWN", "2"},
		"waiting in vain is unavailable":               {[]string{"waiting", "busy"}, 503, nil, "M_UNKNOWN", "2"},
		"Retry-After for all is a rate limit":          {[]string{"paused", "limited"}, 429, nil, "M_LIMIT_EXCEEDED", "90"},
		"a service that does not work is unavailable":  {[]string{"outage"}, 503, nil, "M_UNKNOWN", "4"},
		"a rejection withheld is a bad gateway":        {[]string{"wrong"}, 502, nil, "M_UNKNOWN", "5"},
		"only faults of ours are an internal error":    {[]string{"broken", "a"}, 500, nil, "M_UNKNOWN", "5"},
		"at the limit and rate limited":                {[]string{"busy", "limited"}, 502, nil, "M_UNKNOWN", "60"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var list []string
			for i, k := range tt.pushKeys {
				// Data keeps equal pushkeys apart: each has its own outcome.
				list = append(list, fmt.Sprintf(`{"app_id":"app","pushkey":%q,"data":{"i":%d}}`, k, i))
			}
			res := post(t, newAPI(t, &phone{answers: answers}, nil), `{"notification":{"devices":[`+strings.Join(list, ",")+`]}}`)
			if res.StatusCode != tt.status || res.Header.Get("Retry-After") != tt.retryAfter {
				t.Errorf("%d with Retry-After %q, want %d with %q", res.StatusCode, res.Header.Get("Retry-After"), tt.status, tt.retryAfter)
			}
			if tt.errcode != "" {
				if got := errcode(t, res); got != tt.errcode {
					t.Errorf("errcode %s, want %s", got, tt.errcode)
				}
				return
			}
			var got struct{ Rejected []string }
			if err := json.NewDecoder(res.Body).Decode(&got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.rejected, got.Rejected); diff != "" {
				t.Errorf("rejected (-want +got):\n%s", diff)
			}
		})
	}
}

// Conformance (requests): unknown path, wrong method | 404, 405 `M_UNRECOGNIZED` (also TestUnroutedRequests)
// Conformance (requests): GET on the notify path | UnifiedPush's discovery where switched on or an app serves it, else 405 (also TestNotificationsReachBrowsersAndUnifiedPush)
func TestPathsAndMethods(t *testing.T) {
	t.Parallel()
	const path = "/_matrix/push/v1/notify"
	tests := []struct {
		method, path string
		discovery    bool
		status       int
		body         string
	}{
		{"GET", path, true, 200, `{"unifiedpush":{"gateway":"matrix"}}`},
		{"GET", path, false, 405, ""},
		{"PUT", path, true, 405, ""},
		{"DELETE", path, false, 405, ""},
		{"POST", path + "/", false, 404, ""},
		{"POST", "/_matrix/push/v2/notify", false, 404, ""},
		{"GET", "/", false, 404, ""},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprint(tt.method, " ", tt.path, " ", tt.discovery), func(t *testing.T) {
			t.Parallel()
			h := newAPI(t, &phone{}, func(o *httpapi.Options) { o.Discovery = func() bool { return tt.discovery } })
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), tt.method, tt.path, http.NoBody))
			if w.Code != tt.status {
				t.Fatalf("status %d, want %d", w.Code, tt.status)
			}
			if got := strings.TrimSpace(w.Body.String()); tt.body != "" && got != tt.body {
				t.Errorf("body %s", got)
			}
			if code := errcode(t, w.Result()); tt.status != 200 && code != "M_UNRECOGNIZED" {
				t.Errorf("errcode %q", code)
			}
		})
	}
}

// held is a push service that answers when it is told to, unless the context
// ends first.
type held struct{ begun, answer chan struct{} }

func (held) Destination(*push.Device) string { return "" }

func (held) Address(d *push.Device) string { return d.PushKey }

func (h held) Send(ctx context.Context, _ push.Delivery) push.Outcome {
	h.begun <- struct{}{}
	select {
	case <-ctx.Done():
		return temporary(push.ReasonTimeout, 0)
	case <-h.answer:
		return push.Outcome{Reason: push.ReasonSent, Status: 200}
	}
}

// Conformance (requests): a homeserver that hangs up | what has begun is finished
func TestAHomeserverThatHangsUpStopsNothing(t *testing.T) {
	t.Parallel()
	p := held{begun: make(chan struct{}), answer: make(chan struct{})}
	h := newAPI(t, p, nil)
	ctx, hangUp := context.WithCancel(t.Context())
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/_matrix/push/v1/notify", strings.NewReader(device("")))
	w := httptest.NewRecorder()
	done := make(chan struct{})
	go func() {
		h.ServeHTTP(w, r)
		close(done)
	}()
	<-p.begun
	hangUp()
	close(p.answer)
	<-done
	if w.Code != http.StatusOK {
		t.Errorf("the push was given up: %d %s", w.Code, w.Body)
	}
}

// Conformance (requests): a request ends before Dendrite's 30 s | 25 s (also TestEveryFaultIsReportedAtOnce)
func TestARequestEndsInTime(t *testing.T) {
	t.Parallel()
	p := held{begun: make(chan struct{}, 1)}
	h := newAPI(t, p, func(o *httpapi.Options) { o.Timeout = 10 * time.Millisecond })
	if res := post(t, h, device("")); res.StatusCode != http.StatusBadGateway {
		t.Errorf("status %d", res.StatusCode)
	}
}

func FuzzNotify(f *testing.F) {
	for _, body := range []string{
		notification(``), device(`,"pushkey_ts":1,"data":null,"tweaks":{"sound":true,"highlight":null}`), `{}`, `[]`, `5`, ``, "\xff",
		notification(`,"id":"","type":null,"sender":"","counts":{"unread":3}`),
		notification(`,"counts":{"unread":1e999}`), notification(`,"content":{"body":"\ud800"}`),
		strings.Repeat(`{"notification":`, 70),
	} {
		f.Add([]byte(body))
	}
	p := &phone{answers: map[string]push.Outcome{}}
	h := newAPI(f, p, nil)
	f.Fuzz(func(t *testing.T, body []byte) {
		p.devices, p.notifications = nil, nil
		res := post(t, h, string(body))
		code := errcode(t, res)
		switch {
		case res.StatusCode == 400 || res.StatusCode == 413:
			if code == "" || len(p.devices) != 0 {
				t.Errorf("%d %q with %d pushes", res.StatusCode, code, len(p.devices))
			}
		case res.StatusCode != 200 && res.StatusCode != 502:
			t.Errorf("status %d", res.StatusCode)
		}
		for _, d := range p.devices {
			if c := d.PushKeyTS; c < 0 {
				t.Errorf("pushkey_ts %d", c)
			}
		}
	})
}

func TestTheAccessLogTellsDevicesByFingerprint(t *testing.T) {
	t.Parallel()
	p := &phone{answers: map[string]push.Outcome{
		"dead": {Kind: push.Rejected, Reason: push.ReasonUnregistered, Status: 410, Detail: "Unregistered"},
		"down": {Kind: push.Temporary, Reason: push.ReasonUnavailable, Status: 503, RetryAfter: time.Second},
	}}
	for name, tt := range map[string]struct {
		pushKeys []string
		want     map[string]any
	}{
		"one device": {[]string{"dead"}, map[string]any{
			"device": map[string]any{"app_id": "app", "pushkey": push.Fingerprint("dead")}, "status": 200.0,
			"outcome": "rejected", "reason": "unregistered", "provider_status": 410.0, "provider_detail": "Unregistered",
		}},
		"several": {[]string{"alive", "dead", "down"}, map[string]any{
			"devices": 3.0, "accepted": 1.0, "rejected": 1.0, "temporary": 1.0, "status": 502.0, "errcode": "M_UNKNOWN", "error": "1 of 3 devices not notified: the push service is not available",
			"not_accepted": []any{push.Fingerprint("dead") + " unregistered", push.Fingerprint("down") + " unavailable"},
		}},
		"several that were all notified": {[]string{"alive", "well"}, map[string]any{"devices": 2.0, "accepted": 2.0, "status": 200.0}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var logged bytes.Buffer
			h := newAPI(t, p, func(o *httpapi.Options) { o.Log = slog.New(slog.NewJSONHandler(&logged, nil)) })
			var devices []string
			for _, k := range tt.pushKeys {
				devices = append(devices, `{"app_id":"app","pushkey":"`+k+`"}`)
			}
			post(t, h, `{"notification":{"event_id":"$e","devices":[`+strings.Join(devices, ",")+`]}}`)
			var line map[string]any
			if err := json.Unmarshal(logged.Bytes(), &line); err != nil {
				t.Fatalf("not one line: %v\n%s", err, &logged)
			}
			for _, other := range []string{"time", "level", "msg", "method", "route", "took", "client", "request_id", "bytes"} {
				delete(line, other)
			}
			if diff := cmp.Diff(tt.want, line); diff != "" {
				t.Errorf("line (-want +got):\n%s", diff)
			}
		})
	}
}
