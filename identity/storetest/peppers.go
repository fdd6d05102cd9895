package storetest

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/identity"
)

func peppers() map[string]func(*testing.T, Store) {
	return map[string]func(*testing.T, Store){
		"a pepper lives through its states":                          testPepperLife,
		"one of several that begin a pepper at once succeeds":        testBeginRace,
		"a pepper begun in place of one that is gone is ignored":     testBeginStale,
		"what several fill at once is complete":                      testFillRace,
		"binds and unbinds during rotations are found when they end": testBindDuringRotation,
		"draining leaves the digests of live peppers":                testDrain,
	}
}

func testPepperLife(t *testing.T, s Store) {
	ctx, until := t.Context(), begin().Add(time.Hour)
	if all := must(s.Peppers(ctx))(t); len(all) != 0 {
		t.Fatalf("%d peppers at first", len(all))
	}
	first := current(t, s, "pepper1")
	if !first.Since.Equal(begin()) {
		t.Errorf("current since %v, want %v", first.Since, begin())
	}
	for i := range 3 {
		ok(t, s.Bind(ctx, binding(1, fmt.Sprint("a", i))))
	}
	ok(t, s.BeginPepper(ctx, "pepper2", first.ID))
	if done := must(s.FillPepper(ctx, 2, begin(), until))(t); done {
		t.Error("done after two of three bindings")
	}
	if p := live(t, s, identity.PepperCurrent); p.ID != first.ID {
		t.Error("announced before it was complete")
	}
	if done := must(s.FillPepper(ctx, 2, begin(), until))(t); !done {
		t.Error("not done after all bindings")
	}
	second := live(t, s, identity.PepperCurrent)
	if second.Value != "pepper2" || second.ID <= first.ID {
		t.Errorf("got pepper %d %s", second.ID, second.Value)
	}
	previous := live(t, s, identity.PepperPrevious)
	if previous.ID != first.ID || !previous.Until.Equal(until) {
		t.Errorf("previous is %d until %v", previous.ID, previous.Until)
	}
	if done := must(s.DrainPeppers(ctx, until.Add(-time.Millisecond), 2))(t); !done {
		t.Error("something to drain before its time")
	}
	live(t, s, identity.PepperPrevious)
	steps := 0
	for !must(s.DrainPeppers(ctx, until, 2))(t) {
		steps++
	}
	if steps != 3 { // two batches and the pepper itself
		t.Errorf("drained in %d steps, want 3", steps)
	}
	if diff := cmp.Diff([]identity.Pepper{second}, must(s.Peppers(ctx))(t)); diff != "" {
		t.Error(diff)
	}
}

func testBeginRace(t *testing.T, s Store) {
	ctx := t.Context()
	for _, err := range together(8, func(i int) error { return s.BeginPepper(ctx, fmt.Sprint("pepper", i), 0) }) {
		ok(t, err)
	}
	if n := len(must(s.Peppers(ctx))(t)); n != 1 {
		t.Errorf("%d peppers, want 1", n)
	}
}

func testBeginStale(t *testing.T, s Store) {
	ctx := t.Context()
	first := current(t, s, "pepper1")
	rotate(t, s, "pepper2", begin(), begin())
	ok(t, s.BeginPepper(ctx, "pepper3", first.ID))
	ok(t, s.BeginPepper(ctx, "pepper4", 0))
	if p := live(t, s, identity.PepperCurrent); p.Value != "pepper2" {
		t.Errorf("current is %s", p.Value)
	}
	if n := len(must(s.Peppers(ctx))(t)); n != 2 {
		t.Errorf("%d peppers, want 2", n)
	}
}

func testFillRace(t *testing.T, s Store) {
	ctx := t.Context()
	first := current(t, s, "pepper1")
	for i := range 20 {
		ok(t, s.Bind(ctx, binding(i, fmt.Sprint("a", i))))
	}
	ok(t, s.BeginPepper(ctx, "pepper2", first.ID))
	for _, err := range together(4, func(int) error {
		for {
			if done, err := s.FillPepper(ctx, 3, begin(), begin()); done || err != nil {
				return err
			}
		}
	}) {
		ok(t, err)
	}
	p := live(t, s, identity.PepperCurrent)
	for i := range 20 {
		if b := binding(i, fmt.Sprint("a", i)); len(users(t, s, p, b)) != 1 {
			t.Errorf("binding %d is not found", i)
		}
	}
}

// testBindDuringRotation binds, rebinds and unbinds while rotations begin, fill
// and drain as fast as they can.
func testBindDuringRotation(t *testing.T, s Store) {
	ctx := t.Context()
	current(t, s, "pepper0")
	const writers, rounds = 4, 6
	var rotating sync.WaitGroup
	stop := make(chan struct{})
	rotated := 0
	var failed error
	rotating.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if failed = rotateOnce(t, s, fmt.Sprint("pepper", rotated+1)); failed != nil {
				return
			}
			rotated++
		}
	})
	errs := together(writers, func(w int) error {
		var errs []error
		for i := range rounds {
			b := binding(w, fmt.Sprintf("a%d.%d", w, i))
			errs = append(errs, s.Bind(ctx, b))
			b.UserID = "@later:example.org"
			errs = append(errs, s.Bind(ctx, b))
			if i%3 == 0 {
				_, err := s.Unbind(ctx, b.ID, b.UserID, by())
				errs = append(errs, err)
			}
		}
		return errors.Join(errs...)
	})
	close(stop)
	rotating.Wait()
	ok(t, errors.Join(append(errs, failed)...))
	t.Logf("%d rotations", rotated)
	ok(t, rotateOnce(t, s, "last"))
	p := live(t, s, identity.PepperCurrent)
	for w := range writers {
		for i := range rounds {
			want := 1
			if i%3 == 0 {
				want = 0
			}
			if n := len(users(t, s, p, binding(w, fmt.Sprintf("a%d.%d", w, i)))); n != want {
				t.Errorf("writer %d, address %d: %d users, want %d", w, i, n, want)
			}
		}
	}
}

// rotateOnce replaces the current pepper and drains the one before.
func rotateOnce(t *testing.T, s Store, value string) error {
	ctx := t.Context()
	all, err := s.Peppers(ctx)
	if err != nil {
		return err
	}
	for _, p := range all {
		if p.State == identity.PepperCurrent {
			if err := s.BeginPepper(ctx, value, p.ID); err != nil {
				return err
			}
		}
	}
	for done := false; !done; {
		if done, err = s.FillPepper(ctx, 7, begin(), begin()); err != nil {
			return err
		}
	}
	for done := false; !done; {
		if done, err = s.DrainPeppers(ctx, begin(), 7); err != nil {
			return err
		}
	}
	return nil
}

func testDrain(t *testing.T, s Store) {
	ctx := t.Context()
	first := current(t, s, "pepper1")
	b := binding(1, "a")
	ok(t, s.Bind(ctx, b))
	rotate(t, s, "pepper2", begin(), begin().Add(time.Hour))
	rotate(t, s, "pepper3", begin(), begin().Add(2*time.Hour))
	finish(t, func() (bool, error) { return s.DrainPeppers(ctx, begin().Add(time.Hour), 1) })
	if found := users(t, s, first, b); len(found) != 0 {
		t.Errorf("found under the drained pepper: %v", found)
	}
	for _, state := range []identity.PepperState{identity.PepperPrevious, identity.PepperCurrent} {
		if found := users(t, s, live(t, s, state), b); len(found) != 1 {
			t.Errorf("found %d users under the %s pepper, want 1", len(found), state)
		}
	}
}
