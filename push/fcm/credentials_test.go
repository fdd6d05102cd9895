package fcm_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/fcm"
	"github.com/matrix-herald/herald/push/pushtest"
)

func expect(t *testing.T, got push.Outcome, kind push.Kind, reason push.Reason) {
	t.Helper()
	if got.Kind != kind || got.Reason != reason {
		t.Errorf("got %s (%s), status %d, error %v; want %s (%s)", got.Kind, got.Reason, got.Status, got.Err, kind, reason)
	}
}

func waitTokens(t *testing.T, fake *pushtest.FCM, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := fake.WaitTokens(ctx, n); err != nil {
		t.Fatalf("waiting for %d token requests: %v", n, err)
	}
}

// Conformance (FCM): a refused account | 502; what Google says without addresses and keys
func TestARefusedAccount(t *testing.T) {
	t.Parallel()
	fake := pushtest.StartFCM(t, pushtest.FCMOptions{})
	fake.OnToken(func() pushtest.FCMAnswer {
		return pushtest.FCMAnswer{Status: http.StatusBadRequest,
			Body: `{"error":"invalid_grant","error_description":"Invalid JWT Signature of secret@account"}`}
	})
	got := open(t, fake).Send(t.Context(), message("token"))
	expect(t, got, push.Temporary, push.ReasonCredentials)
	if !strings.HasSuffix(fmt.Sprint(got.Err), "400 invalid_grant: Invalid JWT Signature of …") || got.Evidence != push.EvidenceRefused {
		t.Errorf("the error is %v", got.Err)
	}
	if n := fake.Count(); n != 0 {
		t.Errorf("FCM got %d messages", n)
	}
}

func TestFailuresOfTheTokenEndpoint(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer pushtest.FCMAnswer
		reason push.Reason
	}{
		"503":                      {pushtest.FCMAnswer{Status: 503}, push.ReasonUnavailable},
		"429":                      {pushtest.FCMAnswer{Status: 429, Body: `{"error":"rate_limit"}`}, push.ReasonUnavailable},
		"a redirect":               {pushtest.FCMAnswer{Status: 307, Location: "/token"}, push.ReasonUnavailable},
		"401":                      {pushtest.FCMAnswer{Status: 401, Body: `{"error":"invalid_client"}`}, push.ReasonCredentials},
		"a page":                   {pushtest.FCMAnswer{Status: 200, Body: "<html>log in</html>"}, push.ReasonConnection},
		"no token":                 {pushtest.FCMAnswer{Status: 200, Body: `{"expires_in":3600}`}, push.ReasonConnection},
		"no life":                  {pushtest.FCMAnswer{Status: 200, Body: `{"access_token":"x"}`}, push.ReasonConnection},
		"a token over two lines":   {pushtest.FCMAnswer{Status: 200, Body: `{"access_token":"x\ny","expires_in":60}`}, push.ReasonConnection},
		"an endless body":          {pushtest.FCMAnswer{Status: 200, Body: `{"access_token":"` + strings.Repeat("x", 1<<20)}, push.ReasonConnection},
		"a connection that is cut": {pushtest.FCMAnswer{Cut: true}, push.ReasonConnection},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := pushtest.StartFCM(t, pushtest.FCMOptions{})
			fake.OnToken(func() pushtest.FCMAnswer { return c.answer })
			// A pause longer than the test shows that nothing else is asked.
			connections := connect(t, fcm.Options{RootCAs: fake.CA().Pool(), TokenRetry: time.Minute})
			provider := openWith(t, connections, configFor(fake))
			for range 3 {
				expect(t, provider.Send(t.Context(), message("token")), push.Temporary, c.reason)
			}
			if n := fake.TokenCount(); n != 1 {
				t.Errorf("there were %d token requests", n)
			}
		})
	}
}

// Google may revoke a token early, and a clock may be wrong. That Apple or a
// browser's maker refuses the project's key has the same status, and is nothing
// of the token's.
//
// Conformance (attacks): tokens for which Google cannot reach Apple (401 THIRD_PARTY_AUTH_ERROR), while no access token is to be had | only answers about the access token drop it
func TestATokenThatFCMRefusesIsReplaced(t *testing.T) {
	t.Parallel()
	var thirdParty atomic.Bool
	fake := pushtest.StartFCM(t, pushtest.FCMOptions{Answer: func(pushtest.FCMRequest) (answer pushtest.FCMAnswer) {
		if thirdParty.Load() {
			answer = pushtest.FCMError(401, "UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR", "Auth error from APNS or Web Push Service")
		}
		return answer
	}})
	clock := &manualClock{now: time.Now().Add(-2 * time.Minute)}
	provider := openWith(t, connect(t, fcm.Options{RootCAs: fake.CA().Pool(), Now: clock.Now}), configFor(fake))
	expect(t, provider.Send(t.Context(), message("token")), push.Accepted, push.ReasonSent)

	clock.add(time.Minute)
	thirdParty.Store(true)
	for range 3 {
		expect(t, provider.Send(t.Context(), message("token")), push.Temporary, push.ReasonThirdParty)
	}
	thirdParty.Store(false)
	expect(t, provider.Send(t.Context(), message("token")), push.Accepted, push.ReasonSent)
	if n := fake.TokenCount(); n != 1 {
		t.Errorf("there were %d token requests", n)
	}
	fake.Revoke()
	expect(t, provider.Send(t.Context(), message("token")), push.Temporary, push.ReasonCredentials)
	expect(t, provider.Send(t.Context(), message("token")), push.Accepted, push.ReasonSent)

	fake.Revoke()
	for range 3 { // too new to be replaced
		expect(t, provider.Send(t.Context(), message("token")), push.Temporary, push.ReasonCredentials)
	}
	if n := fake.TokenCount(); n != 2 {
		t.Errorf("there were %d token requests", n)
	}
}

func TestProxyVariablesOfTheEnvironmentAreIgnored(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	fake := pushtest.StartFCM(t, pushtest.FCMOptions{})
	expect(t, open(t, fake).Send(t.Context(), message("token")), push.Accepted, push.ReasonSent)
}

func TestTokensAndMessagesGoThroughTheProxy(t *testing.T) {
	t.Parallel()
	fake := pushtest.StartFCM(t, pushtest.FCMOptions{})
	proxy := startProxy(t)
	proxyURL, err := url.Parse(proxy.url)
	if err != nil {
		t.Fatal(err)
	}
	proxyURL.User = url.UserPassword("user", "open sesame")
	provider := openWith(t, connect(t, fcm.Options{RootCAs: fake.CA().Pool(), Proxy: proxyURL}), configFor(fake))
	expect(t, provider.Send(t.Context(), message("token")), push.Accepted, push.ReasonSent)
	if got := proxy.requests(); len(got) != 2 {
		t.Errorf("the proxy saw %q, want one CONNECT for the token and one for the message", got)
	}
	for _, request := range proxy.requests() {
		if want := "CONNECT " + strings.TrimPrefix(fake.URL(), "https://") + " Basic dXNlcjpvcGVuIHNlc2FtZQ=="; request != want {
			t.Errorf("the proxy saw %q, want %q", request, want)
		}
	}
}

func TestACertificateOfAnUnknownAuthorityIsRefused(t *testing.T) {
	t.Parallel()
	fake := pushtest.StartFCM(t, pushtest.FCMOptions{})
	connections := connect(t, fcm.Options{RootCAs: pushtest.NewCA(t).Pool(), TokenRetry: time.Minute})
	got := openWith(t, connections, configFor(fake)).Send(t.Context(), message("token"))
	expect(t, got, push.Temporary, push.ReasonConnection)
	if got.Err == nil || !strings.Contains(got.Err.Error(), "unknown authority") {
		t.Errorf("the error is %v", got.Err)
	}
	if n := fake.TokenCount(); n != 0 {
		t.Errorf("the token endpoint got %d requests", n)
	}
}

type manualClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *manualClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *manualClock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}
