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

// Conformance (answers): an app at `max_in_flight` that a homeserver floods | the others' pushes get through, up to their share; the flood gets 503 (also TestSharesOfAnApp, TestSources)
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

func TestSharesOfAnApp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &service{hold: make(chan struct{}), script: make(map[string][]push.Outcome)}
		g := newGateway(t, prometheus.NewRegistry(), s, nil)
		a, b, c := homeserver{g, "a"}, homeserver{g, "b"}, homeserver{g, "c"}
		var wg sync.WaitGroup
		for i := range 10 { // alone, it may have everything
			wg.Go(func() { expect(t, "alone", a.post(t, 25*time.Second, fmt.Sprint("a", i))[0], sent) })
		}
		synctest.Wait()
		busy := func(what string, out push.Outcome) {
			t.Helper()
			if out.Kind != push.Temporary || out.Reason != push.ReasonBusy || out.RetryAfter <= 0 {
				t.Errorf("%s: %+v", what, out)
			}
		}
		start := time.Now()
		busy("more than everything", a.post(t, 25*time.Second, "a more")[0])
		if time.Since(start) != 0 {
			t.Error("who has its share waits")
		}
		for i := range 5 {
			wg.Go(func() { expect(t, "the second", b.post(t, 25*time.Second, fmt.Sprint("b", i))[0], sent) })
		}
		synctest.Wait()
		busy("more than the second's share", b.post(t, 25*time.Second, "b more")[0])
		start = time.Now()
		busy("a third whose time is over", c.post(t, time.Second, "c hurried")[0])
		if took := time.Since(start); took != time.Second {
			t.Errorf("it waited %s of its second", took)
		}
		close(s.hold)
		wg.Wait()

		s.hold = make(chan struct{})
		for i := range 10 {
			wg.Go(func() { a.post(t, 25*time.Second, fmt.Sprint("new a", i)) })
		}
		synctest.Wait()
		start = time.Now()
		busy("nobody makes room", c.post(t, 25*time.Second, "c patient")[0])
		if took := time.Since(start); took != 5*time.Second {
			t.Errorf("it waited %s", took)
		}
		close(s.hold)
		wg.Wait()
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

func TestSharesFollowAReload(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &service{delay: 3 * time.Second}
		g := newGateway(t, prometheus.NewRegistry(), s, nil)
		set := func(places int) {
			apps, err := push.NewApps([]push.App{{Name: "app", ProviderName: "apns", Provider: s, MaxInFlight: places}})
			if err != nil {
				t.Fatal(err)
			}
			g.SetApps(apps)
		}
		var wg sync.WaitGroup
		post := func(source string, want push.Reason) {
			wg.Go(func() {
				if out := (homeserver{g, source}).post(t, 25*time.Second, source)[0]; out.Reason != want {
					t.Errorf("%s: %+v", source, out)
				}
			})
			synctest.Wait()
		}
		for i := range 10 {
			post(fmt.Sprint("early ", i), push.ReasonSent)
		}
		set(4)
		post("late", push.ReasonSent) // when eight of the ten have ended, and one more
		post("later", push.ReasonSent)
		post("too late", push.ReasonBusy)
		wg.Wait()
		set(2)
		post("one", push.ReasonSent)
		post("two", push.ReasonSent)
		post("three", push.ReasonBusy)
		wg.Wait()
	})
}
