package push

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"
)

// storePause is how long a Store that failed is left alone, so that not every
// request waits for what is not there.
const storePause = time.Second

var errStoreSlow = errors.New("the shared store did not answer within its budget")

// SharedOptions configure a Shared.
type SharedOptions struct {
	// Budget is how long a request waits for the store, before and after the
	// push services.
	Budget  time.Duration
	Log     *slog.Logger
	Metrics *Metrics
}

// Shared is a Ledger in a Store that several processes share. While the store
// is away or slow, the process's own Memory stands in; what that learnt then
// counts as long as it is remembered.
type Shared struct {
	store Store
	own   *Memory
	opts  SharedOptions

	away    atomic.Bool
	retryAt atomic.Int64 // in Unix nanoseconds; 0 while the store is there
	// until is the time, in Unix nanoseconds, up to which own may know what
	// the store does not.
	until atomic.Int64
}

// NewShared returns a Ledger in store, with own to stand in.
func NewShared(store Store, own *Memory, opts SharedOptions) (*Shared, error) {
	if opts.Budget <= 0 {
		return nil, errors.New("budget of the shared store: must be positive")
	}
	return &Shared{store: store, own: own, opts: opts}, nil
}

// Begin implements Ledger.
func (s *Shared) Begin(ctx context.Context, queries []Query) []Finding {
	if s.due() {
		var findings []Finding
		err := s.call(ctx, callBegin, func(ctx context.Context) (err error) {
			findings, err = s.store.Begin(ctx, queries)
			return err
		})
		if err == nil && !s.standsIn() {
			return findings
		}
		if err == nil {
			return s.merge(ctx, queries, findings)
		}
	}
	s.opts.Metrics.ledger.fallbacks.Inc()
	s.standIn()
	findings := s.own.Begin(ctx, queries)
	for i := range findings {
		findings[i].own = true
	}
	return findings
}

// End implements Ledger. What was begun in the store ends there if that is
// possible at all, because other processes wait for it.
func (s *Shared) End(ctx context.Context, results []Result) []Guard {
	if len(results) > 0 && (!results[0].own || s.due()) {
		var guards []Guard
		err := s.call(ctx, callEnd, func(ctx context.Context) (err error) {
			guards, err = s.store.End(ctx, results)
			return err
		})
		if err == nil && !s.standsIn() {
			return guards
		}
		if err == nil {
			s.own.End(ctx, results)
			return guards
		}
	}
	s.standIn()
	return s.own.End(ctx, results)
}

// due reports whether to ask the store. Of the requests that come when a pause
// ends, one finds out whether the store is back.
func (s *Shared) due() bool {
	at := s.retryAt.Load()
	if at == 0 {
		return true
	}
	now := time.Now()
	return now.UnixNano() >= at && s.retryAt.CompareAndSwap(at, now.Add(storePause).UnixNano())
}

func (s *Shared) call(ctx context.Context, call storeCall, do func(context.Context) error) error {
	within, cancel := context.WithTimeoutCause(ctx, s.opts.Budget, errStoreSlow)
	defer cancel()
	err := do(within)
	switch {
	case err == nil:
		if s.retryAt.Load() != 0 {
			s.retryAt.Store(0)
			s.opts.Metrics.ledger.away.Set(0)
			if s.away.Swap(false) {
				s.opts.Log.InfoContext(ctx, "the shared store is back")
			}
		}
		return nil
	case ctx.Err() != nil: // the request's time is over, which says nothing about the store
		return err
	}
	if within.Err() != nil {
		err = context.Cause(within)
	}
	s.retryAt.Store(time.Now().Add(storePause).UnixNano())
	s.opts.Metrics.ledger.errors.WithLabelValues(string(call)).Inc()
	s.opts.Metrics.ledger.away.Set(1)
	if !s.away.Swap(true) {
		s.opts.Log.WarnContext(ctx, "the shared store is away: until it is back each process remembers by itself, "+
			"and duplicates that reach different ones are pushed twice", "err", err)
	}
	return err
}

func (s *Shared) standsIn() bool {
	until := s.until.Load()
	return until != 0 && time.Now().UnixNano() < until
}

func (s *Shared) standIn() {
	s.until.Store(time.Now().Add(max(s.own.terms.Lifetime, s.own.terms.RejectionLifetime)).UnixNano())
}

// merge adds to the store's findings what own learnt while the store was away.
// A claim that only one of the two grants is given back, and what the process
// has delivered the store is told: it may still hold the claim of a request
// whose end did not reach it.
func (s *Shared) merge(ctx context.Context, queries []Query, findings []Finding) []Finding {
	var back []Result
	for i, own := range s.own.Begin(ctx, queries) {
		f := &findings[i]
		if r := own.Rejection; r.Known && r.Trips == own.Guard.Trips && !f.Rejection.Known {
			f.Rejection = Rejection{Known: true, PushKeyTS: r.PushKeyTS, Trips: f.Guard.Trips}
		}
		if queries[i].Event == (Key{}) || f.State == own.State {
			continue
		}
		release := Result{Query: queries[i], Held: true, Outcome: own.Outcome}
		if f.State != Claimed && own.State != Delivered {
			s.own.End(ctx, []Result{release})
			continue
		}
		release.Done, release.Counts = own.State == Delivered, own.Counts
		back = append(back, release)
		f.State, f.Owner, f.Counts, f.Outcome = own.State, own.Owner, own.Counts, own.Outcome
	}
	if len(back) > 0 { // an error is counted, and the claims are leases
		_ = s.call(ctx, callEnd, func(ctx context.Context) error {
			_, err := s.store.End(ctx, back)
			return err
		})
	}
	return findings
}
