package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/matrix-herald/herald/push/pushtest"
)

func vapidKey(t *testing.T) string {
	t.Helper()
	code, key, stderr := command(t, nil, "vapid", "new")
	if code != 0 || !strings.HasPrefix(stderr, "applicationServerKey: B") {
		t.Fatalf("exit status %d\n%s", code, stderr)
	}
	return key
}

// addEndpoints adds an app of type webpush, "web", and one of type unifiedpush, "up",
// whose endpoints are a fake's. At localhost:1 nobody answers.
func (s *services) addEndpoints(t *testing.T, answer func(pushtest.WebPushRequest) pushtest.FCMAnswer) *pushtest.WebPush {
	t.Helper()
	fake := pushtest.StartWebPush(t, answer)
	appendTo := func(name, text string) {
		before, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, name, string(before)+text)
	}
	writeFile(t, filepath.Join(s.dir, "vapid.pem"), vapidKey(t))
	appendTo(filepath.Join(s.dir, "ca.pem"), string(fake.CA().PEM()))
	const app = "  %s:\n    type: %s\n    vapid_key_file: vapid.pem\n    vapid_contact: mailto:push@example.org\n" +
		"    allowed_endpoints: [%q, \"localhost:1\"]\n    allow_networks: [127.0.0.1]\n"
	appendTo(s.config, fmt.Sprintf(app, "web", "webpush", fake.Addr())+fmt.Sprintf(app, "up", "unifiedpush", fake.Addr()))
	return fake
}

func TestVAPIDShowsWhatWebPagesSubscribeWith(t *testing.T) {
	t.Parallel()
	code, key, stderr := command(t, nil, "vapid", "new")
	file := writeFile(t, filepath.Join(t.TempDir(), "vapid.pem"), key+vapidKey(t))
	again, stdout, _ := command(t, nil, "vapid", "show", file)
	lines := strings.Fields(stdout)
	if code != 0 || again != 0 || len(lines) != 2 || stderr != "applicationServerKey: "+lines[0]+"\n" {
		t.Errorf("new says %q, show says %q", stderr, stdout)
	}
	if code, _, _ := command(t, nil, "vapid", "show", writeFile(t, file, "hunter2")); code != 1 {
		t.Errorf("a file without a key: exit status %d", code)
	}
	if code, _, _ := command(t, nil, "vapid"); code != 2 {
		t.Errorf("without a word: exit status %d", code)
	}
}

// Browsers, and phones whose app has one app_id for FCM and UnifiedPush, through
// the whole program.
//
// Conformance (UnifiedPush): one app_id for FCM and UnifiedPush (Element X) | `unifiedpush: true` serves pushkeys that are URLs
func TestNotificationsReachBrowsersAndUnifiedPush(t *testing.T) {
	t.Parallel()
	gone := make(map[string]bool)
	fake := pushtest.StartWebPush(t, func(r pushtest.WebPushRequest) pushtest.FCMAnswer {
		if gone[r.Path] {
			return pushtest.FCMAnswer{Status: http.StatusGone}
		}
		return pushtest.FCMAnswer{}
	})
	gone["/gone"] = true
	fcm := pushtest.StartFCM(t, pushtest.FCMOptions{Answer: func(r pushtest.FCMRequest) pushtest.FCMAnswer {
		if r.Message.Token == "another's" {
			return pushtest.FCMError(http.StatusForbidden, "PERMISSION_DENIED", "SENDER_ID_MISMATCH", "SenderId mismatch")
		}
		return pushtest.FCMAnswer{}
	}})
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "vapid.pem"), vapidKey(t))
	writeFile(t, filepath.Join(dir, "ca.pem"), string(fake.CA().PEM())+string(fcm.CA().PEM()))
	writeFile(t, filepath.Join(dir, "firebase.json"), string(fcm.ServiceAccount("demo")))
	reach := fmt.Sprintf("allowed_endpoints: [%q]\n    allow_networks: [127.0.0.1]\n", fake.Addr())
	config := writeFile(t, filepath.Join(dir, "pushgw.yaml"), `
http: {listen: ["127.0.0.1:0"], admin_listen: "127.0.0.1:0"}
ca_file: ca.pem
log: {format: json}
apps:
  web:
    type: webpush
    pass_on: [mac]
    vapid_key_file: vapid.pem
    vapid_contact: mailto:push@example.org
    `+reach+`
  both:
    type: fcm
    service_account_file: firebase.json
    endpoint: `+fcm.URL()+`
    unifiedpush: true
    `+reach)
	g := startGateway(t, new(http.Client), "-config", config)
	endpoint := "https://" + fake.Addr()
	post := func(device map[string]any) string {
		t.Helper()
		body, _ := json.Marshal(map[string]any{"notification": map[string]any{
			"event_id": "$e:x", "room_id": "!r:x", "counts": map[string]any{"unread": 1}, "mac": "m", "devices": []any{device},
		}})
		status, answer, err := g.notify(t.Context(), string(body))
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(status, " ", answer)
	}
	if got := post(map[string]any{"app_id": "web", "pushkey": fake.Subscription.PushKey(), "data": map[string]any{
		"endpoint": endpoint + "/a", "auth": fake.Subscription.Auth(), "default_payload": map[string]any{"session_id": "s"},
	}}); got != `200 {"rejected":[]}` {
		t.Errorf("web push: %s", got)
	}
	if got := post(map[string]any{"app_id": "both", "pushkey": endpoint + "/b"}); got != `200 {"rejected":[]}` {
		t.Errorf("UnifiedPush: %s", got)
	}
	if got := post(map[string]any{"app_id": "both", "pushkey": "another's"}); !strings.HasPrefix(got, "502 ") || fcm.Count() != 1 {
		t.Errorf("another sender's token, before FCM took a push: %s", got)
	}
	if got := post(map[string]any{"app_id": "both", "pushkey": "token"}); got != `200 {"rejected":[]}` || fcm.Count() != 2 {
		t.Errorf("FCM: %s", got)
	}
	if got := post(map[string]any{"app_id": "both", "pushkey": endpoint + "/gone"}); got != `200 {"rejected":["`+endpoint+`/gone"]}` {
		t.Errorf("a dead endpoint: %s", got)
	}
	all := fake.Requests()
	if len(all) != 3 || all[0].Text != `{"event_id":"$e:x","mac":"m","room_id":"!r:x","session_id":"s","unread":1}` ||
		string(all[1].Body) != `{"notification":{"counts":{"unread":1},"event_id":"$e:x","prio":"high","room_id":"!r:x"}}` {
		t.Errorf("the push service got %+v", all)
	}
	code, stdout, stderr := command(t, nil, "-config", config, "test-push", "-app", "web", "-pushkey", fake.Subscription.PushKey(),
		"-data", fmt.Sprintf(`{"endpoint":"%s/c","auth":%q}`, endpoint, fake.Subscription.Auth()))
	if code != 0 || !strings.Contains(stdout, "outcome   accepted (sent)") {
		t.Errorf("test-push: exit status %d\n%s\n%s", code, stdout, stderr)
	}
	code, stdout, _ = command(t, nil, "-config", config, "test-push", "-app", "both", "-pushkey", endpoint+"/gone")
	if code == 0 || !strings.Contains(stdout, "remedy    the subscription is gone") {
		t.Errorf("test-push of an endpoint that is gone: exit status %d\n%s", code, stdout)
	}
	if got := g.get(t, g.API+notifyPath); got != `{"unifiedpush":{"gateway":"matrix"}}` {
		t.Errorf("discovery: %s", got)
	}
}
