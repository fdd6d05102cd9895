package homeserver

import (
	"context"
	"sync"
)

// flights coalesces concurrent lookups of what is found under one name. The first
// caller does the work in its own context; when that ends early, one of the waiting
// callers starts over, and none waits beyond its own. With singleflight a goroutine
// would outlive its caller, or callers their context.
type flights[V any] struct {
	mu      sync.Mutex
	current map[string]*flight[V]
}

type flight[V any] struct {
	done chan struct{}
	// These are written before done is closed.
	landed bool
	found  V
	err    error
}

// do returns the outcome of lookup for key, its own or another caller's.
func (f *flights[V]) do(ctx context.Context, key string, lookup func() (V, error)) (found V, err error) {
	for {
		current, first := f.board(key)
		if first {
			return f.fly(ctx, key, current, lookup)
		}
		select {
		case <-current.done:
		case <-ctx.Done():
			return found, context.Cause(ctx)
		}
		if current.landed {
			return current.found, current.err
		}
	}
}

// board returns the flight for key, and whether the caller is to fly it.
func (f *flights[V]) board(key string) (current *flight[V], first bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if current, ok := f.current[key]; ok {
		return current, false
	}
	if f.current == nil {
		f.current = make(map[string]*flight[V])
	}
	current = &flight[V]{done: make(chan struct{})}
	f.current[key] = current
	return current, true
}

// fly looks up and lets those waiting know, also when lookup panics.
func (f *flights[V]) fly(ctx context.Context, key string, own *flight[V], lookup func() (V, error)) (V, error) {
	defer func() {
		f.mu.Lock()
		delete(f.current, key)
		f.mu.Unlock()
		close(own.done)
	}()
	own.found, own.err = lookup()
	own.landed = ctx.Err() == nil
	return own.found, own.err
}
