package identity_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/threepid"
)

// spent are budgets by user ID or address. Somebody else may refill one of them
// each time it is emptied.
type spent struct {
	of     map[string]int
	refill string
	err    error
}

func (c *spent) Forget(_ context.Context, userID string, addresses []threepid.ID) (n int, err error) {
	forget := func(key string) {
		n += c.of[key]
		if key != c.refill {
			delete(c.of, key)
		}
	}
	forget(userID)
	for _, id := range addresses {
		forget(id.Address)
	}
	return n, c.err
}

func silent(string, int, int) {}

func TestEraseForgetsBudgets(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		budgets *spent
		want    identity.Erased
	}{
		"of the user and of what is bound to them": {&spent{}, identity.Erased{Table: "budgets", Found: 3}},
		"which somebody spends meanwhile":          {&spent{refill: alice}, identity.Erased{Table: "budgets", Found: 3, Left: 2}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newService(t)
			bindAs(t, s, s.directory(t, s.peppers(t, nil), nil), alice, "alice@example.com")
			c.budgets.of = map[string]int{alice: 2, "alice@example.com": 1, bob: 7, "bob@example.com": 7}
			erased, err := identity.Erase(t.Context(), s.db, c.budgets, identity.Person{UserID: alice}, identity.Removal{At: s.clock.Now()}, silent)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, erased[len(erased)-1]); diff != "" {
				t.Error(diff)
			}
			if c.budgets.of[bob] != 7 || c.budgets.of["bob@example.com"] != 7 {
				t.Errorf("another's budgets: %v", c.budgets.of)
			}
		})
	}
}

func TestEraseThatFailsErasesNothing(t *testing.T) {
	t.Parallel()
	s := newService(t)
	bindAs(t, s, s.directory(t, s.peppers(t, nil), nil), alice, "alice@example.com")
	away := errors.New("away")
	for user, want := range map[string]error{alice: away, "alice": identity.ErrInvalidUser, "": identity.ErrInvalidUser} {
		if _, err := identity.Erase(t.Context(), s.db, &spent{err: away}, identity.Person{UserID: user}, identity.Removal{At: s.clock.Now()}, silent); !errors.Is(err, want) {
			t.Errorf("%q: got %v, want %v", user, err, want)
		}
	}
	// The budgets of the address are known as long as the binding is there.
	if n, err := s.db.Bindings(t.Context()); n != 1 || err != nil {
		t.Errorf("%d bindings, %v", n, err)
	}
	gone, cancel := context.WithDeadline(t.Context(), time.Now())
	defer cancel()
	if _, err := identity.Erase(gone, s.db, &spent{}, identity.Person{UserID: alice}, identity.Removal{At: s.clock.Now()}, silent); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}
