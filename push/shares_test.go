package push_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/push"
)

// homeserver posts notifications from an address of its own.
type homeserver struct {
	g    *push.Gateway
	name string
}

func (h homeserver) post(t *testing.T, within time.Duration, pushKeys ...string) []push.Outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	return h.g.Deliver(ctx, &push.Notification{Source: h.name}, devices(pushKeys...))
}

// Conformance (answers): an app at `concurrency` that a homeserver floods | the others' pushes get through, up to their share; the flood gets 503 (also TestInFlight, TestSources)
func TestAFloodLeavesOthersTheirShare(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &service{delay: 100 * time.Millisecond}
		g := newGateway(t, prometheus.NewRegistry(), s, nil) // ten places for pushkeys that never had a push
		var flood sync.WaitGroup
		over := make(chan struct{})
		var mu sync.Mutex
		got := make(map[push.Reason]int)
		for i := range 30 {
			flood.Go(func() {
				for {
					out := homeserver{g, "flood"}.post(t, 25*time.Second, fmt.Sprint("flood ", i))[0]
					mu.Lock()
					got[out.Reason]++
					mu.Unlock()
					select {
					case <-over:
						return
					case <-time.After(10 * time.Millisecond):
					}
				}
			})
		}
		<-time.After(time.Second)
		var other sync.WaitGroup
		for i := range 5 { // no more at once than its share
			other.Go(func() {
				for range 20 {
					start := time.Now()
					expect(t, "the other homeserver", homeserver{g, "other"}.post(t, 25*time.Second, fmt.Sprint("other ", i))[0], sent)
					if took := time.Since(start); took > 300*time.Millisecond {
						t.Errorf("it took %s", took)
					}
				}
			})
		}
		other.Wait()
		close(over)
		flood.Wait()
		// The places are never idle.
		if got[push.ReasonSent] < 5*20 || got[push.ReasonBusy] == 0 {
			t.Errorf("the flood got %v", got)
		}
	})
}

// Each device of a request takes a place for itself: none waits for another.
func TestRequestsWithManyDevicesShare(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &service{delay: 100 * time.Millisecond}
		g := newGateway(t, prometheus.NewRegistry(), s, nil)
		var many [8]string
		for i := range many {
			many[i] = fmt.Sprint("device ", i)
		}
		start := time.Now()
		var wg sync.WaitGroup
		for _, name := range []string{"a", "b", "c"} {
			wg.Go(func() {
				n := 0
				for _, out := range (homeserver{g, name}).post(t, 25*time.Second, many[:]...) {
					if out == sent {
						n++
					}
				}
				if n < 3 {
					t.Errorf("%s got %d pushes out, want its share of ten at least", name, n)
				}
			})
		}
		wg.Wait()
		if took := time.Since(start); took > 300*time.Millisecond {
			t.Errorf("took %s", took)
		}
		// All places are free again.
		for _, out := range (homeserver{g, "d"}).post(t, 25*time.Second, many[:]...) {
			expect(t, "afterwards", out, sent)
		}
	})
}

// Whoever makes up pushkeys takes no place from those that had a push.
//
// Conformance (answers): pushkeys that never had an accepted push, whoever posts for them | half of an app's places at most
// Conformance (attacks): 40 requests a second of a hundred made-up tokens each, from forty addresses, at 150 ms | places are shared by source; made-up pushkeys have half of them (also TestAFloodLeavesOthersTheirShare)
func TestMadeUpPushkeysHaveHalfOfThePlaces(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &service{}
		g := newGateway(t, prometheus.NewRegistry(), s, nil)
		var phones [10]string
		for i := range phones {
			phones[i] = fmt.Sprint("phone ", i)
		}
		homeserver{g, "honest"}.post(t, time.Second, phones[:]...)
		s.delay = time.Second
		var wg sync.WaitGroup
		for source := range 30 { // each with an address of its own
			wg.Go(func() {
				var made [100]string
				for i := range made {
					made[i] = fmt.Sprint("made up ", source, i)
				}
				homeserver{g, fmt.Sprint("stranger ", source)}.post(t, 25*time.Second, made[:]...)
			})
		}
		synctest.Wait()
		start := time.Now()
		for _, out := range (homeserver{g, "honest"}).post(t, 25*time.Second, phones[:]...) {
			expect(t, "a phone", out, sent)
		}
		if took := time.Since(start); took != time.Second {
			t.Errorf("ten phones took %s, want the push service's second", took)
		}
		wg.Wait()
	})
}
