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

func fairly(o *push.Options) { o.FairShare = true }

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

func TestAFloodLeavesOthersTheirShare(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &service{delay: 100 * time.Millisecond}
		g := newGateway(t, prometheus.NewRegistry(), s, fairly) // ten places
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
		g := newGateway(t, prometheus.NewRegistry(), s, fairly)
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
			wg.Go(func() { a.post(t, 25*time.Second, fmt.Sprint("a", i)) })
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

// Requests with many devices hold places while they wait for more.
func TestSharesDoNotDeadlock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &service{delay: 100 * time.Millisecond}
		g := newGateway(t, prometheus.NewRegistry(), s, fairly)
		var many [8]string
		for i := range many {
			many[i] = fmt.Sprint("device ", i)
		}
		start := time.Now()
		var wg sync.WaitGroup
		for _, name := range []string{"a", "b", "c"} {
			wg.Go(func() {
				outs := homeserver{g, name}.post(t, 25*time.Second, many[:]...)
				expect(t, name+"'s first device", outs[0], sent)
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

func TestSharesFollowAReload(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &service{delay: 3 * time.Second}
		g := newGateway(t, prometheus.NewRegistry(), s, fairly)
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
		set(2)
		post("late", push.ReasonSent) // when eight of the ten have ended, and one more
		post("later", push.ReasonSent)
		post("too late", push.ReasonBusy)
		wg.Wait()
		set(1)
		post("one", push.ReasonSent)
		post("two", push.ReasonSent)
		post("three", push.ReasonBusy)
		wg.Wait()
	})
}
