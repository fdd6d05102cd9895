// Package accesstoken keeps the access token of an account with a push service
// fresh. It knows when a token is due, not how to get one.
package accesstoken

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/oauth2"

	"github.com/matrix-herald/herald/internal/outbound"
	"github.com/matrix-herald/herald/push"
)

const (
	// margin is how long before its end a token is renewed, a quarter of its life
	// at most.
	margin  = 5 * time.Minute
	maxLife = 24 * time.Hour
	// minAge is how old a token must be before the push service's refusal of it
	// leads to a new one.
	minAge = time.Minute
	// The backoff between failed requests starts with outbound.Options.TokenRetry and
	// doubles up to maxRetry. For a refused account it starts higher, because only an
	// operator can mend that.
	maxRetry           = 5 * time.Minute
	refusedRetryFactor = 30
)

// Account is what tokens are made of.
type Account interface {
	// Token makes a token, or asks for one with the client of ctx, as x/oauth2 does.
	Token(ctx context.Context) (*oauth2.Token, error)
	// Refusal returns what may be shown of an answer without a token, if that is in
	// the words of the account's provider, else "".
	Refusal(body []byte) string
}

// Source keeps one access token fresh: it renews it ahead of time, and all pushes
// share one request. While there is no token and requests fail, pushes are told so
// at once; they do not wait in line, each for a request of its own.
type Source struct {
	account  Account
	opts     outbound.Options
	client   *http.Client
	log      *slog.Logger
	ctx      context.Context // ends with Close
	cancel   context.CancelFunc
	requests sync.WaitGroup

	mu       sync.Mutex
	fetching chan struct{} // closed with the end of the request under way; nil without one
	value    string
	fetched  time.Time
	expires  time.Time
	dueAt    time.Time    // no further request before
	failure  push.Outcome // of the last request
	failures int          // requests that failed in a row
}

// New returns a Source that begins to fetch a token: wrong credentials show before
// the first push. The log names the app. It needs a Close.
func New(account Account, opts outbound.Options, app string) *Source {
	opts = opts.WithDefaults()
	transport := &http.Transport{TLSClientConfig: opts.TLS(), DisableKeepAlives: true} // a token lasts an hour
	if opts.Proxy != nil {
		transport.Proxy = http.ProxyURL(opts.Proxy)
	}
	s := &Source{account: account, opts: opts, log: opts.Log.With("app", app), client: &http.Client{
		Transport: transport,
		// The proof of an account is for the endpoint it names and for nobody else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	// The token is for all pushes, not for the one that finds it missing.
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fetchIfDue()
	return s
}

// ErrClosed is the error of pushes that come after Close.
var ErrClosed = errors.New("the app's connections are closed")

// Get returns a valid token. Without one it waits for the request that is under
// way; in the backoff after a failed one it says at once what that means for a push.
func (s *Source) Get(ctx context.Context) (string, push.Outcome) {
	for {
		s.mu.Lock()
		s.fetchIfDue()
		now := s.opts.Now()
		value, valid, fetching, failed := s.value, now.Before(s.expires), s.fetching, s.failure
		failed.RetryAfter = max(time.Second, s.dueAt.Sub(now))
		s.mu.Unlock()
		switch {
		case s.ctx.Err() != nil:
			return "", unsent(ctx, ErrClosed)
		case valid:
			return value, push.Outcome{}
		case fetching == nil:
			return "", failed
		}
		select {
		case <-fetching:
		case <-ctx.Done():
			return "", unsent(ctx, fmt.Errorf("wait for an access token: %w", context.Cause(ctx)))
		}
	}
}

// unsent is what it means that a push ended with err and without a token.
func unsent(ctx context.Context, err error) push.Outcome {
	out := push.NoAnswer(ctx, err, true)
	if errors.Is(err, ErrClosed) { // that says nothing about the push service
		out.Evidence = push.EvidenceNone
	}
	return out
}

// fetchIfDue starts a request if one is due. The mutex is held.
func (s *Source) fetchIfDue() {
	if s.fetching == nil && !s.opts.Now().Before(s.dueAt) && s.ctx.Err() == nil {
		s.fetching = make(chan struct{})
		s.requests.Go(s.fetch)
	}
}

// Refused is told that the push service does not take value, and reports whether
// the next Get has another one. A token that is so new that another one would fare no
// better stays. Unless it is sure that it was the token, it is of use until the other
// one is there.
func (s *Source) Refused(value string, sure bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if value != s.value {
		return true
	}
	if s.opts.Now().Sub(s.fetched) < minAge {
		return false
	}
	s.dueAt = time.Time{}
	if sure {
		s.expires = time.Time{}
	}
	return sure
}

// Close ends the request under way and waits for it.
func (s *Source) Close() {
	s.mu.Lock()
	s.cancel()
	s.mu.Unlock()
	s.requests.Wait()
}

var errTimeout = errors.New("the token endpoint took longer than the timeout of its request")

// fetch makes one request and keeps what comes of it.
func (s *Source) fetch() {
	ctx, cancel := context.WithTimeoutCause(s.ctx, s.opts.TokenTimeout, errTimeout)
	defer cancel()
	client := *s.client
	client.Transport = inContext{ctx, client.Transport}
	token, err := s.account.Token(context.WithValue(ctx, oauth2.HTTPClient, &client))
	if err == nil && (token.AccessToken == "" || strings.ContainsAny(token.AccessToken, "\r\n") || token.Expiry.IsZero()) {
		err = errors.New("the token endpoint's answer holds no access token")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.fetching)
	s.fetching = nil
	now := s.opts.Now()
	if err == nil {
		life := min(time.Until(token.Expiry), maxLife)
		s.value, s.fetched, s.failures = token.AccessToken, now, 0
		s.expires, s.dueAt = now.Add(life-life/20), now.Add(life-min(margin, life/4))
		return
	}
	s.failure = s.outcome(err, now)
	backoff, level := s.opts.TokenRetry, slog.LevelWarn
	if s.failure.Evidence == push.EvidenceRefused {
		backoff, level = backoff*refusedRetryFactor, slog.LevelError
	}
	backoff = min(backoff<<min(s.failures, 20), maxRetry)
	s.failures++
	s.dueAt = now.Add(backoff)
	if s.ctx.Err() == nil {
		s.log.Log(s.ctx, level, "no access token from the account's token endpoint", "err", s.failure.Err,
			"next_try_in", backoff, "valid_token_left", now.Before(s.expires))
	}
}

// inContext ends requests with a context: some of x/oauth2's have none.
type inContext struct {
	ctx  context.Context
	next http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (t inContext) RoundTrip(r *http.Request) (*http.Response, error) {
	return t.next.RoundTrip(r.WithContext(t.ctx))
}

// outcome says what it means for a push that there is no token. That is about the
// account if the token endpoint says so in its own words; else about the endpoint and
// the way to it.
func (s *Source) outcome(err error, now time.Time) push.Outcome {
	out := push.Outcome{Kind: push.Temporary, Reason: push.ReasonConnection, Evidence: push.EvidenceUnreachable, Unprocessed: true}
	if answer, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		status, refusal := answer.Response.StatusCode, s.account.Refusal(answer.Body)
		out.Reason, out.Unprocessed = push.ReasonUnavailable, false
		if refusal != "" && status >= 400 && status < 500 && status != http.StatusTooManyRequests {
			out.Reason, out.Evidence = push.ReasonCredentials, push.EvidenceRefused
		}
		err = errors.New(strings.TrimSpace(fmt.Sprintf("the token endpoint answered %d %s", status, refusal)))
		if wrong := outbound.ClockError(answer.Response.Header.Get("Date"), now); wrong != nil {
			err = fmt.Errorf("%w; %w", err, wrong)
		}
	}
	out.Err = fmt.Errorf("no access token: %w", err)
	return out
}
