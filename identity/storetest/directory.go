package storetest

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/threepid"
)

// together calls f n times at once and returns what each call returned.
func together(n int, f func(i int) error) []error {
	errs := make([]error, n)
	start := make(chan struct{})
	var calls sync.WaitGroup
	for i := range n {
		calls.Go(func() {
			<-start
			errs[i] = f(i)
		})
	}
	close(start)
	calls.Wait()
	return errs
}

func directory() map[string]func(*testing.T, Store) {
	return map[string]func(*testing.T, Store){
		"a binding is found under every spelling and every live pepper": testSpellings,
		"a digest is found under its own pepper only":                   testOtherPepper,
		"binding again replaces the user and the spelling":              testRebind,
		"a binding is told by its address":                              testBinding,
		"unbinding removes what is the user's and nothing else":         testUnbind,
		"no lookup finds anything in an empty list":                     testEmptyLookup,
		"ten thousand digests are one lookup":                           testManyDigests,
		"many binds of one address at once leave one":                   testBindRace,
		"many binds of different addresses at once succeed":             testManyBinds,
		"binds and unbinds at once keep the count right":                testBindUnbindRace,
	}
}

// current gives a store its first pepper.
func current(t *testing.T, s Store, value string) identity.Pepper {
	t.Helper()
	rotate(t, s, value, begin(), begin())
	return live(t, s, identity.PepperCurrent)
}

// live returns the pepper in a state that one pepper has.
func live(t *testing.T, s Store, state identity.PepperState) identity.Pepper {
	t.Helper()
	for _, p := range must(s.Peppers(t.Context()))(t) {
		if p.State == state {
			return p
		}
	}
	t.Fatalf("there is no %s pepper", state)
	return identity.Pepper{}
}

// rotate makes value the current pepper.
func rotate(t *testing.T, s Store, value string, now, until time.Time) {
	t.Helper()
	ctx, id := t.Context(), int64(0)
	for _, p := range must(s.Peppers(ctx))(t) {
		if p.State == identity.PepperCurrent {
			id = p.ID
		}
	}
	ok(t, s.BeginPepper(ctx, value, id))
	finish(t, func() (bool, error) { return s.FillPepper(ctx, 2, now, until) })
}

// users looks a binding's digests up under p.
func users(t *testing.T, s Store, p identity.Pepper, b identity.Binding) []string {
	t.Helper()
	digests := b.Digests(p.Value)
	found := must(s.Lookup(t.Context(), p.ID, digests))(t)
	var users []string
	for _, d := range digests {
		if u, ok := found[d]; ok {
			users = append(users, u)
		}
	}
	return users
}

func testSpellings(t *testing.T, s Store) {
	ctx := t.Context()
	old := current(t, s, "pepper1")
	rotate(t, s, "pepper2", begin(), begin().Add(time.Hour))
	cur := live(t, s, identity.PepperCurrent)
	ok(t, s.BeginPepper(ctx, "pepper3", cur.ID))
	next := live(t, s, identity.PepperNext)
	b := identity.Binding{
		ID:               threepid.ID{Medium: threepid.MediumEmail, Address: "strauss@bücher.example"},
		OriginalSpelling: "strauß@bücher.example",
		UserID:           "@a:example.org",
		TS:               begin(),
	}
	ok(t, s.Bind(ctx, b))
	want := []string{"@a:example.org", "@a:example.org", "@a:example.org"}
	for _, p := range []identity.Pepper{old, cur, next} {
		if diff := cmp.Diff(want, users(t, s, p, b)); diff != "" {
			t.Errorf("%s: %s", p.Value, diff)
		}
	}
}

func testOtherPepper(t *testing.T, s Store) {
	ctx := t.Context()
	old := current(t, s, "pepper1")
	b := binding(1, "a")
	ok(t, s.Bind(ctx, b))
	rotate(t, s, "pepper2", begin(), begin().Add(time.Hour))
	cur := live(t, s, identity.PepperCurrent)
	if found := must(s.Lookup(ctx, cur.ID, b.Digests(old.Value)))(t); len(found) != 0 {
		t.Errorf("the old digest is found under the new pepper: %d users", len(found))
	}
}

func testRebind(t *testing.T, s Store) {
	ctx := t.Context()
	p := current(t, s, "pepper1")
	first := binding(1, "strauss")
	first.OriginalSpelling = "strauß@example.com"
	ok(t, s.Bind(ctx, first))
	second := binding(2, "strauss")
	ok(t, s.Bind(ctx, second))
	ok(t, s.Bind(ctx, second))
	if diff := cmp.Diff([]string{second.UserID}, users(t, s, p, first)); diff != "" {
		t.Errorf("under the spellings of the first binding: %s", diff)
	}
	if n := must(s.Bindings(ctx))(t); n != 1 {
		t.Errorf("%d bindings, want 1", n)
	}
}

func testUnbind(t *testing.T, s Store) {
	ctx := t.Context()
	p := current(t, s, "pepper1")
	a, b := binding(1, "a"), binding(1, "b")
	ok(t, s.Bind(ctx, a))
	ok(t, s.Bind(ctx, b))
	for _, c := range []struct {
		name    string
		id      threepid.ID
		user    string
		removed bool
	}{
		{"another user's", a.ID, "@user2:example.org", false},
		{"another medium", threepid.ID{Medium: threepid.MediumMSISDN, Address: a.ID.Address}, a.UserID, false},
		{"the user's own", a.ID, a.UserID, true},
		{"what is gone", a.ID, a.UserID, false},
	} {
		if removed := must(s.Unbind(ctx, c.id, c.user, by()))(t); removed != c.removed {
			t.Errorf("%s: removed %v", c.name, removed)
		}
	}
	if got := users(t, s, p, a); len(got) != 0 {
		t.Errorf("the removed binding is found: %v", got)
	}
	if got := users(t, s, p, b); len(got) != 1 {
		t.Errorf("the other binding has %d users", len(got))
	}
	if n := must(s.Bindings(ctx))(t); n != 1 {
		t.Errorf("%d bindings, want 1", n)
	}
	// A digest that was left behind would keep the address from being bound again.
	a.UserID = "@user3:example.org"
	ok(t, s.Bind(ctx, a))
	if diff := cmp.Diff([]string{a.UserID}, users(t, s, p, a)); diff != "" {
		t.Error(diff)
	}
}

func testBinding(t *testing.T, s Store) {
	ctx := t.Context()
	b := binding(1, "a")
	if _, err := s.Binding(ctx, b.ID); !errors.Is(err, identity.ErrNotFound) {
		t.Errorf("before it is bound: %v", err)
	}
	ok(t, s.Bind(ctx, b))
	if got := must(s.Binding(ctx, b.ID))(t); got.ID != b.ID || got.UserID != b.UserID || !got.TS.Equal(b.TS) {
		t.Errorf("got %+v, want %+v", got, b)
	}
	other := threepid.ID{Medium: threepid.MediumMSISDN, Address: b.ID.Address}
	if _, err := s.Binding(ctx, other); !errors.Is(err, identity.ErrNotFound) {
		t.Errorf("another medium: %v", err)
	}
}

func testEmptyLookup(t *testing.T, s Store) {
	p := current(t, s, "pepper1")
	ok(t, s.Bind(t.Context(), binding(1, "a")))
	if found := must(s.Lookup(t.Context(), p.ID, nil))(t); len(found) != 0 {
		t.Errorf("found %d users", len(found))
	}
}

func testManyDigests(t *testing.T, s Store) {
	ctx := t.Context()
	p := current(t, s, "pepper1")
	b := binding(1, "a")
	ok(t, s.Bind(ctx, b))
	digests := make([]identity.Digest, 0, identity.MaxLookup)
	for i := range identity.MaxLookup - 1 {
		digests = append(digests, digest(fmt.Sprint(i)))
	}
	digests = append(digests, b.Digests(p.Value)...)
	want := map[identity.Digest]string{b.Digests(p.Value)[0]: b.UserID}
	digests = append(digests, digests[len(digests)-1]) // clients may ask twice
	if diff := cmp.Diff(want, must(s.Lookup(ctx, p.ID, digests))(t)); diff != "" {
		t.Error(diff)
	}
}

func testBindRace(t *testing.T, s Store) {
	ctx := t.Context()
	p := current(t, s, "pepper1")
	for _, err := range together(30, func(i int) error { return s.Bind(ctx, binding(i, "a")) }) {
		ok(t, err)
	}
	if got := users(t, s, p, binding(0, "a")); len(got) != 1 {
		t.Errorf("%d users, want 1", len(got))
	}
	if n := must(s.Bindings(ctx))(t); n != 1 {
		t.Errorf("%d bindings, want 1", n)
	}
}

func testManyBinds(t *testing.T, s Store) {
	ctx := t.Context()
	p := current(t, s, "pepper1")
	const many = 30
	for _, err := range together(many, func(i int) error { return s.Bind(ctx, binding(i, fmt.Sprint("a", i))) }) {
		ok(t, err)
	}
	for i := range many {
		b := binding(i, fmt.Sprint("a", i))
		if diff := cmp.Diff([]string{b.UserID}, users(t, s, p, b)); diff != "" {
			t.Errorf("binding %d: %s", i, diff)
		}
	}
	if n := must(s.Bindings(ctx))(t); n != many {
		t.Errorf("%d bindings, want %d", n, many)
	}
}

func testBindUnbindRace(t *testing.T, s Store) {
	ctx := t.Context()
	p := current(t, s, "pepper1")
	for _, err := range together(40, func(i int) error {
		b := binding(1, fmt.Sprint("a", i%4))
		if i%2 == 0 {
			return s.Bind(ctx, b)
		}
		_, err := s.Unbind(ctx, b.ID, b.UserID, by())
		return err
	}) {
		ok(t, err)
	}
	var bound int64
	for i := range 4 {
		bound += int64(len(users(t, s, p, binding(1, fmt.Sprint("a", i)))))
	}
	if n := must(s.Bindings(ctx))(t); n != bound {
		t.Errorf("the count is %d, %d are bound", n, bound)
	}
}
