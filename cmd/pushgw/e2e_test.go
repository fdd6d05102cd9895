package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/internal/harness"
	"github.com/matrix-herald/herald/push/pushtest"
)

var update = flag.Bool("update", false, "write the golden files")

func TestMain(m *testing.M) {
	relayMain()
	harness.Main(m)
}

// gateway is a running pushgw binary.
type gateway struct {
	*harness.Process

	client *http.Client
}

// startGateway runs the binary with args until the test ends and waits until
// it listens.
func startGateway(t *testing.T, client *http.Client, args ...string) *gateway {
	t.Helper()
	return &gateway{harness.Start(t, nil, args...), client}
}

// notify posts a body and returns the status and the answer.
func (g *gateway) notify(ctx context.Context, body string) (int, string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, g.API+"/_matrix/push/v1/notify", strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	res, err := g.client.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	return res.StatusCode, strings.TrimSpace(string(data)), err
}

func (g *gateway) get(t *testing.T, url string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	res, err := g.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// services are the fakes of APNs and FCM and a configuration that uses them.
type services struct {
	apns   *pushtest.APNs
	fcm    *pushtest.FCM
	dir    string
	config string // file name
	client *http.Client
}

func startServices(t *testing.T, apnsOptions pushtest.APNsOptions, fcmOptions pushtest.FCMOptions) *services {
	t.Helper()
	key := pushtest.NewTokenKey(t)
	apnsOptions.Key = &key
	apnsOptions.Topics = []string{"org.example.ios"}
	s := &services{apns: pushtest.StartAPNs(t, apnsOptions), fcm: pushtest.StartFCM(t, fcmOptions), dir: t.TempDir()}
	ca := pushtest.NewCA(t)
	writeFile(t, filepath.Join(s.dir, "ca.pem"), string(s.apns.CA().PEM())+string(s.fcm.CA().PEM()))
	writeFile(t, filepath.Join(s.dir, "key.p8"), string(key.P8(t)))
	writeFile(t, filepath.Join(s.dir, "firebase.json"), string(s.fcm.ServiceAccount("example")))
	certPEM, keyPEM := serverPEM(t, ca)
	writeFile(t, filepath.Join(s.dir, "tls.crt"), certPEM)
	writeFile(t, filepath.Join(s.dir, "tls.key"), keyPEM)
	s.config = filepath.Join(s.dir, "pushgw.yaml")
	s.configure(t, key.KeyID, key.TeamID, "")
	s.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool()}}}
	t.Cleanup(s.client.CloseIdleConnections)
	return s
}

// configure writes the configuration, with more apps at its end.
func (s *services) configure(t *testing.T, keyID, teamID, more string) {
	t.Helper()
	writeFile(t, s.config, fmt.Sprintf(`
http:
  listen: ["127.0.0.1:0"]
  admin_listen: 127.0.0.1:0
  tls: {cert_file: tls.crt, key_file: tls.key}
  test_drain_delay: 100ms
ca_file: ca.pem
log: {format: json, level: debug}
test_reload_interval: 50ms
metrics: {sygnal_names: true}
apps:
  org.example.ios:
    type: apns
    topic: org.example.ios
    key_file: key.p8
    key_id: %s
    team_id: %s
    endpoint: %s
  org.example.android*:
    type: fcm
    service_account_file: firebase.json
    endpoint: %s
%s`, keyID, teamID, s.apns.URL(), s.fcm.URL(), more))
}

// startReplicas adds a section to the configuration and runs it twice.
func (s *services) startReplicas(t *testing.T, section string) []*gateway {
	t.Helper()
	config, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, s.config, string(config)+section)
	return []*gateway{startGateway(t, s.client, "-config", s.config), startGateway(t, s.client, "-config", s.config)}
}

// speakPlainHTTP takes TLS out of the configuration.
func (s *services) speakPlainHTTP(t *testing.T) {
	t.Helper()
	config, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, s.config, strings.Replace(string(config), "tls: {cert_file: tls.crt, key_file: tls.key}", "", 1))
}

const (
	iosApp     = "org.example.ios"
	androidApp = "org.example.android.fdroid"
)

// iosKey is the pushkey of an iOS device whose token is n.
func iosKey(n int) string { return iosPushkey(fmt.Sprintf("%032d", n)) }

// iosPushkey is the pushkey of an iOS device with this token.
func iosPushkey(token string) string { return base64.StdEncoding.EncodeToString([]byte(token)) }

// Conformance (pushgw): the real binary: bodies of Dendrite and Synapse in, what Apple and Google get out
func TestHomeserversNotificationsArrive(t *testing.T) {
	t.Parallel()
	s := startServices(t, pushtest.APNsOptions{}, pushtest.FCMOptions{})
	g := startGateway(t, s.client, "-config", s.config)
	bodies, err := filepath.Glob("testdata/notify/*.json")
	if err != nil || len(bodies) == 0 {
		t.Fatalf("no bodies: %v", err)
	}
	n := 0
	for _, file := range bodies {
		if strings.HasSuffix(file, ".golden.json") {
			continue
		}
		n++
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		apnsBefore, fcmBefore := len(s.apns.Requests()), len(s.fcm.Requests())
		for appID, pushKey := range map[string]string{iosApp: iosKey(n), androidApp: fmt.Sprint("android:", n)} {
			body := strings.NewReplacer("APP_ID", appID, "PUSHKEY", pushKey).Replace(string(data))
			if status, answer, err := g.notify(t.Context(), body); err != nil || status != 200 || answer != `{"rejected":[]}` {
				t.Fatalf("%s for %s: %d %s %v", file, appID, status, answer, err)
			}
		}
		got := arrived{}
		for _, r := range s.apns.Requests()[apnsBefore:] {
			got.APNs = append(got.APNs, apnsPush{
				Priority: r.Header.Get("Apns-Priority"), PushType: r.Header.Get("Apns-Push-Type"), Topic: r.Header.Get("Apns-Topic"),
				Payload: json.RawMessage(r.Body),
			})
		}
		for _, r := range s.fcm.Requests()[fcmBefore:] {
			got.FCM = append(got.FCM, json.RawMessage(partOfAMinute.ReplaceAll(r.Body, []byte(`"ttl":"60s"`))))
		}
		compareGolden(t, strings.TrimSuffix(file, ".json")+".golden.json", got)
	}
}

// partOfAMinute is for how long a call rings on, which depends on the moment.
var partOfAMinute = regexp.MustCompile(`"ttl":"[0-9.]+s"`)

// arrived is what reached the push services for one notification.
type arrived struct {
	APNs []apnsPush        `json:"apns"`
	FCM  []json.RawMessage `json:"fcm"`
}

type apnsPush struct {
	Priority string          `json:"apns-priority"`
	PushType string          `json:"apns-push-type"`
	Topic    string          `json:"apns-topic"`
	Payload  json.RawMessage `json:"payload"`
}

func compareGolden(t *testing.T, file string, got any) {
	t.Helper()
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(got); err != nil {
		t.Fatal(err)
	}
	if *update {
		writeFile(t, file, text.String())
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), text.String()); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

// Conformance (attacks): metrics that grow with what callers send | labels are configured names and closed sets (also TestMetricsHaveClosedLabels)
func TestVerdictsReachTheHomeserver(t *testing.T) {
	t.Parallel()
	s := startServices(t,
		pushtest.APNsOptions{Answer: func(r pushtest.APNsRequest) pushtest.APNsAnswer {
			switch r.Token {
			case fmt.Sprintf("%x", fmt.Appendf(nil, "%032d", 1)):
				return pushtest.APNsAnswer{Status: 410, Reason: "Unregistered"}
			case fmt.Sprintf("%x", fmt.Appendf(nil, "%032d", 2)):
				return pushtest.APNsAnswer{Status: 503, Reason: "ServiceUnavailable", RetryAfter: "7"}
			default:
				return pushtest.APNsAnswer{}
			}
		}},
		pushtest.FCMOptions{Answer: func(r pushtest.FCMRequest) pushtest.FCMAnswer {
			if r.Message.Token == "limited" {
				return pushtest.FCMError(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", "slow down")
			}
			return pushtest.FCMAnswer{}
		}},
	)
	g := startGateway(t, s.client, "-config", s.config)
	device := func(app, key string) string { return fmt.Sprintf(`{"app_id":%q,"pushkey":%q}`, app, key) }
	alive, dead, down := device(iosApp, iosKey(0)), device(iosApp, iosKey(1)), device(iosApp, iosKey(2))
	for name, tt := range map[string]struct {
		devices string
		status  int
		answer  string
	}{
		"a dead device among living ones": {alive + "," + dead, 200, `{"rejected":["` + iosKey(1) + `"]}`},
		"a push service that is down":     {down, 502, "M_UNKNOWN"},
		"one at its quota":                {device(androidApp, "limited"), 429, "M_LIMIT_EXCEEDED"},
		"an app nobody configured":        {device("org.example.other", "k"), 502, "M_UNKNOWN"},
		"a pushkey that is no token":      {device(iosApp, "../../stats?x="), 200, `{"rejected":["../../stats?x="]}`},
	} {
		status, answer, err := g.notify(t.Context(), `{"notification":{"event_id":"$e","type":"m.room.message","devices":[`+tt.devices+`]}}`)
		if err != nil || status != tt.status || !strings.Contains(answer, tt.answer) {
			t.Errorf("%s: %d %s %v", name, status, answer, err)
		}
	}
	metrics := g.get(t, g.Admin+"/metrics")
	for _, want := range []string{
		`herald_push_outcomes_total{app="org.example.ios",outcome="rejected",provider="apns",reason="unregistered"} 1`,
		`herald_push_outcomes_total{app="org.example.android*",outcome="temporary",provider="fcm",reason="rate_limited"} 1`,
		`herald_push_outcomes_total{app="(unknown)",outcome="temporary",provider="",reason="unknown_app"} 1`,
		`sygnal_gcm_status_codes_total{code="429",pushkin="org.example.android*"} 1`,
		`herald_push_connections{`,
		`herald_build_info{`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
	for url, want := range map[string]string{
		g.API + "/health": "ok", g.API + "/ready": "", g.API + "/version": `"e2e"`, g.Admin + "/healthz": "ok", g.Admin + "/readyz": "",
	} {
		if got := g.get(t, url); !strings.Contains(got, want) {
			t.Errorf("%s: %s", url, got)
		}
	}
}

// Conformance (answers): the specification advises to answer before the push service has | Herald waits: ADR 1
// Conformance (pushgw): SIGTERM finishes what is in flight, exit status 0 (also TestDrainingUnderLoadLosesNothing, TestFaults)
func TestAStopLosesNothing(t *testing.T) {
	t.Parallel()
	// The push services answer only when the gateway already drains.
	hold := make(chan struct{})
	s := startServices(t, pushtest.APNsOptions{Answer: func(pushtest.APNsRequest) pushtest.APNsAnswer {
		<-hold
		return pushtest.APNsAnswer{}
	}}, pushtest.FCMOptions{})
	g := startGateway(t, s.client, "-config", s.config)
	const requests = 20
	statuses := make(chan int, requests)
	for i := range requests {
		go func() {
			status, _, _ := g.notify(t.Context(), fmt.Sprintf(
				`{"notification":{"event_id":"$%d","type":"m.room.message","devices":[{"app_id":%q,"pushkey":%q}]}}`, i, iosApp, iosKey(i)))
			statuses <- status
		}()
	}
	if err := s.apns.Wait(t.Context(), requests); err != nil {
		t.Fatal(err)
	}
	g.Terminate(t)
	g.Await(t, "draining")
	close(hold)
	for range requests {
		if status := <-statuses; status != 200 {
			t.Errorf("a request in flight at SIGTERM ended with %d", status)
		}
	}
	g.Wait(t)
}

// Conformance (pushgw): SIGHUP and changed keys; a bad configuration changes nothing, which a metric shows; a key file or configuration that is removed is a warning (also TestWatchReportsALossOnce)
func TestReload(t *testing.T) {
	t.Parallel()
	s := startServices(t, pushtest.APNsOptions{}, pushtest.FCMOptions{})
	old, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	g := startGateway(t, s.client, "-config", s.config)
	check := func(when string, want int) {
		t.Helper()
		body := fmt.Sprintf(`{"notification":{"event_id":"$%s","type":"m.room.message","devices":[{"app_id":"org.example.more","pushkey":"k"}]}}`, when)
		if status, answer, err := g.notify(t.Context(), body); err != nil || status != want {
			t.Errorf("%s: %d %s %v, want %d", when, status, answer, err, want)
		}
	}
	check("before", 502)
	successful := func(want int) {
		t.Helper()
		if !strings.Contains(g.get(t, g.Admin+"/metrics"), fmt.Sprintf("\nherald_push_config_last_reload_successful %d\n", want)) {
			t.Errorf("the metric does not say %d", want)
		}
	}

	writeFile(t, s.config, string(old)+"  org.example.more: {type: fcm, typo: 1}\n")
	g.Signal(t, syscall.SIGHUP)
	g.Await(t, "new configuration refused")
	check("after a bad configuration", 502)
	successful(0)

	writeFile(t, s.config, string(old)+"  org.example.more: {type: fcm, service_account_file: firebase.json, endpoint: \""+s.fcm.URL()+"\"}\n")
	g.Signal(t, syscall.SIGHUP)
	g.Await(t, "apps reloaded")
	check("after a good one", 200)
	successful(1)

	again, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, s.config, "unknown_app: delete_pusher\n"+string(again))
	g.Signal(t, syscall.SIGHUP)
	g.Await(t, "options outside apps changed: restart to use them")
	g.Await(t, "apps reloaded")
	if status, answer, err := g.notify(t.Context(), `{"notification":{"devices":[{"app_id":"org.nobody","pushkey":"k"}]}}`); err != nil || status != 502 {
		t.Errorf("an option outside apps changed without a restart: %d %s %v", status, answer, err)
	}

	writeFile(t, filepath.Join(s.dir, "firebase.json"), "not a key")
	g.Await(t, "new configuration refused")
	check("after a broken key file", 200)
	writeFile(t, filepath.Join(s.dir, "firebase.json"), string(s.fcm.ServiceAccount("other")))
	g.Await(t, "apps reloaded")
	check("after a new key file", 200)
	requests := s.fcm.Requests()
	if got := requests[len(requests)-1].Project; got != "other" {
		t.Errorf("the new key's project is not used: %s", got)
	}

	for _, name := range []string{filepath.Join(s.dir, "firebase.json"), s.config} {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
		event := g.Await(t, "a file that is in use cannot be read any more")
		if text, _ := event["err"].(string); event["level"] != "WARN" || !strings.Contains(text, filepath.Base(name)) {
			t.Errorf("%s was removed: %v", name, event)
		}
	}
	check("without its files", 200)
}

// serverPEM returns a certificate for 127.0.0.1 and its key as files hold them.
func serverPEM(t *testing.T, ca *pushtest.CA) (certificate, key string) {
	t.Helper()
	pair := ca.ServerTLS(t).Certificates[0]
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, bytes []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: bytes}))
	}
	return block("CERTIFICATE", pair.Certificate[0]), block("PRIVATE KEY", der)
}
