package push

import (
	"context"
	"errors"
	"log/slog"
	"os"
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

// Shared is a Ledger in a Store that several processes share. What the process
// does itself its own Memory knows as well, so that it repeats nothing of its
// own while the store is away or slow, or when it comes back empty.
type Shared struct {
	store Store
	own   *Memory
	opts  SharedOptions

	away    atomic.Bool
	retryAt atomic.Int64 // in Unix nanoseconds; 0 while the store is there
}

// NewShared returns a Ledger in store and in own.
func NewShared(store Store, own *Memory, opts SharedOptions) (*Shared, error) {
	if opts.Budget <= 0 {
		return nil, errors.New("budget of the shared store: must be positive")
	}
	return &Shared{store: store, own: own, opts: opts}, nil
}

// Begin implements Ledger.
func (s *Shared) Begin(ctx context.Context, queries []Query) []Finding {
	own := s.own.Begin(ctx, queries)
	if s.due() {
		var findings []Finding
		err := s.call(ctx, callBegin, func(ctx context.Context) (err error) {
			findings, err = s.store.Begin(ctx, openQueries(queries, own))
			return err
		})
		if err == nil {
			return s.merge(ctx, queries, findings, own)
		}
	}
	s.opts.Metrics.ledger.fallbacks.Inc()
	for i := range own {
		own[i].own = true
	}
	return own
}

// End implements Ledger. What was begun in the store ends there if that is
// possible at all, because other processes wait for it.
func (s *Shared) End(ctx context.Context, results []Result) []Guard {
	var shared []Guard
	if len(results) > 0 && (!results[0].own || s.due()) {
		err := s.call(ctx, callEnd, func(ctx context.Context) (err error) {
			shared, err = s.store.End(ctx, results)
			return err
		})
		if err != nil {
			shared = nil
		}
	}
	for i := range results {
		r := &results[i]
		if !r.own {
			r.Rejection = Rejection{} // it belongs to the store's guard
		}
		if r.kept {
			s.own.abandon(&r.Query)
		}
	}
	if own := s.own.End(ctx, results); shared == nil {
		return own
	}
	return shared
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
	within, cancel := context.WithTimeout(ctx, s.opts.Budget)
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
	// The client's own timers may ring a moment before the context's.
	if within.Err() != nil || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		err = errStoreSlow
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

// openQueries returns queries without the events that another request of this
// process has: what that one holds in the store is not asked for a second time.
func openQueries(queries []Query, own []Finding) []Query {
	var open []Query
	for i, o := range own {
		if o.State != InFlight && o.State != Ended {
			continue
		}
		if open == nil {
			open = append(open, queries...)
		}
		open[i].Event = Key{}
	}
	if open == nil {
		return queries
	}
	return open
}

// merge adds to the store's findings what the process itself knows. The store
// decides about what is new here. But the process repeats nothing of its own:
// the store may have lost it, or not have been told.
func (s *Shared) merge(ctx context.Context, queries []Query, findings, own []Finding) []Finding {
	var untold []Result
	for i := range findings {
		f, o := &findings[i], &own[i]
		if r := o.Rejection; r.Known && r.Trips == o.Guard.Trips && !f.Rejection.Known {
			f.Rejection = Rejection{Known: true, PushKeyTS: r.PushKeyTS, Trips: f.Guard.Trips}
		}
		if f.Pause != o.Pause { // the other processes have the last word, also if the store goes away
			s.own.setPause(queries[i].Quota, f.Pause, time.Now())
		}
		switch {
		case queries[i].Event == Key{} || f.State == o.State:
			continue
		case o.State == Claimed && f.State == InFlight:
			f.kept = true // others of this process wait for this request alone
			continue
		case o.State == Claimed:
			s.own.End(ctx, []Result{{Query: queries[i], Held: true, Done: f.State == Delivered, Counts: f.Counts, Outcome: f.Outcome}})
			continue
		case o.State == Delivered:
			untold = append(untold, Result{Query: queries[i], Done: true, Counts: o.Counts})
		}
		f.State, f.Owner, f.Counts, f.Outcome = o.State, o.Owner, o.Counts, o.Outcome
	}
	if len(untold) > 0 { // an error is counted, and whoever asks next will tell
		_ = s.call(ctx, callEnd, func(ctx context.Context) error {
			_, err := s.store.End(ctx, untold)
			return err
		})
	}
	return findings
}
