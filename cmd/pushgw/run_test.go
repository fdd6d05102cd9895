package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/matrix-herald/herald/internal/harness"
	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/pushtest"
)

// pushgw is the program within the process of the test.
var pushgw harness.Program = func(ctx context.Context, around harness.Surroundings, args []string) int {
	p := program{stdout: around.Stdout, stderr: around.Stderr, environ: around.Environ, listening: around.Listening}
	return p.run(ctx, args)
}

// command runs the program to its end.
func command(t *testing.T, environ []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return pushgw.Command(t, environ, args...)
}

// ephemeral is an environment in which nothing meets another test.
func ephemeral(more ...string) []string {
	return append([]string{"PUSHGW_HTTP_LISTEN=127.0.0.1:0", "PUSHGW_HTTP_ADMIN_LISTEN="}, more...)
}

// Conformance (pushgw): `-dev`; `test-push`, which says what to do about a refusal and what the homeserver would be told; `import-sygnal` (also TestTestPush, TestImportedConfigurationsPassTheCheck)
func TestDevPrintsWhatAPhoneWouldShow(t *testing.T) {
	t.Parallel()
	s := pushgw.Serve(t, ephemeral(), "-dev")
	s.Out.Await(t, "curl "+s.API+"/_matrix/push/v1/notify")
	_, body, _ := strings.Cut(s.Out.String(), "-d '")
	body, _, _ = strings.Cut(body, "'")
	g := gateway{&harness.Process{API: s.API}, &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
	if status, answer, err := g.notify(t.Context(), body); err != nil || status != 200 || answer != `{"rejected":[]}` {
		t.Fatalf("%d %s %v", status, answer, err)
	}
	s.Out.Await(t, "org.example.app", "title       Lunch\n", "body        Alice: Noodles today?\n", "badge       2\n", `"loc-key":"MSG_FROM_USER_IN_ROOM_WITH_CONTENT"`, `"content_body":"Noodles today?"`)
	if code := s.Stop(); code != 0 {
		t.Errorf("exit status %d\n%s", code, s.Errs)
	}
	if !strings.Contains(s.Errs.String(), "duplicates and dead pushkeys are remembered by this process alone") {
		t.Errorf("the log does not say where is remembered:\n%s", s.Errs)
	}
	if strings.Contains(s.Errs.String(), "Noodles") {
		t.Errorf("message text in the log:\n%s", s.Errs)
	}
}

// Conformance (pushgw): no configuration: refuses to start
func TestCommandLine(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	good := writeFile(t, filepath.Join(dir, "good.yaml"), "apps: {org.example.web: {type: hold}}\n")
	empty := writeFile(t, filepath.Join(dir, "empty.yaml"), "log: {level: info}\n")
	tests := map[string]struct {
		args   []string
		code   int
		stdout string
		stderr string
	}{
		"version":                            {[]string{"-version"}, 0, "pushgw ", ""},
		"help":                               {[]string{"-help"}, 0, "", "import-sygnal"},
		"help on a command":                  {[]string{"test-push", "-help"}, 0, "", "-pushkey"},
		"help on one without flags":          {[]string{"doctor", "-h"}, 0, "", "usage: pushgw"},
		"help on health":                     {[]string{"help", "health"}, 0, "", "usage: pushgw"},
		"an unknown flag":                    {[]string{"-typo"}, 2, "", "-typo"},
		"an unknown command":                 {[]string{"typo"}, 2, "", `unknown command "typo"`},
		"no configuration":                   {nil, 1, "", "delete real pushers"},
		"a configuration without apps":       {[]string{"-config", empty}, 1, "", "delete real pushers"},
		"a configuration that is not there":  {[]string{"-config", filepath.Join(dir, "none.yaml")}, 1, "", "none.yaml"},
		"a good configuration is checked":    {[]string{"-config", good, "-check"}, 0, "The configuration is good: 1 apps.", ""},
		"test-push without a device":         {[]string{"-config", good, "test-push"}, 2, "", "usage: pushgw"},
		"test-push for an unknown app":       {[]string{"-config", good, "test-push", "-app", "x", "-pushkey", "k"}, 1, "", `no app is configured for the app_id "x"`},
		"test-push for an unsupported app":   {[]string{"-config", good, "test-push", "-app", "org.example.web", "-pushkey", "k"}, 1, "outcome   temporary (unsupported)", "not accepted"},
		"health of a service that is not up": {[]string{"-config", good, "health"}, 1, "", "pushgw:"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			environ := []string{"PUSHGW_HTTP_LISTEN=" + pushtest.RefusedAddr(t)}
			code, stdout, stderr := command(t, environ, tt.args...)
			if code != tt.code || !strings.Contains(stdout, tt.stdout) || !strings.Contains(stderr, tt.stderr) {
				t.Errorf("exit status %d\n--- stdout\n%s--- stderr\n%s", code, stdout, stderr)
			}
		})
	}
}

// TestCheckReportsFaultsOfFilesToo has a fault of each kind in one file, and
// starts with it, too.
func TestCheckReportsFaultsOfFilesToo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "not-a-key"), "hunter2hunter2")
	config := writeFile(t, filepath.Join(dir, "pushgw.yaml"), `
unknown_app: maybe
ca_file: missing.pem
http: {tls: {cert_file: missing.crt, key_file: missing.key}}
apps:
  one: {type: apns, topic: org.example.one, cert_file: not-a-key}
  two: {type: fcm}
  three: {type: apns, topic: org.example.three, key_file: missing.p8, key_id: ABCDE12345, team_id: FGHIJ67890}
  four: {type: fcm, service_account_file: missing.json}
  five: {type: apns, topic: org.example.five, cert_file: not-a-key, cert_password_file: missing}
`)
	for _, args := range [][]string{{"-config", config, "-check"}, {"-config", config}} {
		code, _, stderr := command(t, nil, args...)
		if code != 1 {
			t.Errorf("%q: exit status %d", args, code)
		}
		for _, want := range []string{
			"unknown_app", "ca_file", "http.tls", `apps["one"]`, `apps["two"].service_account`,
			`apps["three"]`, `apps["four"]`, `apps["five"]`,
		} {
			if strings.Count(stderr, want) != 1 {
				t.Errorf("%q: %s is not reported once:\n%s", args, want, stderr)
			}
		}
		if strings.Contains(stderr, "hunter2") {
			t.Errorf("%q: an error shows a secret:\n%s", args, stderr)
		}
	}
}

// TestCheckTalksToNobody checks a hundred apps of FCM's, which would ask for an
// access token.
func TestCheckTalksToNobody(t *testing.T) {
	t.Parallel()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	endpoint := "https://" + listener.Addr().String()
	fcm := pushtest.StartFCM(t, pushtest.FCMOptions{})
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "firebase.json"), strings.ReplaceAll(string(fcm.ServiceAccount("example")), fcm.URL(), endpoint))
	var config strings.Builder
	config.WriteString("apps:\n")
	for i := range 100 {
		fmt.Fprintf(&config, "  app%d: {type: fcm, service_account_file: firebase.json, endpoint: %q, project_id: project-%d}\n", i, endpoint, i)
	}
	file := writeFile(t, filepath.Join(dir, "pushgw.yaml"), config.String())
	for range 10 {
		if code, _, stderr := command(t, nil, "-config", file, "-check"); code != 0 {
			t.Fatalf("exit status %d\n%s", code, stderr)
		}
	}
	// Whoever connected before waits in the listener's queue.
	last, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer last.Close()
	first, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if first.RemoteAddr().String() != last.LocalAddr().String() {
		t.Error("-check connected to the push service")
	}
}

func TestHealthNeedsOnlyTheListener(t *testing.T) {
	t.Parallel()
	s := startServices(t, pushtest.APNsOptions{}, pushtest.FCMOptions{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"status":"ok"}`) }))
	t.Cleanup(server.Close)
	config := writeFile(t, filepath.Join(s.dir, "edited.yaml"), fmt.Sprintf(`
http: {listen: [%q], admin_listen: ""}
apps: {broken: {type: fcm, typo: 1, service_account_file: missing}}
`, server.Listener.Addr()))
	if code, _, stderr := command(t, nil, "-config", config, "health"); code != 0 {
		t.Errorf("exit status %d: %s", code, stderr)
	}
}

func TestDevShowsTextAsItIs(t *testing.T) {
	t.Parallel()
	out := harness.NewOutput()
	p := newPrinter(out)
	p.Send(t.Context(), push.Delivery{
		Device: &push.Device{AppID: "app", PushKey: "k"},
		Notification: &push.Notification{
			EventID: push.NewMember("$e"), Type: push.NewMember("m.room.message"), Sender: push.NewMember("@a:b"), RoomName: push.NewMember("Café 昼食"),
			Content: map[string]any{"msgtype": "m.text", "body": "say \"hi\" \x1b[31m\u009b31m"},
		},
	})
	text := out.String()
	for _, want := range []string{"Café 昼食", `say \"hi\" \x1b[31m`} {
		if !strings.Contains(text, want) {
			t.Errorf("the output lacks %q:\n%s", want, text)
		}
	}
	if strings.ContainsAny(text, "\x1b\u009b") {
		t.Errorf("a terminal would obey %q", text)
	}
}

// Conformance (FCM): `test-push` | says what to do, and what the homeserver would be told
func TestTestPush(t *testing.T) {
	t.Parallel()
	s := startServices(t, pushtest.APNsOptions{Answer: func(r pushtest.APNsRequest) pushtest.APNsAnswer {
		switch r.Token {
		case fmt.Sprintf("%x", fmt.Appendf(nil, "%032d", 1)):
			return pushtest.APNsAnswer{Status: 410, Reason: "Unregistered"}
		case fmt.Sprintf("%x", fmt.Appendf(nil, "%032d", 2)):
			return pushtest.APNsAnswer{Status: 400, Reason: "BadDeviceToken"}
		}
		return pushtest.APNsAnswer{}
	}}, pushtest.FCMOptions{Answer: func(r pushtest.FCMRequest) pushtest.FCMAnswer {
		switch r.Message.Token {
		case "foreign":
			return pushtest.FCMError(403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH", "SenderId mismatch")
		case "":
			return pushtest.FCMError(404, "NOT_FOUND", "UNREGISTERED", "Requested entity was not found.")
		case "page":
			return pushtest.FCMAnswer{Status: 404, Body: "<html>"}
		}
		return pushtest.FCMBadField("message.data[0].value")
	}})
	voip := fmt.Sprintf("  org.example.voip: {type: apns, topic: org.example.ios.voip, key_file: key.p8, key_id: KEY4567890, team_id: TEAM567890, endpoint: %q}\n", s.apns.URL())
	s.configure(t, "KEY4567890", "TEAM567890", voip)
	for name, tt := range map[string]struct {
		app     string
		pushKey string
		code    int
		want    []string
	}{
		"a message FCM refuses": {androidApp, "token", 1, []string{"400 Bad Request", "message.data[0].value", "outcome   dropped (bad_message)"}},
		"no token of FCM's":     {androidApp, "tökën", 1, []string{"meaning   200 with the pushkey rejected", "remedy    take the registration token or installation ID"}},
		"a foreign token":       {androidApp, "foreign", 1, []string{"pushkey   registration token", "meaning   502 until a push of this app was accepted", "remedy    use the project_id"}},
		"an installation ID": {androidApp, "dQw4w9WgXcQ-_abcdefghi", 1, []string{"pushkey   installation ID", "outcome   rejected (unregistered)",
			"that registers installation IDs, not tokens"}},
		"a page":             {androidApp, "page", 1, []string{"outcome   temporary (unavailable)", "remedy    something that is not FCM answered"}},
		"no device token":    {iosApp, "abc", 1, []string{"meaning   200 with the pushkey rejected", "remedy    take the device token as the app registered it"}},
		"a call to a topic":  {"org.example.voip", iosKey(0), 1, []string{"HTTP 400 TopicDisallowed", "remedy    set topic"}},
		"a sandbox's device": {iosApp, iosKey(2), 1, []string{"meaning   502 until a push of this app was accepted", "remedy    set platform: sandbox"}},
		"a living device":    {iosApp, iosKey(0), 0, []string{"Apns-Id: ", "answer    HTTP 200", "outcome   accepted (sent)"}},
		"a dead device":      {iosApp, iosKey(1), 1, []string{`{"reason":"Unregistered"`, "answer    HTTP 410 Unregistered", "outcome   rejected (unregistered)", "deletes the pusher"}},
	} {
		code, stdout, stderr := command(t, nil, "-config", s.config, "test-push", "-app", tt.app, "-pushkey", tt.pushKey)
		if code != tt.code {
			t.Errorf("%s: exit status %d\n%s", name, code, stderr)
		}
		for _, want := range tt.want {
			if !strings.Contains(stdout, want) {
				t.Errorf("%s: stdout lacks %q:\n%s", name, want, stdout)
			}
		}
	}
}
