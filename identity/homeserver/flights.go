package homeserver

import (
	"context"
	"sync"
)

// flights coalesces concurrent lookups of one name. The first caller does the
// work in its own context; when that ends early, one of the waiting callers
// starts over. Unlike singleflight, no goroutine outlives its caller.
type flights struct {
	mu      sync.Mutex
	current map[string]*flight
}

type flight struct {
	done chan struct{}
	// These are written before done is closed.
	landed bool
	dest   Destination
	err    error
}

// do returns the outcome of lookup for key, its own or another caller's.
func (f *flights) do(ctx context.Context, key string, lookup func() (Destination, error)) (Destination, error) {
	for {
		current, first := f.board(key)
		if first {
			return f.fly(ctx, key, current, lookup)
		}
		select {
		case <-current.done:
		case <-ctx.Done():
			return Destination{}, context.Cause(ctx)
		}
		if current.landed {
			return current.dest, current.err
		}
	}
}

// board returns the flight for key, and whether the caller is to fly it.
func (f *flights) board(key string) (current *flight, first bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if current, ok := f.current[key]; ok {
		return current, false
	}
	if f.current == nil {
		f.current = make(map[string]*flight)
	}
	current = &flight{done: make(chan struct{})}
	f.current[key] = current
	return current, true
}

// fly looks up and lets those waiting know, also when lookup panics.
func (f *flights) fly(ctx context.Context, key string, own *flight, lookup func() (Destination, error)) (Destination, error) {
	defer func() {
		f.mu.Lock()
		delete(f.current, key)
		f.mu.Unlock()
		close(own.done)
	}()
	own.dest, own.err = lookup()
	own.landed = ctx.Err() == nil
	return own.dest, own.err
}
