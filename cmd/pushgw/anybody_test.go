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
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/matrix-herald/herald/push/pushtest"
	"github.com/matrix-herald/herald/push/webpush"
)

// FuzzWhatAnybodyMayWrite posts an event whose content, ids and names are anything
// that the specification's sizes allow, with counts or without, for up to a hundred
// devices of each kind of app. The answer is 200, no device is given up, and each gets
// one push that its push service takes. It may be none on a VoIP topic, and is none
// where nothing is to be shown: without counts, joins on iOS, and hang-ups on iOS and
// HarmonyOS.
//
// Conformance (hostile input): any JSON as `content`, any ids and names, for one device or a hundred | 200 with a push for each, but for what a VoIP topic does not carry, and what shows nothing
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
		f.Add([]byte(content), "m.room.message", "$event:example.org", "!room:example.org", "Mission Control", "@major:example.org", uint8(2), uint8(0))
	}
	f.Add([]byte(`{}`), "m.room.member", "", "", "", "", uint8(0), uint8(1))
	f.Add([]byte(`{"body":"x"}`), "", strings.Repeat("\u2028", 85), strings.Repeat("<", 255), long, long, uint8(99), uint8(2))
	f.Add([]byte(`{"membership":"invite"}`), strings.Repeat("t", 255), "$"+strings.Repeat("\x00", 43), "!", "\xff", "\u202e", uint8(9), uint8(0))
	f.Add([]byte(`{"notify_type":"ring"}`), "m.call.notify", "$e", "!r", "é", "", uint8(0), uint8(1))
	for _, kind := range []string{"m.room.member", "m.call.hangup", "m.rtc.decline", ""} {
		f.Add([]byte(`{"membership":"join"}`), kind, "$e", "!r", "é", "", uint8(0), uint8(0))
		f.Add([]byte(`{"membership":"join"}`), kind, "", "", "é", "", uint8(0), uint8(0))
	}
	f.Add([]byte(`{"lifetime":0}`), "m.call.invite", "$e", "!r", "é", "", uint8(0), uint8(2))
	f.Add([]byte(`{"lifetime":1}`), "m.call.invite", "$e", "!r", "é", "", uint8(0), uint8(0))

	phones := startPhones(f)
	f.Fuzz(func(t *testing.T, content []byte, kind, eventID, roomID, name, sender string, more, counts uint8) {
		if !json.Valid(content) || !utf8.Valid(content) {
			content, _ = json.Marshal(string(content)) // a string has no errors
		}
		if len(content)+len(name)+len(sender) > 300*kibi || len(kind) > 255 || len(eventID) > 255 || len(roomID) > 255 {
			t.Skip("larger than the specification or a request allows")
		}
		text := func(s string) json.RawMessage { data, _ := json.Marshal(s); return data }
		members := map[string]json.RawMessage{
			"content": content, "type": text(kind), "event_id": text(eventID), "room_id": text(roomID), "room_name": text(name), "room_alias": text(name),
			"sender_display_name": text(name), "sender": text(sender), "membership": text(name),
		}
		if counts > 0 {
			members["counts"] = json.RawMessage(fmt.Sprintf(`{"unread":%d}`, counts-1))
		}
		read := func(m json.RawMessage) (s string) { // as the gateway does
			if _ = json.Unmarshal(m, &s); len(s) > 255 {
				s = ""
			}
			return s
		}
		kind = read(members["type"])
		ends := strings.HasPrefix(kind, "m.call.") && kind != "m.call.invite" && kind != "m.call.notify" || strings.HasSuffix(kind, ".rtc.decline")
		var silent []string
		if counts == 0 && (ends || kind == "m.room.member") {
			silent = append(silent, "ios")
		}
		if counts == 0 && ends && read(members["event_id"])+read(members["room_id"]) != "" {
			silent = append(silent, "harmonyos")
		}
		phones.post(t, members, 1+int(more)%100, silent)
	})
}

// phones are devices behind the fakes of all push services.
type phones struct {
	handler http.Handler
	devices map[string]func(i int) string // by app

	mu     sync.Mutex
	made   int
	pushes map[string]int // by app
	faults []string
}

func startPhones(tb testing.TB) *phones {
	tb.Helper()
	p := &phones{pushes: make(map[string]int)}
	key := pushtest.NewTokenKey(tb)
	apns := pushtest.StartAPNs(tb, pushtest.APNsOptions{Key: &key, Discard: true, Answer: func(r pushtest.APNsRequest) pushtest.APNsAnswer {
		p.take(map[string]string{"org.example.ios": "ios", "org.example.ios.voip": "voip"}[r.Header.Get("Apns-Topic")], r.Body)
		return pushtest.APNsAnswer{}
	}})
	fcm := pushtest.StartFCM(tb, pushtest.FCMOptions{Discard: true, Answer: func(r pushtest.FCMRequest) pushtest.FCMAnswer {
		p.take("android", r.Body)
		return pushtest.FCMAnswer{}
	}})
	hms := pushtest.StartHMS(tb, func(r pushtest.HMSRequest) pushtest.FCMAnswer {
		p.take(map[string]string{"v1": "huawei", "v3": "harmonyos"}[r.Version], r.Body)
		return pushtest.FCMAnswer{}
	})
	web := pushtest.StartWebPush(tb, func(r pushtest.WebPushRequest) pushtest.FCMAnswer {
		if text, browser := []byte(r.Text), r.Text != ""; browser {
			p.take("web", text)
		} else {
			p.take("unified", r.Body)
		}
		return pushtest.FCMAnswer{}
	})
	dir := tb.TempDir()
	vapid, _, err := webpush.NewVAPIDKey()
	if err != nil {
		tb.Fatal(err)
	}
	writeFile(tb, filepath.Join(dir, "vapid.pem"), vapid)
	writeFile(tb, filepath.Join(dir, "huawei.json"), string(hms.ServiceAccount("key-1")))
	writeFile(tb, filepath.Join(dir, "secret"), pushtest.HMSSecret)
	ios := apnsApp(tb, dir, apns, key)
	android, _ := fcmApp(tb, dir, fcm)
	reach := fmt.Sprintf("allowed_endpoints: [%q], allow_networks: [127.0.0.1]", web.Addr())
	config := "apps:\n"
	for app, settings := range map[string]string{
		"ios": ios, "voip": strings.Replace(ios, "topic: org.example.ios", "topic: org.example.ios.voip", 1), "android": android,
		"harmonyos": fmt.Sprintf("{type: hms, service_account_file: huawei.json, endpoint: %q}", hms.URL()),
		"huawei":    fmt.Sprintf("{type: hms, client_id: %q, client_secret_file: secret, endpoint: %q}", pushtest.HMSApp, hms.URL()),
		"web":       "{type: webpush, vapid_key_file: vapid.pem, vapid_contact: \"mailto:push@example.org\", " + reach + "}",
		"unified":   "{type: unifiedpush, " + reach + "}",
	} {
		config += "  " + app + ": " + settings + "\n"
	}
	cfg, err := loadConfig(writeFile(tb, filepath.Join(dir, "pushgw.yaml"), config), nil)
	if err != nil {
		tb.Fatal(err)
	}
	token := func(i int) string { return fmt.Sprint("phone:", i) }
	pushKey := func(key func(int) string) func(int) string {
		return func(i int) string { return fmt.Sprintf(`"pushkey":%q`, key(i)) }
	}
	p.devices = map[string]func(int) string{
		"ios": pushKey(iosKey), "voip": pushKey(iosKey), "android": pushKey(token), "harmonyos": pushKey(token), "huawei": pushKey(token),
		"unified": pushKey(func(i int) string { return fmt.Sprintf("https://%s/unified/%d", web.Addr(), i) }),
		"web": func(i int) string {
			return fmt.Sprintf(`"pushkey":%q,"data":{"endpoint":"https://%s/web/%d","auth":%q}`, web.Subscription.PushKey(), web.Addr(), i, web.Subscription.Auth())
		},
	}
	cfg.RootCAs = x509.NewCertPool()
	for _, ca := range [][]byte{apns.CA().PEM(), fcm.CA().PEM(), hms.CA().PEM(), web.CA().PEM()} {
		cfg.RootCAs.AppendCertsFromPEM(ca)
	}
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

// take takes an app's push that the fake of its push service found nothing wrong with,
// its size included.
func (p *phones) take(app string, body []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pushes[app]++
	if !json.Valid(body) || !utf8.Valid(body) {
		p.faults = append(p.faults, fmt.Sprintf("to %s: %.200q is not JSON", app, body))
	}
}

// post posts a notification for n new devices of each app, in one request for each.
// All get it but those of the apps that show nothing then.
func (p *phones) post(t *testing.T, members map[string]json.RawMessage, n int, silent []string) {
	t.Helper()
	clear(p.pushes)
	p.faults = nil
	for app, device := range p.devices {
		list := make([]string, n)
		for i := range list {
			list[i] = fmt.Sprintf(`{"app_id":%q,%s}`, app, device(p.made+i))
		}
		members["devices"] = json.RawMessage("[" + strings.Join(list, ",") + "]")
		body, err := json.Marshal(map[string]any{"notification": members})
		if err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		p.handler.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/_matrix/push/v1/notify", bytes.NewReader(body)))
		if got := strings.TrimSpace(w.Body.String()); w.Code != http.StatusOK || got != `{"rejected":[]}` {
			t.Fatalf("%s: %d %s", app, w.Code, got)
		}
		want := n
		if slices.Contains(silent, app) {
			want = 0
		}
		p.mu.Lock()
		got := p.pushes[app]
		p.mu.Unlock()
		if got != want && (app != "voip" || got > n) {
			t.Errorf("%d devices of %s got %d pushes, want %d", n, app, got, want)
		}
	}
	p.made += n
	if p.faults != nil {
		t.Error(p.faults)
	}
}
