package pushtest_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/matrix-herald/herald/push/pushtest"
)

const token = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"

// post pushes body to path and returns the status and the reason. Every answer
// has to name the push.
func post(t *testing.T, fake *pushtest.APNs, method, path, body string, header map[string]string) (status int, reason string) {
	t.Helper()
	transport := &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: fake.CA().Pool()},
		ForceAttemptHTTP2: true,
	}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), method, fake.URL()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("apns-topic", "org.example.app")
	for name, value := range header {
		req.Header.Set(name, value)
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if id, sent := resp.Header.Get("apns-id"), req.Header.Get("apns-id"); id == "" || sent != "" && id != sent {
		t.Errorf("the push with the id %q is answered with the id %q", sent, id)
	}
	var answer struct{ Reason string }
	if len(data) > 0 {
		if err := json.Unmarshal(data, &answer); err != nil {
			t.Fatal(err)
		}
	}
	return resp.StatusCode, answer.Reason
}

func TestAPNsJudgesLikeApple(t *testing.T) {
	t.Parallel()
	fake := pushtest.StartAPNs(t, pushtest.APNsOptions{Topics: []string{"org.example.app"}})
	long := func(n int) string { return strings.Repeat("x", n) }
	path := "/3/device/" + token
	for name, test := range map[string]struct {
		method, path, body string
		header             map[string]string
		status             int
		reason             string
	}{
		"a push":                             {"POST", path, "{}", nil, 200, ""},
		"another method":                     {"GET", path, "", nil, 405, "MethodNotAllowed"},
		"another path":                       {"POST", "/stats", "{}", nil, 404, "BadPath"},
		"a query":                            {"POST", path + "?x=y", "{}", nil, 404, "BadPath"},
		"no device token":                    {"POST", "/3/device/", "{}", nil, 400, "MissingDeviceToken"},
		"a device token that is none":        {"POST", "/3/device/AAEC", "{}", nil, 400, "BadDeviceToken"},
		"no payload":                         {"POST", path, "", nil, 400, "PayloadEmpty"},
		"the largest payload":                {"POST", path, long(4096), nil, 200, ""},
		"a payload that is too large":        {"POST", path, long(4097), nil, 413, "PayloadTooLarge"},
		"the largest VoIP payload":           {"POST", path, long(5120), map[string]string{"apns-push-type": "voip"}, 200, ""},
		"a VoIP payload that is too large":   {"POST", path, long(5121), map[string]string{"apns-push-type": "voip"}, 413, "PayloadTooLarge"},
		"an id that is none":                 {"POST", path, "{}", map[string]string{"apns-id": "1"}, 400, "BadMessageId"},
		"too long a collapse id":             {"POST", path, "{}", map[string]string{"apns-collapse-id": long(65)}, 400, "BadCollapseId"},
		"an unknown priority":                {"POST", path, "{}", map[string]string{"apns-priority": "7"}, 400, "BadPriority"},
		"a background push of high priority": {"POST", path, "{}", map[string]string{"apns-push-type": "background", "apns-priority": "10"}, 400, "BadPriority"},
		"no topic":                           {"POST", path, "{}", map[string]string{"apns-topic": ""}, 400, "MissingTopic"},
		"another topic":                      {"POST", path, "{}", map[string]string{"apns-topic": "org.example.other"}, 400, "TopicDisallowed"},
	} {
		status, reason := post(t, fake, test.method, test.path, test.body, test.header)
		if status != test.status || reason != test.reason {
			t.Errorf("%s: answered %d %q, want %d %q", name, status, reason, test.status, test.reason)
		}
	}
}

func TestAPNsAuthorises(t *testing.T) {
	t.Parallel()
	key := pushtest.NewTokenKey(t)
	now := time.Unix(1_800_000_000, 0)
	signed := func(key pushtest.TokenKey, issued time.Time) string { return "bearer " + key.Sign(t, issued) }
	otherID, otherTeam := key, key
	otherID.KeyID, otherTeam.TeamID = "OTHERKEY00", "OTHERTEAM0"
	fake := pushtest.StartAPNs(t, pushtest.APNsOptions{Key: &key, Now: func() time.Time { return now }})
	for name, test := range map[string]struct {
		authorization string
		status        int
		reason        string
	}{
		"a token":                   {signed(key, now), 200, ""},
		"a token of an hour":        {signed(key, now.Add(-time.Hour)), 200, ""},
		"a token of more":           {signed(key, now.Add(-time.Hour-time.Second)), 403, "ExpiredProviderToken"},
		"a token of the future":     {signed(key, now.Add(time.Hour)), 403, "ExpiredProviderToken"},
		"no token":                  {"", 403, "MissingProviderToken"},
		"something else":            {"bearer a.b.c", 403, "InvalidProviderToken"},
		"a token of another key":    {signed(pushtest.NewTokenKey(t), now), 403, "InvalidProviderToken"},
		"a token of another key id": {signed(otherID, now), 403, "InvalidProviderToken"},
		"a token of another team":   {signed(otherTeam, now), 403, "InvalidProviderToken"},
	} {
		status, reason := post(t, fake, "POST", "/3/device/"+token, "{}", map[string]string{"authorization": test.authorization})
		if status != test.status || reason != test.reason {
			t.Errorf("%s: answered %d %q, want %d %q", name, status, reason, test.status, test.reason)
		}
	}
}

func TestHeldHandshakesGoOnWhenReleased(t *testing.T) {
	t.Parallel()
	fake := pushtest.StartAPNs(t, pushtest.APNsOptions{})
	release := fake.HoldHandshakes()
	conn, err := net.Dial("tcp", strings.TrimPrefix(fake.URL(), "https://"))
	if err != nil {
		t.Fatal(err)
	}
	client := tls.Client(conn, &tls.Config{RootCAs: fake.CA().Pool(), ServerName: "127.0.0.1"})
	defer client.Close()
	done := make(chan error, 1)
	go func() { done <- client.HandshakeContext(t.Context()) }()
	for fake.Connections() == 0 { // it is accepted, and as silent as before
		runtime.Gosched()
	}
	select {
	case err := <-done:
		t.Fatalf("the handshake ended: %v", err)
	default:
	}
	release()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if status, _ := post(t, fake, "POST", "/3/device/"+token, "{}", nil); status != 200 {
		t.Errorf("a later connection: status %d", status)
	}
}

func TestAHeldConnectionCanBeClosed(t *testing.T) {
	t.Parallel()
	fake := pushtest.StartAPNs(t, pushtest.APNsOptions{})
	fake.HoldHandshakes()
	conn, err := net.Dial("tcp", strings.TrimPrefix(fake.URL(), "https://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for fake.Connections() == 0 {
		runtime.Gosched()
	}
	fake.CloseConnections()
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("the connection is open")
	}
}

func TestADecidedAnswerIsKeptBack(t *testing.T) {
	t.Parallel()
	decided := make(chan struct{}, 1)
	fake := pushtest.StartAPNs(t, pushtest.APNsOptions{Answer: func(pushtest.APNsRequest) pushtest.APNsAnswer {
		decided <- struct{}{}
		return pushtest.APNsAnswer{Delay: time.Hour}
	}})
	ctx, cancel := context.WithCancel(t.Context())
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: fake.CA().Pool()}, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, fake.URL()+"/3/device/"+token, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("apns-topic", "org.example.app")
	go func() {
		<-decided
		cancel()
	}()
	if res, err := transport.RoundTrip(req); err == nil {
		res.Body.Close()
		t.Errorf("it is answered with %d", res.StatusCode)
	}
}
