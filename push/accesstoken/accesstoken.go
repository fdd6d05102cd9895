// Package accesstoken keeps the access token of an account with a push service
// fresh. It knows when a token is due, not how to get one.
package accesstoken

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/matrix-herald/herald/push"
)

const (
	defaultTimeout = 10 * time.Second
	defaultRetry   = time.Second
	// margin is how long before its end a token is renewed, a quarter of its life
	// at most.
	margin  = 5 * time.Minute
	maxLife = 24 * time.Hour
	// minAge is how old a token must be before the push service's refusal of it
	// leads to a new one.
	minAge = time.Minute
	// The backoff between failed requests starts with Options.Retry and doubles up
	// to maxRetry. For a refused account it starts higher, because only an operator
	// can mend that.
	maxRetry           = 5 * time.Minute
	refusedRetryFactor = 30
)

// Options configure a Source. All but Fetch have defaults.
type Options struct {
	// Fetch asks for a token and its life. Without one the outcome says what that
	// means for a push; its Err is what is logged.
	Fetch func(context.Context) (value string, life time.Duration, out push.Outcome)
	// Timeout bounds one request, default 10 s.
	Timeout time.Duration
	// Retry is the pause after a first failed request, default 1 s. It doubles with
	// each further one up to 5 min, and is 30 times as long when the account is
	// refused.
	Retry time.Duration
	Log   *slog.Logger     // default: discard
	Now   func() time.Time // default: time.Now
}

// Source keeps one access token fresh: it renews it ahead of time, and all pushes
// share one request. While there is no token and requests fail, pushes are told so
// at once; they do not wait in line, each for a request of its own.
type Source struct {
	opts     Options
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
// the first push. It needs a Close.
func New(opts Options) *Source {
	opts.Timeout = cmp.Or(opts.Timeout, defaultTimeout)
	opts.Retry = cmp.Or(opts.Retry, defaultRetry)
	opts.Log = cmp.Or(opts.Log, slog.New(slog.DiscardHandler))
	if opts.Now == nil {
		opts.Now = time.Now
	}
	s := &Source{opts: opts}
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

// unsent is what it means that a push ended without a token.
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
	ctx, cancel := context.WithTimeoutCause(s.ctx, s.opts.Timeout, errTimeout)
	defer cancel()
	value, life, out := s.opts.Fetch(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.fetching)
	s.fetching = nil
	now := s.opts.Now()
	if value != "" {
		life = min(life, maxLife)
		s.value, s.fetched, s.failures = value, now, 0
		s.expires, s.dueAt = now.Add(life-life/20), now.Add(life-min(margin, life/4))
		return
	}
	s.failure = out
	backoff, level := s.opts.Retry, slog.LevelWarn
	if out.Evidence == push.EvidenceRefused {
		backoff, level = backoff*refusedRetryFactor, slog.LevelError
	}
	backoff = min(backoff<<min(s.failures, 20), maxRetry)
	s.failures++
	s.dueAt = now.Add(backoff)
	if s.ctx.Err() == nil {
		s.opts.Log.Log(s.ctx, level, "no access token from the service account's token endpoint", "err", out.Err,
			"next_try_in", backoff, "valid_token_left", now.Before(s.expires))
	}
}
