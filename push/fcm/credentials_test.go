package fcm_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
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

func TestOneTokenServesAllSends(t *testing.T) {
	t.Parallel()
	fake := pushtest.StartFCM(t, pushtest.FCMOptions{})
	provider := open(t, fake)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { expect(t, provider.Send(t.Context(), message("token")), push.Accepted, push.ReasonSent) })
	}
	wg.Wait()
	if n := fake.TokenCount(); n != 1 {
		t.Errorf("there were %d token requests", n)
	}
}

func TestATokenIsThereBeforeTheFirstSend(t *testing.T) {
	t.Parallel()
	fake := pushtest.StartFCM(t, pushtest.FCMOptions{})
	open(t, fake)
	waitTokens(t, fake, 1)
}

// A push that finds a token near its end does not wait for the next one.
//
// Conformance (FCM): access tokens: renewed ahead, one for all sends, a hanging endpoint holds nobody (also TestAHangingTokenEndpointHoldsNobodyBeyondItsDeadline)
func TestATokenIsRenewedAhead(t *testing.T) {
	t.Parallel()
	fake := pushtest.StartFCM(t, pushtest.FCMOptions{})
	clock := &manualClock{now: time.Now()}
	provider := openWith(t, connect(t, fcm.Options{RootCAs: fake.CA().Pool(), Now: clock.Now}), configFor(fake))
	expect(t, provider.Send(t.Context(), message("token")), push.Accepted, push.ReasonSent)
	fake.OnToken(func() pushtest.FCMAnswer { return pushtest.FCMAnswer{Hang: true} })
	clock.add(56 * time.Minute)
	expect(t, provider.Send(t.Context(), message("token")), push.Accepted, push.ReasonSent)
	waitTokens(t, fake, 2)
}

// The cache of x/oauth2 makes the second Send wait for the first one's
// timeout, the third for two of them, and so on.
func TestAHangingTokenEndpointHoldsNobodyBeyondItsDeadline(t *testing.T) {
	t.Parallel()
	fake := pushtest.StartFCM(t, pushtest.FCMOptions{})
	fake.OnToken(func() pushtest.FCMAnswer { return pushtest.FCMAnswer{Hang: true} })
	provider := open(t, fake)
	waitTokens(t, fake, 1)
	const senders = 100
	start := time.Now()
	var wg sync.WaitGroup
	for range senders {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			got := provider.Send(ctx, message("token"))
			expect(t, got, push.Temporary, push.ReasonTimeout)
			if !got.Unprocessed {
				t.Error("the outcome does not say that nothing was processed")
			}
		})
	}
	wg.Wait()
	// One after the other they would take 20 seconds.
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("%d Sends of 200 ms took %s", senders, took)
	}
	if n := fake.TokenCount(); n != 1 {
		t.Errorf("there were %d token requests", n)
	}
}

func TestAHangingTokenRequestIsGivenUpAndRepeated(t *testing.T) {
	t.Parallel()
	fake := pushtest.StartFCM(t, pushtest.FCMOptions{})
	var once sync.Once
	fake.OnToken(func() (answer pushtest.FCMAnswer) {
		once.Do(func() { answer.Hang = true })
		return answer
	})
	connections := connect(t, fcm.Options{
		RootCAs: fake.CA().Pool(), TokenTimeout: 300 * time.Millisecond, TokenRetry: time.Millisecond,
	})
	provider := openWith(t, connections, configFor(fake))
	eventually(t, provider)
}

// Conformance (FCM): a refused account, a wrong clock | 502; what Google says, and how wrong the clock is (also TestAWrongClockIsTold)
func TestARefusedAccountIsNotHammered(t *testing.T) {
	t.Parallel()
	fake := pushtest.StartFCM(t, pushtest.FCMOptions{})
	fake.OnToken(func() pushtest.FCMAnswer {
		return pushtest.FCMAnswer{Status: http.StatusBadRequest,
			Body: `{"error":"invalid_grant","error_description":"Invalid JWT Signature of secret@account"}`}
	})
	var log lockedBuffer
	connections := connect(t, fcm.Options{RootCAs: fake.CA().Pool(), Log: slog.New(slog.NewTextHandler(&log, nil))})
	provider := openWith(t, connections, configFor(fake))
	for range 10 {
		got := provider.Send(t.Context(), message("token"))
		expect(t, got, push.Temporary, push.ReasonCredentials)
		if got.RetryAfter < time.Second || got.RetryAfter > 30*time.Second || got.Unprocessed {
			t.Errorf("retry after %s, unprocessed %t", got.RetryAfter, got.Unprocessed)
		}
		if !strings.Contains(got.Err.Error(), "400 invalid_grant: Invalid JWT Signature of …") || got.Evidence != push.EvidenceRefused {
			t.Errorf("the error is %v", got.Err)
		}
	}
	if n := fake.TokenCount(); n != 1 {
		t.Errorf("there were %d token requests", n)
	}
	if n := fake.Count(); n != 0 {
		t.Errorf("FCM got %d messages", n)
	}
	text := log.String()
	if strings.Count(text, "level=ERROR") != 1 || !strings.Contains(text, "app=com.example.app") || strings.Contains(text, "secret") {
		t.Errorf("the log is\n%s", text)
	}
}

func TestAnAccountThatIsMendedWorksAgain(t *testing.T) {
	t.Parallel()
	fake := pushtest.StartFCM(t, pushtest.FCMOptions{})
	fake.OnToken(func() pushtest.FCMAnswer {
		return pushtest.FCMAnswer{Status: http.StatusBadRequest, Body: `{"error":"invalid_grant"}`}
	})
	connections := connect(t, fcm.Options{RootCAs: fake.CA().Pool(), TokenRetry: time.Millisecond})
	provider := openWith(t, connections, configFor(fake))
	expect(t, provider.Send(t.Context(), message("token")), push.Temporary, push.ReasonCredentials)
	fake.OnToken(nil)
	eventually(t, provider)
}

// eventually waits for a Send that is accepted, which the next token allows.
func eventually(t *testing.T, provider *fcm.Provider) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		got := provider.Send(ctx, message("token"))
		if got.Kind == push.Accepted {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("still %s (%s): %v", got.Kind, got.Reason, got.Err)
		}
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

// A token that was made by a wrong clock is refused, and only the operator can
// mend the clock.
func TestAWrongClockIsTold(t *testing.T) {
	t.Parallel()
	fake := pushtest.StartFCM(t, pushtest.FCMOptions{})
	fake.OnToken(func() pushtest.FCMAnswer {
		return pushtest.FCMAnswer{Status: http.StatusBadRequest, Body: `{"error":"invalid_grant","error_description":
			"Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe."}`}
	})
	connections := connect(t, fcm.Options{RootCAs: fake.CA().Pool(), Now: func() time.Time { return time.Now().Add(-47 * time.Minute) }})
	got := openWith(t, connections, configFor(fake)).Send(t.Context(), message("token"))
	expect(t, got, push.Temporary, push.ReasonCredentials)
	if want := "in a reasonable timeframe.; the clock is 47 minutes slow"; !strings.HasSuffix(fmt.Sprint(got.Err), want) {
		t.Errorf("the error is %q, want %q at its end", got.Err, want)
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

func TestAnOldTokenServesWhileNoNewOneIsToBeHad(t *testing.T) {
	t.Parallel()
	fake := pushtest.StartFCM(t, pushtest.FCMOptions{TokenLife: 20 * time.Second})
	clock := &manualClock{now: time.Now()}
	provider := openWith(t, connect(t, fcm.Options{RootCAs: fake.CA().Pool(), Now: clock.Now}), configFor(fake))
	expect(t, provider.Send(t.Context(), message("token")), push.Accepted, push.ReasonSent)
	fake.OnToken(func() pushtest.FCMAnswer { return pushtest.FCMAnswer{Status: 503} })
	clock.add(18 * time.Second)
	expect(t, provider.Send(t.Context(), message("token")), push.Accepted, push.ReasonSent)
	clock.add(2 * time.Second)
	expect(t, provider.Send(t.Context(), message("token")), push.Temporary, push.ReasonUnavailable)
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

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
