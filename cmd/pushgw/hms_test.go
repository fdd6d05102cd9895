package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/matrix-herald/herald/internal/harness"
	"github.com/matrix-herald/herald/push/pushtest"
)

// TestNotificationsReachHuawei has both kinds of apps served by the whole program, and
// looked at by the doctor. Huawei quotes in its answers what it was sent.
func TestNotificationsReachHuawei(t *testing.T) {
	t.Parallel()
	fake := pushtest.StartHMS(t, func(r pushtest.HMSRequest) pushtest.FCMAnswer {
		switch {
		case strings.HasPrefix(r.Token, "good"):
			return pushtest.FCMAnswer{}
		case r.Version == "v3":
			return pushtest.HMSIllegal("80300007", "tokenFormatError", r.Token)
		case strings.HasPrefix(r.Token, "dead"), r.Message.ValidateOnly:
			return pushtest.HMSCode("80300007", "All the tokens are invalid: "+r.Token)
		}
		return pushtest.HMSCode("81000001", "Inner Error: "+string(r.Body)+r.Header.Get("Authorization"))
	})
	dir := t.TempDir()
	account := fake.ServiceAccount("key-1")
	writeFile(t, filepath.Join(dir, "huawei.json"), string(account))
	writeFile(t, filepath.Join(dir, "secret"), pushtest.HMSSecret)
	writeFile(t, filepath.Join(dir, "ca.pem"), string(fake.CA().PEM()))
	config := writeFile(t, filepath.Join(dir, "pushgw.yaml"), `
http: {listen: ["127.0.0.1:0"], admin_listen: "127.0.0.1:0", test_drain_delay: 0s}
ca_file: ca.pem
log: {format: json, level: debug}
apps:
  harmonyos: {type: hms, service_account_file: huawei.json, endpoint: `+fake.URL()+`}
  android: {type: hms, client_id: "`+pushtest.HMSApp+`", client_secret_file: secret, endpoint: `+fake.URL()+`}
`)
	g := startGateway(t, new(http.Client), "-config", config)
	events := 0
	post := func(app, pushkey, want string) {
		t.Helper()
		events++
		body, _ := json.Marshal(map[string]any{"notification": map[string]any{
			"event_id": fmt.Sprintf("$%d:x", events), "room_id": "!r:x", "type": "m.room.message", "sender": "@alice:x",
			"content": map[string]any{"body": "text of a message"}, "devices": []any{map[string]any{"app_id": app, "pushkey": pushkey}},
		}})
		status, answer, err := g.notify(t.Context(), string(body))
		if got := fmt.Sprint(status, " ", answer); err != nil || !strings.HasPrefix(got, want) {
			t.Errorf("%s, %s: %s, want %s; %v", app, pushkey, got, want, err)
		}
	}
	for _, app := range []string{"harmonyos", "android"} {
		post(app, "good-token-of-a-phone-of-"+app, `200 {"rejected":[]}`)
		post(app, "dead-token-of-a-phone-of-"+app, `200 {"rejected":["dead-token-of-a-phone-of-`+app+`"]}`)
	}
	post("android", "down-token-of-a-phone", "502 ")

	code, stdout, stderr := command(t, nil, "-config", config, "doctor")
	if code != 0 || !strings.Contains(stdout, "app harmonyos (hms): answers 200 80300007 tokenFormatError to a made-up device, so it takes the credentials") ||
		!strings.Contains(stdout, "app android (hms): answers 200 80300007 to a made-up device") {
		t.Errorf("doctor: exit status %d\n%s%s", code, stdout, stderr)
	}
	code, stdout, stderr = command(t, nil, "-config", config, "test-push", "-app", "harmonyos", "-pushkey", "dead-token-of-a-phone")
	if code != 1 || !strings.Contains(stdout, "rejected (bad_token)") || !strings.Contains(stdout, "remedy") {
		t.Errorf("test-push: exit status %d\n%s%s", code, stdout, stderr)
	}
	for name, want := range map[string]string{"harmonyos": "sent", "android": "unavailable"} {
		if metrics := g.get(t, g.Admin+"/metrics"); !strings.Contains(metrics, `app="`+name+`",outcome=`) || !strings.Contains(metrics, `provider="hms",reason="`+want+`"`) {
			t.Errorf("the metrics lack %s of %s", want, name)
		}
	}
	var key struct {
		Key string `json:"private_key"`
	}
	if err := json.Unmarshal(account, &key); err != nil {
		t.Fatal(err)
	}
	g.Stop(t)
	var secrets harness.Secrets
	for name, text := range map[string]string{
		"the client's secret": pushtest.HMSSecret, "the account's key": key.Key[60:100], "a push token": "-token-of-a-phone", "a message": "text of a message",
		"an access token": fake.Requests()[len(fake.Requests())-1].Header.Get("Authorization")[10:40],
	} {
		secrets.Add(name, text)
	}
	if found := secrets.In(fmt.Sprint(g.Log)); len(found) > 0 {
		t.Errorf("the log tells %v", found)
	}
}
