// Package threepidtest provides an SMTP relay and an HTTP gateway for text
// messages to tests, both in-process on 127.0.0.1. They keep the messages they
// get and misbehave on request. They send nothing.
package threepidtest

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"
)

// patience is how long a test waits for something that should happen at once.
const patience = 10 * time.Second

// journal is a list that can be waited for.
type journal[T any] struct {
	mu      sync.Mutex
	entries []T
	grown   chan struct{} // closed and replaced when the list grows
}

func newJournal[T any]() *journal[T] { return &journal[T]{grown: make(chan struct{})} }

func (j *journal[T]) add(entry T) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.entries = append(j.entries, entry)
	close(j.grown)
	j.grown = make(chan struct{})
}

func (j *journal[T]) all() []T {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.entries)
}

// wait returns the list once it has n entries. It ends the test if that takes
// too long.
func (j *journal[T]) wait(t testing.TB, n int) []T {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		j.mu.Lock()
		entries, grown := slices.Clone(j.entries), j.grown
		j.mu.Unlock()
		if len(entries) >= n {
			return entries
		}
		select {
		case <-grown:
		case <-ctx.Done():
			t.Fatalf("%d of %d arrived", len(entries), n)
		}
	}
}

// pause waits for d, until the channel until is closed (nil: not at all), or
// until stop is closed.
func pause(d time.Duration, until, stop <-chan struct{}) {
	if d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-stop:
		}
	}
	if until != nil {
		select {
		case <-until:
		case <-stop:
		}
	}
}
