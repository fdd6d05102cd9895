package main

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/matrix-herald/herald/push/pushtest"
)

// FuzzWhatAnybodyMayWrite posts an event whose content, ids and names are anything
// that the specification's sizes allow, for up to a hundred devices of each push
// service. The answer is 200, no device is given up, and each gets one push that its
// push service takes; on a VoIP topic it may be none.
//
// Conformance (hostile input): any JSON as `content`, any ids and names, for one device or a hundred | 200 with a push for each, but for what a VoIP topic does not carry
func FuzzWhatAnybodyMayWrite(f *testing.F) {
	const kibi = 1 << 10
	long := strings.Repeat("x", 60*kibi)
	for _, content := range []string{
		`{"msgtype":"m.text","body":"hello"}`, `null`, `"text"`, `[1,[2]]`, `1e999`, `{"body":true,"msgtype":[]}`, `{"body":"\ud800","msgtype":"\udfff"}`,
		`{"deep":` + strings.Repeat("[", 62) + strings.Repeat("]", 62) + `,"body":"x"}`, strings.Repeat(`{"a":`, 10_000) + "1" + strings.Repeat("}", 10_000),
		`{"from":"a","message_type":"b","google.c":"d","gcm":"e","":"f","body":"x"}`, `{"msgtype":"m.text","body":"` + strings.Repeat("<", 700) + `"}`,
		`{"msgtype":"m.text","body":"a` + strings.Repeat("\u0301", 5000) + `"}`, `{"msgtype":"m.text","body":` + strings.Repeat("9", 5000) + `}`,
		`{` + manyMembers(100*kibi) + `"body":"x","msgtype":"m.image"}`, `{"offer":{"sdp":"m=video"},"lifetime":-1e9}`, `{"body":"` + long + `"}`,
		`[` + strings.Repeat("{},", 64*kibi/3) + `{}]`, `{"body":"x","a":[` + strings.Repeat("{},", 140*kibi/3) + `{}]}`,
	} {
		f.Add([]byte(content), "m.room.message", "$event:example.org", "!room:example.org", "Mission Control", "@major:example.org", uint8(2))
	}
	f.Add([]byte(`{}`), "m.room.member", "", "", "", "", uint8(0))
	f.Add([]byte(`{"body":"x"}`), "", strings.Repeat("\u2028", 85), strings.Repeat("<", 255), long, long, uint8(99))
	f.Add([]byte(`{"membership":"invite"}`), strings.Repeat("t", 255), "$"+strings.Repeat("\x00", 43), "!", "\xff", "\u202e", uint8(9))
	f.Add([]byte(`{"notify_type":"ring"}`), "m.call.notify", "$e", "!r", "é", "", uint8(0))
	f.Add([]byte(`{"lifetime":0}`), "m.call.invite", "$e", "!r", "é", "", uint8(0))
	f.Add([]byte(`{"lifetime":1}`), "m.call.invite", "$e", "!r", "é", "", uint8(0))

	phones := startPhones(f)
	f.Fuzz(func(t *testing.T, content []byte, kind, eventID, roomID, name, sender string, more uint8) {
		if !json.Valid(content) || !utf8.Valid(content) {
			content, _ = json.Marshal(string(content)) // a string has no errors
		}
		if len(content)+len(name)+len(sender) > 300*kibi || len(kind) > 255 || len(eventID) > 255 || len(roomID) > 255 {
			t.Skip("larger than the specification or a request allows")
		}
		text := func(s string) json.RawMessage { data, _ := json.Marshal(s); return data }
		members := map[string]json.RawMessage{
			"content": content, "type": text(kind), "event_id": text(eventID), "room_id": text(roomID), "room_name": text(name), "room_alias": text(name),
			"sender_display_name": text(name), "sender": text(sender), "membership": text(name), "counts": json.RawMessage(`{"unread":1}`),
		}
		phones.post(t, members, 1+int(more)%100)
	})
}

// phones are devices behind the fakes of both push services.
type phones struct {
	handler http.Handler

	mu     sync.Mutex
	made   int
	pushes map[string]int // by topic, or "" for Android
	faults []string
}

func startPhones(tb testing.TB) *phones {
	tb.Helper()
	p := &phones{pushes: make(map[string]int)}
	key := pushtest.NewTokenKey(tb)
	apns := pushtest.StartAPNs(tb, pushtest.APNsOptions{Key: &key, Discard: true, Answer: func(r pushtest.APNsRequest) pushtest.APNsAnswer {
		p.take(r.Header.Get("Apns-Topic"), r.Body)
		return pushtest.APNsAnswer{}
	}})
	fcm := pushtest.StartFCM(tb, pushtest.FCMOptions{Discard: true, Answer: func(r pushtest.FCMRequest) pushtest.FCMAnswer {
		p.take("", r.Body)
		return pushtest.FCMAnswer{}
	}})
	dir := tb.TempDir()
	ios := strings.TrimSuffix(apnsApp(tb, dir, apns, key), "}")
	android, _ := fcmApp(tb, dir, fcm)
	cfg, err := loadConfig(writeFile(tb, filepath.Join(dir, "pushgw.yaml"), fmt.Sprintf("apps: {ios: %s}, android: %s, voip: %s}}",
		ios, android, strings.Replace(ios, "topic: org.example.ios", "topic: org.example.ios.voip", 1))), nil)
	if err != nil {
		tb.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(apns.CA().PEM())
	roots.AppendCertsFromPEM(fcm.CA().PEM())
	cfg.RootCAs = roots
	shared := newConnections(cfg, slog.New(slog.DiscardHandler), nil)
	tb.Cleanup(shared.close)
	apps, err := openApps(cfg, shared)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(apps.closeAll)
	p.handler = handlerOf(tb, cfg, apps.apps)
	return p
}

// take takes a push that the fake of its push service found nothing wrong with, its
// size included.
func (p *phones) take(topic string, body []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pushes[topic]++
	if !json.Valid(body) || !utf8.Valid(body) {
		p.faults = append(p.faults, fmt.Sprintf("to %q: %.200q is not JSON", topic, body))
	}
}

// post posts a notification for n new devices of each app: in one request, or in one
// for each app where they are more than a request may have.
func (p *phones) post(t *testing.T, members map[string]json.RawMessage, n int) {
	t.Helper()
	var requests [][]string
	for app, pushKey := range map[string]func(i int) string{"ios": iosKey, "voip": iosKey, "android": func(i int) string { return fmt.Sprint("phone:", i) }} {
		devices := devicesOf(app, n, func(i int) string { return pushKey(p.made + i) }, "")
		if 3*n > 100 || requests == nil {
			requests = append(requests, nil)
		}
		last := &requests[len(requests)-1]
		*last = append(*last, devices)
	}
	p.made += n
	clear(p.pushes)
	p.faults = nil
	for _, devices := range requests {
		members["devices"] = json.RawMessage("[" + strings.Join(devices, ",") + "]")
		body, err := json.Marshal(map[string]any{"notification": members})
		if err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		p.handler.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/_matrix/push/v1/notify", bytes.NewReader(body)))
		if got := strings.TrimSpace(w.Body.String()); w.Code != http.StatusOK || got != `{"rejected":[]}` {
			t.Fatalf("%d %s", w.Code, got)
		}
	}
	if p.pushes[""] != n || p.pushes["org.example.ios"] != n || p.pushes["org.example.ios.voip"] > n || p.faults != nil {
		t.Errorf("%d devices of each got %v; %v", n, p.pushes, p.faults)
	}
}
