package push_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/push"
)

// store is a shared store in the test's memory that can be away.
type store struct {
	*push.Memory

	mu    sync.Mutex
	down  func(ctx context.Context) error // nil while it is there
	calls int
}

var errRefused = errors.New("connection refused")

func refuse(context.Context) error { return errRefused }

// hang is a store behind a black hole.
func hang(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func (s *store) set(down func(context.Context) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

func (s *store) call(ctx context.Context) error {
	s.mu.Lock()
	s.calls++
	down := s.down
	s.mu.Unlock()
	if down == nil {
		return nil
	}
	return down(ctx)
}

func (s *store) called() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

func (s *store) Begin(ctx context.Context, queries []push.Query) ([]push.Finding, error) {
	if err := s.call(ctx); err != nil {
		return nil, err
	}
	return s.Memory.Begin(ctx, queries), nil
}

func (s *store) End(ctx context.Context, results []push.Result) ([]push.Guard, error) {
	if err := s.call(ctx); err != nil {
		return nil, err
	}
	return s.Memory.End(ctx, results), nil
}

// replica is one of the processes that share a store.
type replica struct {
	*push.Gateway
	*service
	reg *prometheus.Registry
	log bytes.Buffer
}

func newReplica(t *testing.T, st push.Store) *replica {
	t.Helper()
	r := &replica{service: &service{script: make(map[string][]push.Outcome)}, reg: prometheus.NewRegistry()}
	metrics := push.NewMetrics(r.reg, false)
	log := slog.New(slog.NewTextHandler(&r.log, nil))
	shared, err := push.NewShared(st, newMemory(t, push.DefaultTerms()), push.SharedOptions{Budget: 50 * time.Millisecond, Log: log, Metrics: metrics})
	if err != nil {
		t.Fatal(err)
	}
	r.Gateway = newGateway(t, prometheus.NewRegistry(), r.service, func(o *push.Options) { o.Ledger, o.Metrics, o.Log = shared, metrics, log })
	return r
}

func (r *replica) deliver(t *testing.T, id, pushKey string) push.Outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second)
	defer cancel()
	return r.Deliver(ctx, event(id), devices(pushKey))[0]
}

func expect(t *testing.T, what string, got, want push.Outcome) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %+v, want %+v", what, got, want)
	}
}

func TestReplicasShareWhatTheyKnow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := &store{Memory: newMemory(t, push.DefaultTerms())}
		a, b := newReplica(t, st), newReplica(t, st)
		expect(t, "the event", a.deliver(t, "$1", "k"), sent)
		expect(t, "the event at the other one", b.deliver(t, "$1", "k"), duplicate)
		a.script["dead"] = []push.Outcome{gone}
		expect(t, "a dead pushkey", a.deliver(t, "$1", "dead"), gone)
		expect(t, "the dead pushkey at the other one", b.deliver(t, "$2", "dead"), remembered)
		b.script["bad"] = []push.Outcome{badToken}
		expect(t, "a wrong pushkey at the one that has not had an accepted push", b.deliver(t, "$1", "bad"), badToken)
		if n := count(t, a.reg, "herald_push_store_fallbacks_total", "", ""); n != 0 {
			t.Errorf("%v fallbacks", n)
		}
	})
}

func TestARequestAsksTheStoreTwice(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := &store{Memory: newMemory(t, push.DefaultTerms())}
		a := newReplica(t, st)
		a.script["c"] = []push.Outcome{gone}
		a.script["d"] = []push.Outcome{unavailable}
		a.Deliver(t.Context(), event("$1"), devices("a", "b", "c", "d", "e"))
		if n := st.called(); n != 2 {
			t.Errorf("%d calls for five devices, want 2", n)
		}
	})
}

func TestAStoreThatIsAwayStopsNothing(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		down func(context.Context) error
		took time.Duration // of the first request
	}{"refusing": {refuse, 0}, "a black hole": {hang, 50 * time.Millisecond}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				st := &store{Memory: newMemory(t, push.DefaultTerms())}
				a := newReplica(t, st)
				expect(t, "before", a.deliver(t, "$0", "k"), sent)
				st.set(tt.down)
				start := time.Now()
				expect(t, "an event", a.deliver(t, "$1", "k"), sent)
				if took := time.Since(start); took != tt.took {
					t.Errorf("took %s, want %s", took, tt.took)
				}
				calls := st.called()
				start = time.Now()
				for range 10 {
					expect(t, "the event again", a.deliver(t, "$1", "k"), duplicate)
				}
				if time.Since(start) != 0 || st.called() != calls {
					t.Errorf("the store was asked %d times more", st.called()-calls)
				}
				<-time.After(3 * time.Second)
				expect(t, "another event", a.deliver(t, "$2", "k"), sent)
				if n := strings.Count(a.log.String(), "the shared store is away"); n != 1 {
					t.Errorf("logged %d times:\n%s", n, &a.log)
				}
				if count(t, a.reg, "herald_push_store_away", "", "") != 1 || count(t, a.reg, "herald_push_store_errors_total", "call", "begin") != 2 ||
					count(t, a.reg, "herald_push_store_fallbacks_total", "", "") != 12 {
					t.Error("the metrics do not say so")
				}

				st.set(nil)
				<-time.After(2 * time.Second)
				expect(t, "what was pushed while it was away, when it is back", a.deliver(t, "$1", "k"), duplicate)
				b := newReplica(t, st)
				expect(t, "the same at another replica, now that the store knows", b.deliver(t, "$1", "k"), duplicate)
				if !strings.Contains(a.log.String(), "the shared store is back") || count(t, a.reg, "herald_push_store_away", "", "") != 0 {
					t.Errorf("nobody is told that it is back:\n%s", &a.log)
				}
			})
		})
	}
}

func TestAStoreThatDiesDuringARequest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := &store{Memory: newMemory(t, push.DefaultTerms())}
		a := newReplica(t, st)
		a.delay = time.Second
		a.script["down"] = []push.Outcome{unavailable}
		var wg sync.WaitGroup
		wg.Go(func() { a.Deliver(t.Context(), event("$1"), devices("up", "down")) })
		synctest.Wait()
		st.set(refuse)
		wg.Wait()
		expect(t, "what was delivered", a.deliver(t, "$1", "up"), duplicate)
		expect(t, "what failed", a.deliver(t, "$1", "down"), sent)

		st.set(nil)
		<-time.After(2 * time.Second)
		// The store still has the claim of the request that it did not see end.
		expect(t, "what was delivered, with the store back", a.deliver(t, "$1", "up"), duplicate)
		expect(t, "what failed first, with the store back", a.deliver(t, "$1", "down"), duplicate)
		if n := len(a.attempts("up")); n != 1 {
			t.Errorf("%d pushes of what was delivered", n)
		}
	})
}

func TestADeliveryUnderWayWhenTheStoreComesBackIsWaitedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := &store{Memory: newMemory(t, push.DefaultTerms()), down: refuse}
		a := newReplica(t, st)
		a.delay = 5 * time.Second
		a.script["dead"] = []push.Outcome{gone}
		a.deliver(t, "$0", "dead")
		var wg sync.WaitGroup
		wg.Go(func() { expect(t, "the first", a.deliver(t, "$1", "k"), sent) })
		synctest.Wait()
		st.set(nil)
		<-time.After(2 * time.Second)
		expect(t, "the second", a.deliver(t, "$1", "k"), duplicate)
		wg.Wait()
		if n := len(a.attempts("k")); n != 1 {
			t.Errorf("%d pushes", n)
		}
		expect(t, "a pushkey that was rejected while the store was away", a.deliver(t, "$2", "dead"), remembered)
		events, _ := st.Len()
		if events != 1 {
			t.Errorf("the store holds %d events, want the delivered one and no claim", events)
		}
	})
}

func TestARequestThatWaitsWhenTheStoreDiesGoesOnWaiting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := &store{Memory: newMemory(t, push.DefaultTerms())}
		a := newReplica(t, st)
		a.delay = 5 * time.Second
		var wg sync.WaitGroup
		wg.Go(func() { expect(t, "the first", a.deliver(t, "$1", "k"), sent) })
		synctest.Wait()
		wg.Go(func() { expect(t, "the second", a.deliver(t, "$1", "k"), duplicate) })
		<-time.After(time.Second)
		st.set(refuse)
		wg.Wait()
		if n := len(a.attempts("k")); n != 1 {
			t.Errorf("%d pushes", n)
		}
	})
}

func TestOneRequestOfAProcessWaitsForTheOtherProcess(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := &store{Memory: newMemory(t, push.DefaultTerms())}
		a, b := newReplica(t, st), newReplica(t, st)
		a.delay = 5 * time.Second
		a.script["k"] = []push.Outcome{unavailable}
		var wg sync.WaitGroup
		wg.Go(func() { expect(t, "the first", a.deliver(t, "$1", "k"), unavailable) })
		synctest.Wait()
		want := push.Outcome{Kind: push.Temporary, Reason: push.ReasonUnavailable, RetryAfter: unavailable.RetryAfter}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		wg.Go(func() { // gives up, which must not hold up the others
			if out := b.Deliver(short, event("$1"), devices("k"))[0]; out.Reason != push.ReasonInFlight {
				t.Errorf("the impatient one: %+v", out)
			}
		})
		synctest.Wait()
		start := time.Now()
		for range 3 {
			wg.Go(func() { expect(t, "one of three others", b.deliver(t, "$1", "k"), want) })
		}
		wg.Wait()
		if took := time.Since(start); took > 6*time.Second {
			t.Errorf("took %s", took)
		}
		if n := len(a.attempts("k")) + len(b.attempts("k")); n != 1 {
			t.Errorf("%d pushes", n)
		}
	})
}

func TestAStoreThatForgetsEverythingMakesNobodyRepeatThemselves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := &store{Memory: newMemory(t, push.DefaultTerms())}
		a := newReplica(t, st)
		a.delay = 5 * time.Second
		expect(t, "the first", a.deliver(t, "$1", "k"), sent)
		var wg sync.WaitGroup
		wg.Go(func() { expect(t, "the second", a.deliver(t, "$2", "k"), sent) })
		synctest.Wait()
		st.Memory = newMemory(t, push.DefaultTerms())
		expect(t, "the first again", a.deliver(t, "$1", "k"), duplicate)
		expect(t, "the second again", a.deliver(t, "$2", "k"), duplicate)
		wg.Wait()
		expect(t, "the first at another replica", newReplica(t, st).deliver(t, "$1", "k"), duplicate)
		if n := len(a.attempts("k")); n != 2 {
			t.Errorf("%d pushes", n)
		}
	})
}

// A request whose own time is over says nothing about the store.
func TestAnEndedRequestDoesNotBlameTheStore(t *testing.T) {
	t.Parallel()
	st := &store{Memory: newMemory(t, push.DefaultTerms()), down: hang}
	a := newReplica(t, st)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	a.Deliver(ctx, event("$1"), devices("k"))
	if n := count(t, a.reg, "herald_push_store_errors_total", "call", "begin"); n != 0 {
		t.Error("it is counted as away")
	}
}

func TestNewSharedRefusesNoBudget(t *testing.T) {
	t.Parallel()
	if _, err := push.NewShared(&store{}, newMemory(t, push.DefaultTerms()), push.SharedOptions{}); err == nil {
		t.Error("no error")
	}
}
