package validation

import (
	"context"
	"fmt"
	"time"
)

const (
	// remembered is how long an expired session answers that it has expired; then
	// nothing tells it from one that never was.
	remembered = 7 * 24 * time.Hour
	sweepEvery = 10 * time.Minute
	sweepBatch = 1000
)

// Sweep empties sessions that have expired, deletes those that expired seven days
// ago and forgets the wrong guesses of yesterday, in small steps that hold up
// nobody.
func (s *Sessions) Sweep(ctx context.Context) error {
	now := s.opts.Now()
	for _, step := range []struct {
		transition string
		until      time.Time
		do         func(context.Context, time.Time, int) (int, error)
	}{
		{expired, now, s.opts.Store.RetireSessions},
		{deleted, now.Add(-remembered), s.opts.Store.DeleteSessions},
		{"", now.Add(-today), s.opts.Store.ForgetGuesses},
	} {
		for n := sweepBatch; n == sweepBatch; {
			var err error
			if n, err = step.do(ctx, step.until, sweepBatch); err != nil {
				return fmt.Errorf("sweep validation sessions: %w", err)
			}
			if step.transition != "" {
				s.metrics.sessions.WithLabelValues(step.transition).Add(float64(n))
			}
		}
	}
	return nil
}

// Run sweeps at once and every ten minutes until ctx ends, which is no error. A
// sweep that fails is logged and made up for by the next.
func (s *Sessions) Run(ctx context.Context) error {
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for {
		if err := s.Sweep(ctx); err != nil && ctx.Err() == nil {
			s.opts.Log.ErrorContext(ctx, "validation sessions not swept", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}
