package fcm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

const (
	// maxTokenAnswer bounds the token endpoint's answer, in bytes.
	maxTokenAnswer = 64 << 10
	// tokenMargin is how long before its end an access token is renewed, a
	// quarter of its life at most.
	tokenMargin = 5 * time.Minute
	// tokenMinAge is how old a token must be before FCM's refusal of it leads
	// to a new one.
	tokenMinAge = time.Minute
	// Back-off between failed token requests: it starts with
	// Options.TokenRetry and doubles up to maxTokenRetry. A refused account
	// starts higher, because only an operator can mend it.
	maxTokenRetry   = 5 * time.Minute
	refusedTimesMin = 30
)

// tokens keeps one service account's access token fresh. A single goroutine,
// run, asks the token endpoint; any number of deliveries wait for it, each for
// as long as its own context lasts. The SDK's own source would serialise them,
// each waiting for the one before.
type tokens struct {
	account account
	client  *http.Client
	timeout time.Duration // of one request
	retry   time.Duration // the first back-off
	log     *slog.Logger
	now     func() time.Time
	wake    chan struct{} // capacity 1: somebody misses a token
	stopped <-chan struct{}

	mu       sync.Mutex
	value    string
	fetched  time.Time
	expires  time.Time
	err      error         // of the last request, nil after a good one
	retryAt  time.Time     // until then err is the answer
	failures int           // requests that failed in a row
	changed  chan struct{} // closed after each request
}

var errStopped = errors.New("the provider is closed")

// get returns a valid access token. Without one it waits for the request that
// is under way; in the pause after a failed one it returns that failure, a
// *tokenError, at once.
func (t *tokens) get(ctx context.Context) (string, error) {
	for {
		t.mu.Lock()
		now := t.now()
		value, valid := t.value, now.Before(t.expires)
		err, pausing := t.err, now.Before(t.retryAt)
		changed := t.changed
		t.mu.Unlock()
		switch {
		case valid:
			return value, nil
		case err != nil && pausing:
			return "", err
		}
		select {
		case t.wake <- struct{}{}:
		default:
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return "", fmt.Errorf("wait for an access token: %w", context.Cause(ctx))
		case <-t.stopped:
			return "", errStopped
		}
	}
}

// refused is told that FCM does not take value. It is given up, unless it is so
// new that another one would fare no better.
func (t *tokens) refused(value string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if value == t.value && t.now().Sub(t.fetched) >= tokenMinAge {
		t.expires = time.Time{}
	}
}

// run asks for a token at once and whenever the one it has nears its end, until
// ctx ends.
func (t *tokens) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-t.wake:
			if !t.missing() {
				continue
			}
		}
		timer.Reset(t.refresh(ctx))
	}
}

// missing reports whether there is no valid token and no pause.
func (t *tokens) missing() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	return !now.Before(t.expires) && !now.Before(t.retryAt)
}

// refresh makes one request and returns how long to wait before the next.
func (t *tokens) refresh(ctx context.Context) time.Duration {
	value, life, err := t.request(ctx)
	if ctx.Err() != nil {
		return 0
	}

	t.mu.Lock()
	defer t.mu.Unlock()
	defer func() {
		close(t.changed)
		t.changed = make(chan struct{})
	}()
	now := t.now()
	if err == nil {
		t.value, t.fetched, t.expires = value, now, now.Add(life-life/20)
		t.err, t.retryAt, t.failures = nil, time.Time{}, 0
		return life - min(tokenMargin, life/4)
	}

	pause := min(t.retry<<min(t.failures, 20), maxTokenRetry)
	failure := &tokenError{err: err}
	if answer, ok := errors.AsType[*tokenAnswer](err); ok && answer.refusal() {
		pause = min(t.retry*refusedTimesMin<<min(t.failures, 20), maxTokenRetry)
		failure.refused = true
	}
	t.failures++
	t.retryAt = now.Add(pause)
	failure.retryAt = t.retryAt
	t.err = failure
	level := slog.LevelWarn
	if failure.refused {
		level = slog.LevelError
	}
	t.log.Log(ctx, level, "no access token from the service account's token endpoint", "err", err,
		"next_try_in", pause, "valid_token_left", now.Before(t.expires))
	return pause
}

var errTokenTimeout = errors.New("the token endpoint took longer than the timeout of its request")

// request exchanges an assertion for an access token and its life.
func (t *tokens) request(ctx context.Context) (value string, life time.Duration, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, t.timeout, errTokenTimeout)
	defer cancel()
	assertion, err := t.account.assertion(t.now())
	if err != nil {
		return "", 0, fmt.Errorf("sign the assertion of the service account: %w", err)
	}
	form := url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {assertion}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.account.tokenURL, strings.NewReader(form.Encode()))
	if err != nil {
		return "", 0, fmt.Errorf("ask for an access token: %w", err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := t.client.Do(req)
	if err != nil {
		return "", 0, fmt.Errorf("ask for an access token: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxTokenAnswer))
	if err != nil {
		return "", 0, fmt.Errorf("read the token endpoint's answer: %w", err)
	}
	var answer struct {
		AccessToken string `json:"access_token"`
		ExpiresIn   int64  `json:"expires_in"` // seconds
		Error       string `json:"error"`
	}
	jsonErr := json.Unmarshal(body, &answer)
	if resp.StatusCode != http.StatusOK {
		return "", 0, &tokenAnswer{resp.StatusCode, oauthCode(answer.Error)}
	}
	if jsonErr != nil || answer.AccessToken == "" || strings.ContainsAny(answer.AccessToken, "\r\n") || answer.ExpiresIn <= 0 {
		return "", 0, &tokenAnswer{resp.StatusCode, "without an access token"}
	}
	return answer.AccessToken, time.Duration(min(answer.ExpiresIn, 24*3600)) * time.Second, nil
}

// tokenAnswer is an answer of the token endpoint that brings no token.
type tokenAnswer struct {
	status int
	code   string // OAuth's error, such as invalid_grant
}

func (a *tokenAnswer) Error() string {
	return strings.TrimSpace(fmt.Sprintf("the token endpoint answered %d %s", a.status, a.code))
}

// refusal reports whether the answer is about the account rather than about the
// state of the endpoint.
func (a *tokenAnswer) refusal() bool {
	return a.status >= 400 && a.status < 500 && a.status != http.StatusTooManyRequests
}

// tokenError is why there is no access token.
type tokenError struct {
	err     error
	refused bool      // the account itself is refused
	retryAt time.Time // when the next request is due
}

func (e *tokenError) Error() string { return "no access token: " + e.err.Error() }
func (e *tokenError) Unwrap() error { return e.err }

// wait is how long to leave the push service alone, at least a second.
func (e *tokenError) wait(now time.Time) time.Duration {
	return max(time.Second, e.retryAt.Sub(now))
}
