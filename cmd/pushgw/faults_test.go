package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"
)

const (
	// faultsEnv makes TestFaults go on for that long; without it each fault is
	// met once.
	faultsEnv = "HERALD_FAULTS"
	// seedEnv repeats the choices of another run.
	seedEnv = "HERALD_FAULTS_SEED"
	// roundDeadline is when a notification that is not answered for is lost.
	roundDeadline = 3 * time.Minute
	// pushersOfEach is how many living devices each push service has in a round.
	pushersOfEach = 3
)

// fault is something that goes wrong under load.
type fault struct {
	name string
	// answer is how push services answer to living devices; nil takes all.
	answer func(*event) reply
	// play makes it happen. It returns when it is over.
	play func(*round)
}

// round is a fleet under load while one fault is played.
type round struct {
	*testing.T
	*fleet
	ctx context.Context
	// alone is what replicas have counted as done without Redis while that was
	// to be expected.
	alone int
}

// apart says that replicas do not share their memory until the returned
// function is called.
func (r *round) apart() (together func()) {
	r.Helper()
	before := r.total(r.T).alone
	r.account.part(true)
	return func() {
		r.Helper()
		r.account.part(false)
		r.alone += r.total(r.T).alone - before
	}
}

// progress waits until that many more events have been answered for.
func (r *round) progress(n int) {
	r.Helper()
	a := r.account
	a.mu.Lock()
	until := a.ended + n
	a.mu.Unlock()
	if err := a.await(r.ctx, func() bool { return a.ended >= until }); err != nil {
		r.Fatalf("%d more events are not answered for: %v", n, err)
	}
}

// failures waits until that many more posts were not answered with 200.
func (r *round) failures(n int) {
	r.Helper()
	a := r.account
	a.mu.Lock()
	until := a.failed + n
	a.mu.Unlock()
	if err := a.await(r.ctx, func() bool { return a.failed >= until }); err != nil {
		r.Fatalf("%d more posts do not fail: %v", n, err)
	}
}

// run plays one round and returns what came of it.
func (f *fleet) run(t *testing.T, l *lots, what fault) row {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), roundDeadline)
	defer cancel()
	before := f.total(t)
	f.account.begin(what.answer)
	stop := make(chan struct{})
	var load sync.WaitGroup
	load.Go(func() { (&homeserver{f, l}).load(ctx, f.devices(), stop) })
	r := &round{T: t, fleet: f, ctx: ctx}
	func() {
		defer load.Wait()
		defer close(stop)
		r.progress(20)
		if what.play != nil {
			what.play(r)
		}
		r.progress(40)
	}()
	if ctx.Err() != nil {
		t.Errorf("%s: not all notifications are answered for within %v", what.name, roundDeadline)
	}
	f.await(ctx, t, "herald_http_requests_in_flight", 0) // posts that were hung up on go on
	after := f.total(t)
	got := f.account.close(what.name, after.uncertain-before.uncertain, after.alone-before.alone-r.alone)
	f.check(t, got)
	return got
}

// check says what is wrong with a row.
func (f *fleet) check(t *testing.T, r row) {
	t.Helper()
	if r.lost != 0 || r.wrongly != 0 || r.unexplained != 0 {
		t.Errorf("%s: %d notifications are lost, %d living devices rejected, %d duplicates unexplained", r.fault, r.lost, r.wrongly, r.unexplained)
	}
	if balance := r.accepted - r.duplicates + r.refused + r.rejected; balance != r.sent {
		t.Errorf("%s: %d notifications were sent, but there is an outcome of %d", r.fault, r.sent, balance)
	}
	for _, replica := range f.replicas {
		if bad := replica.log.errors(); bad != "" {
			t.Errorf("%s: the log of a replica says\n%s", r.fault, bad)
		}
	}
	f.account.mu.Lock()
	defer f.account.mu.Unlock()
	if f.account.strays != 0 {
		t.Errorf("%s: %d pushes are of no event", r.fault, f.account.strays)
	}
}

// devices makes the pushers of one round: living ones and a dead one of each
// push service.
func (f *fleet) devices() []*pusher {
	var all []*pusher
	for i := range pushersOfEach + 1 {
		f.pushers++
		dead := i == pushersOfEach
		all = append(all,
			&pusher{app: iosApp, pushKey: iosKey(f.pushers), data: "{}", dead: dead},
			&pusher{app: androidApp, pushKey: fmt.Sprint("android:", f.pushers), data: "{}", dead: dead},
			&pusher{app: "org.example.huawei", pushKey: fmt.Sprint("huawei:", f.pushers), data: "{}", dead: dead},
			&pusher{app: "org.example.unified", pushKey: fmt.Sprint(f.web.URL(), "/up", f.pushers), data: "{}", dead: dead},
			&pusher{
				app: "org.example.web", pushKey: f.web.Subscription.PushKey(), dead: dead,
				data: fmt.Sprintf(`{"endpoint":"%s/web%d","auth":%q}`, f.web.URL(), f.pushers, f.web.Subscription.Auth()),
			})
	}
	return all
}

// scenario is a fleet and the faults it meets.
type scenario struct {
	name   string
	fleet  fleetOptions
	faults []fault
	// exact says that nothing arrives twice at all, unless the machine stood still.
	exact bool
}

// TestFaults runs the real program under load, with a homeserver that tries again
// as Synapse does, while everything around it fails, and compares what was sent
// with what the push services have accepted.
//
// Conformance (answers): everything above under load, while connections, push services, Redis and replicas fail | nothing lost, no living device rejected, twice only what was uncertain or in flight at a kill -9
func TestFaults(t *testing.T) {
	t.Parallel()
	var until time.Time
	if text := os.Getenv(faultsEnv); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil {
			t.Fatalf("%s: %v", faultsEnv, err)
		}
		until = time.Now().Add(d)
	}
	seed := rand.Uint64()
	if text := os.Getenv(seedEnv); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("%s: %v", seedEnv, err)
		}
		seed = n
	}
	all := scenarios()
	rows := make([][]row, len(all))
	var running sync.WaitGroup
	for i, s := range all {
		// Side by side whatever -parallel says: they mostly wait.
		running.Go(func() {
			t.Run(s.name, func(t *testing.T) { rows[i] = s.run(t, &lots{rng: rand.New(rand.NewPCG(seed, uint64(i)))}, until) })
		})
	}
	running.Wait()
	t.Logf("seed %d\n%s", seed, table(slices.Concat(rows...)))
}

// run meets each fault once, and all of them in any order until that time.
func (s *scenario) run(t *testing.T, l *lots, until time.Time) []row {
	f := startFleet(t, s.fleet)
	rows := make([]row, len(s.faults))
	met := func(i int) {
		got := f.run(t, l, s.faults[i])
		if s.exact && got.duplicates > got.alone {
			t.Errorf("%s: %d notifications arrived twice", got.fault, got.duplicates)
		}
		got.fault = s.faults[i].name
		rows[i] = got.plus(rows[i])
	}
	for i := range s.faults {
		met(i)
	}
	for time.Now().Before(until) && !t.Failed() {
		met(int(l.draw()) % len(s.faults))
	}
	return rows
}
