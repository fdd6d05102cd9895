package storetest

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/identity"
)

func keys() map[string]func(*testing.T, Store) {
	tests := make(map[string]func(*testing.T, Store))
	for name, test := range keyTests() {
		tests[name] = func(t *testing.T, s Store) { test(t, s) }
	}
	return tests
}

// RunKeys tests a store of keys alone. Open returns an empty one.
func RunKeys(t *testing.T, open func(t *testing.T) identity.KeyStore) {
	t.Helper()
	for name, test := range keyTests() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t))
		})
	}
}

func keyTests() map[string]func(*testing.T, identity.KeyStore) {
	return map[string]func(*testing.T, identity.KeyStore){
		"keys are kept with their seeds through their states":    testKeyLife,
		"one of several first keys activated at once is kept":    testFirstKeyRace,
		"one of several who replace a key at once succeeds":      testReplaceKeyRace,
		"the active key cannot be declared compromised":          testCompromiseActive,
		"a key that is not there is neither replaced nor marked": testNoKey,
	}
}

// states returns the states of all keys by ID.
func states(t *testing.T, s identity.KeyStore) map[string]identity.KeyState {
	t.Helper()
	all := make(map[string]identity.KeyState)
	for _, k := range must(s.Keys(t.Context()))(t) {
		all[k.Key.ID()] = k.State
	}
	return all
}

func testKeyLife(t *testing.T, s identity.KeyStore) {
	ctx := t.Context()
	a, b := newKey(t, "a"), newKey(t, "b")
	ok(t, s.ActivateKey(ctx, "", a))
	ok(t, s.ActivateKey(ctx, a.Key.ID(), b))
	seeds := make(map[string]string)
	for _, k := range must(s.Keys(ctx))(t) {
		seeds[k.Key.ID()] = k.Key.Seed()
	}
	if diff := cmp.Diff(map[string]string{a.Key.ID(): a.Key.Seed(), b.Key.ID(): b.Key.Seed()}, seeds); diff != "" {
		t.Error(diff)
	}
	want := map[string]identity.KeyState{a.Key.ID(): identity.KeyRetired, b.Key.ID(): identity.KeyActive}
	if diff := cmp.Diff(want, states(t, s)); diff != "" {
		t.Error(diff)
	}
	ok(t, s.CompromiseKey(ctx, a.Key.ID()))
	want[a.Key.ID()] = identity.KeyCompromised
	if diff := cmp.Diff(want, states(t, s)); diff != "" {
		t.Error(diff)
	}
}

// winner checks that one call succeeded, that the others met a conflict, and
// that the one's key is active.
func winner(t *testing.T, s identity.KeyStore, keys []identity.StoredKey, errs []error) {
	t.Helper()
	won := 0
	for i, err := range errs {
		switch {
		case err == nil:
			won++
			if got := states(t, s)[keys[i].Key.ID()]; got != identity.KeyActive {
				t.Errorf("the winner's key is %q", got)
			}
		case !errors.Is(err, identity.ErrConflict):
			t.Errorf("got %v, want ErrConflict", err)
		}
	}
	if won != 1 {
		t.Errorf("%d calls succeeded, want 1", won)
	}
}

func testFirstKeyRace(t *testing.T, s identity.KeyStore) {
	var keys []identity.StoredKey
	for i := range 8 {
		keys = append(keys, newKey(t, fmt.Sprint(i)))
	}
	ctx := t.Context()
	winner(t, s, keys, together(len(keys), func(i int) error { return s.ActivateKey(ctx, "", keys[i]) }))
	if n := len(must(s.Keys(ctx))(t)); n != 1 {
		t.Errorf("%d keys, want 1", n)
	}
}

func testReplaceKeyRace(t *testing.T, s identity.KeyStore) {
	ctx := t.Context()
	old := newKey(t, "old")
	ok(t, s.ActivateKey(ctx, "", old))
	var keys []identity.StoredKey
	for i := range 8 {
		keys = append(keys, newKey(t, fmt.Sprint(i)))
	}
	winner(t, s, keys, together(len(keys), func(i int) error { return s.ActivateKey(ctx, old.Key.ID(), keys[i]) }))
	if n := len(must(s.Keys(ctx))(t)); n != 2 {
		t.Errorf("%d keys, want the old and the new one", n)
	}
}

func testCompromiseActive(t *testing.T, s identity.KeyStore) {
	a := newKey(t, "a")
	ok(t, s.ActivateKey(t.Context(), "", a))
	if err := s.CompromiseKey(t.Context(), a.Key.ID()); !errors.Is(err, identity.ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
	if got := states(t, s)[a.Key.ID()]; got != identity.KeyActive {
		t.Errorf("the key is %s", got)
	}
}

func testNoKey(t *testing.T, s identity.KeyStore) {
	ctx := t.Context()
	if err := s.ActivateKey(ctx, "ed25519:other", newKey(t, "a")); !errors.Is(err, identity.ErrConflict) {
		t.Errorf("replace: got %v, want ErrConflict", err)
	}
	if err := s.CompromiseKey(ctx, "ed25519:other"); !errors.Is(err, identity.ErrNotFound) {
		t.Errorf("mark: got %v, want ErrNotFound", err)
	}
	if n := len(must(s.Keys(ctx))(t)); n != 0 {
		t.Errorf("%d keys, want none", n)
	}
}
