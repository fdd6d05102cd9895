package pushtest

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// maxRecorded is how many requests a recorder keeps: the first ones.
const maxRecorded = 10_000

// recorder counts what arrives at a fake and keeps it.
type recorder[T any] struct {
	discard bool
	total   atomic.Int64
	mu      sync.Mutex
	kept    []T
	changed chan struct{} // closed and replaced with each arrival
}

func newRecorder[T any](discard bool) *recorder[T] {
	return &recorder[T]{discard: discard, changed: make(chan struct{})}
}

func (r *recorder[T]) add(item T) {
	if r.discard {
		r.total.Add(1)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.total.Add(1)
	if len(r.kept) < maxRecorded {
		r.kept = append(r.kept, item)
	}
	close(r.changed)
	r.changed = make(chan struct{})
}

// Count implements Peer.
func (r *recorder[T]) Count() int { return int(r.total.Load()) }

// Requests returns the requests that arrived, in order: the first 10,000.
func (r *recorder[T]) Requests() []T {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.kept)
}

// Wait implements Peer. It is of no use when requests are discarded.
func (r *recorder[T]) Wait(ctx context.Context, n int) error {
	for {
		r.mu.Lock()
		count, changed := r.Count(), r.changed
		r.mu.Unlock()
		if count >= n {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// pause waits for d and reports true, or false when the client has gone or the
// fake ends before that.
func pause(ctx context.Context, d time.Duration, end <-chan struct{}) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	case <-end:
		return false
	}
}
