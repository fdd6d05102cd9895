package push

import (
	"context"
	"slices"
	"sync"
	"time"
)

// shareWait is how long a delivery waits for its source's share. What is in
// flight mostly ends within tens of milliseconds.
const shareWait = 5 * time.Second

// shares divides an app's places among the sources that post to it. While there
// are free places, anybody takes one. When there are none, a source that has less
// than its share waits for the next, before all that have theirs; nobody else
// waits.
type shares struct {
	mu      sync.Mutex
	taken   int
	sources map[string]int // places that a source has or waits for; never 0
	waiting []*waiter      // in their order, at most as many as places
}

type waiter struct {
	source  string
	granted chan struct{} // closed with the place
}

func newShares() *shares { return &shares{sources: make(map[string]int)} }

// acquire takes one of places for source. It waits, if at all, within ctx, and
// only where patient: who waits must not hold what others wait for.
func (s *shares) acquire(ctx context.Context, source string, places int, patient bool) bool {
	w := s.enter(source, places, patient)
	if w == nil || w.granted == nil {
		return w != nil
	}
	timer := time.NewTimer(shareWait)
	defer timer.Stop()
	select {
	case <-w.granted:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.waiting, w)
	if i < 0 {
		return true // granted in the same moment
	}
	s.waiting = slices.Delete(s.waiting, i, i+1)
	s.leave(source)
	return false
}

// enter returns nil when there is no place, and a waiter without a channel when
// there is one.
func (s *shares) enter(source string, places int, patient bool) *waiter {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken < places && len(s.waiting) == 0 {
		s.taken++
		s.sources[source]++
		return &waiter{}
	}
	has, others := s.sources[source], len(s.sources)
	if has > 0 {
		others--
	}
	if share := max(1, places/(others+1)); has >= share || !patient || len(s.waiting) >= places {
		return nil
	}
	w := &waiter{source: source, granted: make(chan struct{})}
	s.waiting = append(s.waiting, w)
	s.sources[source]++
	return w
}

// release gives a place of source back, or on to who waits for one.
func (s *shares) release(source string, places int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leave(source)
	s.taken--
	for s.taken < places && len(s.waiting) > 0 {
		close(s.waiting[0].granted)
		s.waiting = slices.Delete(s.waiting, 0, 1)
		s.taken++
	}
}

func (s *shares) leave(source string) {
	if s.sources[source]--; s.sources[source] == 0 {
		delete(s.sources, source)
	}
}
