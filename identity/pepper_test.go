package identity_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/identity/sqlstore"
	"github.com/matrix-herald/herald/identity/storetest"
	"github.com/matrix-herald/herald/threepid"
)

// work lets p do everything that is due.
func work(t *testing.T, p *identity.Peppers) (steps int) {
	t.Helper()
	for {
		more, err := p.Work(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !more {
			return steps
		}
		steps++
	}
}

// found reports whether a@example.com is found under a pepper.
func found(t *testing.T, d *identity.Directory, pepper string) (bool, error) {
	t.Helper()
	users, err := d.Lookup(t.Context(), identity.LookupRequest{
		Algorithm: "sha256", Pepper: pepper,
		Addresses: []string{threepid.LookupHash("a@example.com", "email", pepper)},
	})
	return len(users) == 1, err
}

// mustFind ends the test unless a@example.com is found.
func mustFind(t *testing.T, d *identity.Directory, pepper string) {
	t.Helper()
	if ok, err := found(t, d, pepper); err != nil || !ok {
		t.Fatalf("found %v, %v", ok, err)
	}
}

// bindMany binds n addresses beside a@example.com.
func bindMany(t *testing.T, s *service, d *identity.Directory, n int) {
	t.Helper()
	for i := range n {
		bind(t, s, d, fmt.Sprint("many", i), "email", fmt.Sprintf("many%d@example.com", i))
	}
	bind(t, s, d, "a", "email", "a@example.com")
}

func TestPepperRotatesOnSchedule(t *testing.T) {
	t.Parallel()
	s := newService(t)
	const week = 7 * 24 * time.Hour
	p := s.peppers(t, func(o *identity.PeppersOptions) { o.Interval = week })
	d := s.directory(t, p, nil)
	bindMany(t, s, d, 7)
	old := pepper(t, d)

	s.clock.advance(week - time.Millisecond)
	if steps := work(t, p); steps != 0 || pepper(t, d) != old {
		t.Fatalf("rotated before its time, in %d steps", steps)
	}
	s.clock.advance(time.Millisecond)
	if steps := work(t, p); steps < 2 {
		t.Errorf("8 bindings in batches of 3 took %d further steps", steps)
	}
	current := pepper(t, d)
	if current == old {
		t.Fatal("did not rotate")
	}
	mustFind(t, d, current)

	// The previous pepper is honoured for an hour, and its hashes go after that.
	s.clock.advance(time.Hour - time.Millisecond)
	work(t, p)
	mustFind(t, d, old)
	s.clock.advance(time.Millisecond)
	work(t, p)
	_, err := found(t, d, old)
	var bad *identity.BadPepperError
	if !errors.As(err, &bad) || bad.Pepper != current {
		t.Errorf("got %v, want the current pepper", err)
	}
	s.clock.advance(time.Minute)
	work(t, p)
	all, err := s.db.Peppers(t.Context())
	if err != nil || len(all) != 1 {
		t.Errorf("%d peppers are left, %v", len(all), err)
	}
	mustFind(t, d, current)
}

func TestPepperRotatesByCommandOfAnotherProcess(t *testing.T) {
	t.Parallel()
	s := newService(t)
	p := s.peppers(t, nil)
	d := s.directory(t, p, nil)
	bindMany(t, s, d, 7)
	old := pepper(t, d)

	command := s.peppers(t, nil)
	if err := command.Rotate(t.Context(), silent); err != nil {
		t.Fatal(err)
	}
	announced, err := command.Current(t.Context())
	if err != nil || announced.Value == old {
		t.Fatalf("got %v, %v", announced, err)
	}
	// The server's memory is behind: it must refuse neither pepper.
	mustFind(t, d, old)
	mustFind(t, d, announced.Value)
	s.clock.advance(2 * time.Second)
	if got := pepper(t, d); got != announced.Value {
		t.Error("the server announces the old pepper after two seconds")
	}
	mustFind(t, d, old)
}

// TestRotationResumesAfterACrash stops after each step and goes on with new
// Peppers on a new connection.
func TestRotationResumesAfterACrash(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, newDatabase func(testing.TB) string) {
		url := newDatabase(t)
		s := newServiceOn(t, url)
		p := s.peppers(t, nil)
		d := s.directory(t, p, nil)
		bindMany(t, s, d, 10)
		old := pepper(t, d)
		current, err := p.Current(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := s.db.BeginPepper(t.Context(), "ThePepperThatIsBegunAndNotFilled0", current.ID); err != nil {
			t.Fatal(err)
		}
		steps := 0
		for more := true; more; steps++ {
			mustFind(t, d, pepper(t, d))
			next := newServiceOn(t, url)
			if more, err = next.peppers(t, nil).Work(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.clock.advance(2 * time.Second)
		}
		if steps != 4 { // 11 bindings, 3 a step
			t.Errorf("%d steps, want 4", steps)
		}
		if got := pepper(t, d); got == old {
			t.Error("the rotation did not end")
		}
		mustFind(t, d, pepper(t, d))
		mustFind(t, d, old)
	})
}

func TestEightReplicasMakeOnePepperAndOneKey(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, newDatabase func(testing.TB) string) {
		url := newDatabase(t)
		var peppers, keys sync.Map
		var all sync.WaitGroup
		for range 8 {
			s := newServiceOn(t, url)
			all.Go(func() {
				o := identity.PeppersOptions{Store: s.db, Directory: s.db, Now: s.clock.Now, Log: s.log, Metrics: s.metrics}
				p, err := identity.OpenPeppers(t.Context(), o)
				if err != nil {
					t.Error(err)
					return
				}
				k, err := identity.OpenKeyring(t.Context(), identity.KeyringOptions{Store: s.db, Now: s.clock.Now, Log: s.log})
				if err != nil {
					t.Error(err)
					return
				}
				current, err := p.Current(t.Context())
				if err != nil {
					t.Error(err)
				}
				active, err := k.Active(t.Context())
				if err != nil {
					t.Error(err)
				}
				peppers.Store(current.Value, true)
				keys.Store(active.ID(), true)
			})
		}
		all.Wait()
		for name, m := range map[string]*sync.Map{"pepper": &peppers, "key": &keys} {
			n := 0
			m.Range(func(any, any) bool { n++; return true })
			if n != 1 {
				t.Errorf("the replicas use %d different values as their %s", n, name)
			}
		}
	})
}

// TestNoLookupMissesABindingDuringRotations binds and looks up on one replica
// while two others rotate and drain: what Bind returned for must be found at
// once, under the pepper announced before.
//
// Conformance (lookup): the pepper changes while clients look up | nobody is missed, the old one holds for a while (also TestAKillInTheMiddleLosesNothing, BenchmarkRotation)
func TestNoLookupMissesABindingDuringRotations(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, newDatabase func(testing.TB) string) {
		url := newDatabase(t)
		s := newServiceOn(t, url)
		d := s.directory(t, s.peppers(t, nil), nil)
		var rotating sync.WaitGroup
		var rotations atomic.Int64
		ctx, stop := context.WithCancel(t.Context())
		for range 2 {
			other := newServiceOn(t, url)
			other.clock = s.clock
			p := other.peppers(t, nil)
			rotating.Go(func() {
				for ctx.Err() == nil {
					if err := p.Rotate(ctx, silent); err != nil && ctx.Err() == nil {
						t.Error(err)
						return
					}
					rotations.Add(1)
				}
			})
		}
		const binds = 60
		for i := range binds {
			address := fmt.Sprintf("racer%d@example.com", i)
			announced := pepper(t, d)
			bind(t, s, d, fmt.Sprint(i), "email", address)
			for _, p := range []string{announced, pepper(t, d)} {
				users, err := d.Lookup(t.Context(), identity.LookupRequest{
					Algorithm: "sha256", Pepper: p, Addresses: []string{threepid.LookupHash(address, "email", p)},
				})
				if err != nil || len(users) != 1 {
					t.Fatalf("bind %d: %d users, %v", i, len(users), err)
				}
			}
			s.clock.advance(100 * time.Millisecond)
		}
		stop()
		rotating.Wait()
		t.Logf("%d rotations", rotations.Load())
		if rotations.Load() == 0 {
			t.Error("nothing rotated: the test shows nothing")
		}
		last := s.peppers(t, nil)
		if err := last.Rotate(t.Context(), silent); err != nil {
			t.Fatal(err)
		}
		s.clock.advance(2 * time.Second)
		want := make(map[string]string)
		var addresses []string
		for i := range binds {
			addresses = append(addresses, fmt.Sprintf("racer%d@example.com", i))
			want[addresses[i]] = alice
		}
		if diff := cmp.Diff(want, hashLookup(t, d, "email", addresses...)); diff != "" {
			t.Error(diff)
		}
	})
}

func TestWorkerRotatesByItself(t *testing.T) {
	t.Parallel()
	s := newService(t)
	p := s.peppers(t, func(o *identity.PeppersOptions) { o.Interval, o.Grace, o.Now = time.Nanosecond, time.Hour, time.Now })
	d := s.directory(t, p, nil)
	bindMany(t, s, d, 4)
	old := pepper(t, d)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- p.Run(ctx) }()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for pepper(t, d) == old {
		<-tick.C
	}
	mustFind(t, d, pepper(t, d))
	mustFind(t, d, old)
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run returned %v", err)
	}
}

// away is a store that does not answer while it is on, or cannot be written to
// while it is full.
type away struct {
	*sqlstore.DB
	on, full atomic.Bool
}

func (a *away) BeginPepper(ctx context.Context, value string, current int64) error {
	if a.full.Load() {
		return errAway
	}
	return a.DB.BeginPepper(ctx, value, current)
}

var errAway = errors.New("away")

func (a *away) Peppers(ctx context.Context) ([]identity.Pepper, error) {
	if a.on.Load() {
		return nil, errAway
	}
	return a.DB.Peppers(ctx)
}

func (a *away) Keys(ctx context.Context) ([]identity.StoredKey, error) {
	if a.on.Load() {
		return nil, errAway
	}
	return a.DB.Keys(ctx)
}

func TestPeppersDoNotOutliveTheStoreSilently(t *testing.T) {
	t.Parallel()
	s := newService(t)
	store := &away{DB: s.db}
	p := s.peppers(t, func(o *identity.PeppersOptions) { o.Store = store })
	store.on.Store(true)
	if _, err := p.Current(t.Context()); err != nil {
		t.Errorf("a pepper that was loaded just now: %v", err)
	}
	s.clock.advance(2 * time.Second)
	if _, err := p.Current(t.Context()); !errors.Is(err, errAway) {
		t.Errorf("got %v, want the store's error", err)
	}
	if _, err := p.Work(t.Context()); !errors.Is(err, errAway) {
		t.Errorf("work: got %v, want the store's error", err)
	}
	store.on.Store(false)
	if _, err := p.Current(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestARotationThatFailsIsCountedAndThePepperAges(t *testing.T) {
	t.Parallel()
	s := newService(t)
	store := &away{DB: s.db}
	p := s.peppers(t, func(o *identity.PeppersOptions) { o.Store, o.Interval = store, time.Hour })
	work(t, p)
	store.full.Store(true)
	s.clock.advance(2 * time.Hour)
	for range 2 {
		if _, err := p.Work(t.Context()); !errors.Is(err, errAway) {
			t.Errorf("got %v, want the store's error", err)
		}
	}
	const want = `
# HELP herald_identity_pepper_age_seconds How long the current pepper has been announced.
# TYPE herald_identity_pepper_age_seconds gauge
herald_identity_pepper_age_seconds 7200
# HELP herald_identity_pepper_errors_total Steps of the worker that rotates the lookup pepper and removes old digests that failed; each is tried again.
# TYPE herald_identity_pepper_errors_total counter
herald_identity_pepper_errors_total 2
`
	if err := testutil.GatherAndCompare(s.registry, strings.NewReader(want),
		"herald_identity_pepper_age_seconds", "herald_identity_pepper_errors_total"); err != nil {
		t.Error(err)
	}
}

func TestRotationShowsInTheMetrics(t *testing.T) {
	t.Parallel()
	s := newService(t)
	p := s.peppers(t, nil)
	d := s.directory(t, p, nil)
	bindMany(t, s, d, 3)
	current, err := p.Current(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.db.BeginPepper(t.Context(), "next", current.ID); err != nil {
		t.Fatal(err)
	}
	s.clock.advance(90 * time.Second)
	if more, err := p.Work(t.Context()); err != nil || !more {
		t.Fatalf("more %v, %v", more, err)
	}
	const want = `
# HELP herald_identity_bindings Bindings in the directory.
# TYPE herald_identity_bindings gauge
herald_identity_bindings 4
# HELP herald_identity_pepper_age_seconds How long the current pepper has been announced.
# TYPE herald_identity_pepper_age_seconds gauge
herald_identity_pepper_age_seconds 90
# HELP herald_identity_peppers Generations of the lookup pepper by state; next is not 0 while a rotation is under way.
# TYPE herald_identity_peppers gauge
herald_identity_peppers{state="current"} 1
herald_identity_peppers{state="next"} 1
herald_identity_peppers{state="previous"} 0
herald_identity_peppers{state="retired"} 0
`
	if err := testutil.GatherAndCompare(s.registry, strings.NewReader(want), "herald_identity_bindings",
		"herald_identity_pepper_age_seconds", "herald_identity_peppers"); err != nil {
		t.Error(err)
	}
}
