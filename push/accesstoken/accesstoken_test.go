package accesstoken_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/oauth2"

	"github.com/matrix-herald/herald/internal/outbound"
	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/accesstoken"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// endpoint is an account, and what becomes of the requests for its tokens.
type endpoint struct {
	mu       sync.Mutex
	requests int
	life     time.Duration
	hangs    bool
	err      error // in place of a token
	log      bytes.Buffer
}

func (e *endpoint) Token(ctx context.Context) (*oauth2.Token, error) {
	e.mu.Lock()
	e.requests++
	n, hangs, err := e.requests, e.hangs, e.err
	e.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	return &oauth2.Token{AccessToken: fmt.Sprint("token ", n), Expiry: time.Now().Add(e.life)}, err
}

// Refusal: the provider's own words begin with its name.
func (*endpoint) Refusal(body []byte) string {
	if bytes.HasPrefix(body, []byte("huge:")) {
		return string(body)
	}
	return ""
}

func (e *endpoint) set(hangs bool, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.hangs, e.err = hangs, err
}

// inBubble runs a test with a source of tokens that live for an hour.
func inBubble(t *testing.T, test func(t *testing.T, e *endpoint, s *accesstoken.Source)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{life: time.Hour}
		s := accesstoken.New(e, outbound.Options{Log: slog.New(slog.NewTextHandler(&e.log, nil))}, "app")
		defer s.Close()
		synctest.Wait()
		test(t, e, s)
	})
}

// expect gets a token, "" for one of these reasons, after so many requests.
func (e *endpoint) expect(t *testing.T, s *accesstoken.Source, token string, reason push.Reason, requests int) push.Outcome {
	t.Helper()
	got, out := s.Get(t.Context())
	synctest.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	if got != token || out.Reason != reason || e.requests != requests {
		t.Errorf("got %q (%s, %v) after %d requests, want %q (%s) after %d", got, out.Reason, out.Err, e.requests, token, reason, requests)
	}
	return out
}

func after(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// Conformance (attempts): access tokens | fetched at start, one for all pushes, renewed ahead; an old one serves while no new one is to be had
func TestATokenServesAllAndIsRenewedAhead(t *testing.T) {
	inBubble(t, func(t *testing.T, e *endpoint, s *accesstoken.Source) {
		for range 3 {
			e.expect(t, s, "token 1", "", 1)
		}
		after(54 * time.Minute)
		e.expect(t, s, "token 1", "", 1)
		after(time.Minute)
		e.expect(t, s, "token 1", "", 2) // and that does not wait
		e.expect(t, s, "token 2", "", 2)
		e.set(false, errors.New("no"))
		after(56 * time.Minute)
		e.expect(t, s, "token 2", "", 3)
		after(time.Minute) // a twentieth of its life is left
		e.expect(t, s, "", push.ReasonConnection, 4)
	})
}

// Conformance (attempts): an endpoint for access tokens that hangs | no push waits beyond its deadline, and one request is made at a time
func TestAHangingEndpointHoldsNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{life: time.Hour, hangs: true}
		s := accesstoken.New(e, outbound.Options{}, "app")
		defer s.Close()
		start := time.Now()
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, out := s.Get(ctx)
				if out.Reason != push.ReasonTimeout || !out.Unprocessed || out.Evidence != push.EvidenceUnreachable {
					t.Errorf("got %+v", out)
				}
			})
		}
		all.Wait()
		if took := time.Since(start); took != time.Second {
			t.Errorf("it took %v", took)
		}
		after(9 * time.Second) // then that request is given up
		e.set(false, nil)
		if out := e.expect(t, s, "", push.ReasonConnection, 1); out.RetryAfter != time.Second {
			t.Errorf("wait %v", out.RetryAfter)
		}
		after(time.Second)
		e.expect(t, s, "token 2", "", 2)
	})
}

// TestFailuresAreNotRepeatedAtOnce counts requests while pushes ask for tokens all the
// time.
func TestFailuresAreNotRepeatedAtOnce(t *testing.T) {
	for name, c := range map[string]struct {
		err      error
		requests int // in ten minutes
		level    string
	}{
		"a failure":         {errors.New("no"), 10, "WARN"},                      // 0, 1, 3, 7, 15, … 255 s, then every 5 min
		"a refused account": {refusal(400, "huge: no such account"), 5, "ERROR"}, // 0, 30, 90, 210, 450 s
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				e := &endpoint{life: time.Hour, err: c.err}
				s := accesstoken.New(e, outbound.Options{Log: slog.New(slog.NewTextHandler(&e.log, nil))}, "app")
				for range 600 {
					after(time.Second)
					if _, out := s.Get(t.Context()); out.RetryAfter < time.Second || out.RetryAfter > 5*time.Minute {
						t.Fatalf("got %+v", out)
					}
				}
				s.Close()
				if n := strings.Count(e.log.String(), "level="+c.level); e.requests != c.requests || n != e.requests || !strings.Contains(e.log.String(), "app=app") {
					t.Errorf("%d requests, want %d; the log:\n%s", e.requests, c.requests, &e.log)
				}
			})
		})
	}
}

// refusal is an answer without a token, of an endpoint whose clock is ahead.
func refusal(status int, body string, ahead ...time.Duration) error {
	date := time.Now()
	for _, d := range ahead {
		date = date.Add(d)
	}
	return fmt.Errorf("x/oauth2: %w", &oauth2.RetrieveError{
		Response: &http.Response{StatusCode: status, Header: http.Header{"Date": {date.UTC().Format(http.TimeFormat)}}}, Body: []byte(body),
	})
}

// Conformance (attempts): no access token: the endpoint refuses the account (a wrong clock is named); it fails, cannot be reached, or another answers | 502; the account's credentials; the service's availability
func TestWhatItMeansThatThereIsNoToken(t *testing.T) {
	for name, c := range map[string]struct {
		err      error
		reason   push.Reason
		evidence push.Evidence
		says     string
	}{
		"a refusal":              {refusal(401, "huge: wrong key"), push.ReasonCredentials, push.EvidenceRefused, "no access token: the token endpoint answered 401 huge: wrong key"},
		"too many":               {refusal(429, "huge: wait"), push.ReasonUnavailable, push.EvidenceUnreachable, "no access token: the token endpoint answered 429 huge: wait"},
		"a failure":              {refusal(503, "huge: away"), push.ReasonUnavailable, push.EvidenceUnreachable, "no access token: the token endpoint answered 503 huge: away"},
		"a redirect":             {refusal(307, "huge: moved"), push.ReasonUnavailable, push.EvidenceUnreachable, "no access token: the token endpoint answered 307 huge: moved"},
		"a wrong clock":          {refusal(400, "huge: expired", 47*time.Minute), push.ReasonCredentials, push.EvidenceRefused, "no access token: the token endpoint answered 400 huge: expired; the clock is 47 minutes slow"},
		"a page":                 {refusal(403, "<html>secret"), push.ReasonUnavailable, push.EvidenceUnreachable, "no access token: the token endpoint answered 403"},
		"no answer":              {errors.New("connection refused"), push.ReasonConnection, push.EvidenceUnreachable, "no access token: connection refused"},
		"a token over two lines": {nil, push.ReasonConnection, push.EvidenceUnreachable, "no access token: the token endpoint's answer holds no access token"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var account accesstoken.Account = &endpoint{err: c.err}
			if c.err == nil {
				account = new(twoLines)
			}
			s := accesstoken.New(account, outbound.Options{}, "app")
			defer s.Close()
			token, out := s.Get(t.Context())
			if token != "" || out.Kind != push.Temporary || out.Reason != c.reason || out.Evidence != c.evidence || fmt.Sprint(out.Err) != c.says ||
				out.Unprocessed != (c.reason == push.ReasonConnection) {
				t.Errorf("got %q, %+v", token, out)
			}
		})
	}
}

type twoLines struct{ endpoint }

func (*twoLines) Token(context.Context) (*oauth2.Token, error) {
	return &oauth2.Token{AccessToken: "a\r\nb", Expiry: time.Now().Add(time.Hour)}, nil
}

func TestARefusedTokenIsReplacedOnceItIsAMinuteOld(t *testing.T) {
	inBubble(t, func(t *testing.T, e *endpoint, s *accesstoken.Source) {
		if s.Refused("token 1", true) {
			t.Error("another one would fare no better")
		}
		e.expect(t, s, "token 1", "", 1)
		after(time.Minute)
		for range 2 { // by two pushes
			if !s.Refused("token 1", true) {
				t.Error("the next push has another one")
			}
		}
		e.expect(t, s, "token 2", "", 2)
		if !s.Refused("token 1", true) {
			t.Error("there is another one already")
		}
		after(time.Minute)
		if s.Refused("token 2", false) { // perhaps it was something else
			t.Error("it is still of use")
		}
		e.set(true, nil)
		e.expect(t, s, "token 2", "", 3)
	})
}

func TestAfterClose(t *testing.T) {
	inBubble(t, func(t *testing.T, e *endpoint, s *accesstoken.Source) {
		s.Close()
		s.Close()
		if out := e.expect(t, s, "", push.ReasonConnection, 1); !out.Unprocessed || out.Evidence != push.EvidenceNone {
			t.Errorf("got %+v", out)
		}
	})
}
