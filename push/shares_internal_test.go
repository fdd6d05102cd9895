package push

import (
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
)

func TestSourcesAreForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const places = 10
		s := newShares()
		for i := range places {
			if !s.acquire(t.Context(), "flood", places, true) {
				t.Fatalf("no place %d", i)
			}
		}
		var wg sync.WaitGroup
		served := 0
		var mu sync.Mutex
		for i := range 1000 {
			wg.Go(func() {
				source := strconv.Itoa(i)
				if !s.acquire(t.Context(), source, places, true) {
					return
				}
				mu.Lock()
				served++
				mu.Unlock()
				s.release(source, places)
			})
		}
		synctest.Wait()
		if len(s.waiting) != places || len(s.sources) != places+1 {
			t.Errorf("%d wait, and %d sources are remembered", len(s.waiting), len(s.sources))
		}
		for range places {
			s.release("flood", places)
		}
		wg.Wait()
		if served != places || s.taken != 0 || len(s.waiting) != 0 || len(s.sources) != 0 {
			t.Errorf("%d were served; left: %d taken, %d wait, %d sources", served, s.taken, len(s.waiting), len(s.sources))
		}
	})
}
