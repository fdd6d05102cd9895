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

// inFlight counts an app's deliveries under way and shares its places fairly.
// While there are free places, anybody takes one. When there are none, a source
// that has less than its share waits for the next, before all that have theirs;
// nobody else waits.
//
// Pushkeys that never had an accepted push, which anybody can make up, have at
// most half of the places, and share those among themselves.
type inFlight struct {
	mu       sync.Mutex
	places   int
	arrivals uint64    // waiters that there were
	accepted fairQueue // pushkeys that have had an accepted push
	others   fairQueue // pushkeys that never had one
}

// fairQueue are the sources that have or want places.
type fairQueue struct {
	taken   int
	sources map[string]int // places that a source has or waits for; never 0
	waiting []*waiter      // in their order, at most as many as places
}

type waiter struct {
	source  string
	number  uint64        // the lower, the longer it waits
	granted chan struct{} // closed with the place
}

func newInFlight() *inFlight {
	return &inFlight{accepted: fairQueue{sources: make(map[string]int)}, others: fairQueue{sources: make(map[string]int)}}
}

// resize is told how many places there are from now on.
func (f *inFlight) resize(places int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.places = places
	f.grant()
}

// acquire takes a place for source, or waits for one if that source has less
// than its share. It reports false if there is none.
func (f *inFlight) acquire(ctx context.Context, source string, accepted bool) bool {
	q, w := f.enter(source, accepted)
	if w == nil {
		return q != nil
	}
	timer := time.NewTimer(shareWait)
	defer timer.Stop()
	select {
	case <-w.granted:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.Index(q.waiting, w)
	if i < 0 {
		return true // granted in the same moment
	}
	q.waiting = slices.Delete(q.waiting, i, i+1)
	q.leave(source)
	return false
}

// enter takes a place at once, or returns whom to wait as. Without a queue there
// is no place.
func (f *inFlight) enter(source string, accepted bool) (*fairQueue, *waiter) {
	f.mu.Lock()
	defer f.mu.Unlock()
	q := f.queue(accepted)
	if f.free(q) && len(q.waiting) == 0 {
		q.taken++
		q.sources[source]++
		return q, nil
	}
	has, others := q.sources[source], len(q.sources)
	if has > 0 {
		others--
	}
	if share := max(1, f.limit(q)/(others+1)); has >= share || len(q.waiting) >= f.places {
		return nil, nil
	}
	f.arrivals++
	w := &waiter{source: source, number: f.arrivals, granted: make(chan struct{})}
	q.waiting = append(q.waiting, w)
	q.sources[source]++
	return q, w
}

// release gives a place back, or on to who waits for one.
func (f *inFlight) release(source string, accepted bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	q := f.queue(accepted)
	q.taken--
	q.leave(source)
	f.grant()
}

// grant gives free places to those who have waited longest.
func (f *inFlight) grant() {
	for {
		var next *fairQueue
		for _, q := range []*fairQueue{&f.accepted, &f.others} {
			if len(q.waiting) > 0 && f.free(q) && (next == nil || q.waiting[0].number < next.waiting[0].number) {
				next = q
			}
		}
		if next == nil {
			return
		}
		close(next.waiting[0].granted)
		next.waiting = slices.Delete(next.waiting, 0, 1)
		next.taken++
	}
}

func (f *inFlight) queue(accepted bool) *fairQueue {
	if accepted {
		return &f.accepted
	}
	return &f.others
}

// limit is the greatest number of places that all in q may have.
func (f *inFlight) limit(q *fairQueue) int {
	if q == &f.others {
		return (f.places + 1) / 2
	}
	return f.places
}

func (f *inFlight) free(q *fairQueue) bool {
	return f.accepted.taken+f.others.taken < f.places && q.taken < f.limit(q)
}

func (q *fairQueue) leave(source string) {
	if q.sources[source]--; q.sources[source] == 0 {
		delete(q.sources, source)
	}
}
