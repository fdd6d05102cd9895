package identity_test

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matrix-herald/herald/identity"
)

// listed returns all invites.
func listed(t *testing.T, s *service, now time.Time) (all []identity.InviteRecord) {
	t.Helper()
	for r, err := range identity.AllInvites(t.Context(), s.db, now) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

func TestOperatorRemovesAnybodysInvite(t *testing.T) {
	t.Parallel()
	s := newService(t)
	invites, _ := s.invites(t, nil)
	token := invited(t, invites, "alice@example.com")
	invited(t, invites, "anna@example.com")
	byID := strconv.FormatInt(listed(t, s, s.clock.Now())[1].ID, 10)
	cancel := func(name string) error {
		return identity.CancelInvite(t.Context(), s.db, name, identity.Removal{At: s.clock.Now(), By: "root"})
	}
	for _, c := range []struct {
		name string
		err  error
		want error
	}{
		{"a stranger", invites.Cancel(t.Context(), alice, token), identity.ErrNoInvite},
		{"nobody", invites.Cancel(t.Context(), "", token), identity.ErrNoInvite},
		{"the operator, mistaken", cancel("unknown"), identity.ErrNoInvite},
		{"the operator, with nothing", cancel(""), identity.ErrNoInvite},
		{"the operator, with no number of an invite", cancel("999999"), identity.ErrNoInvite},
		{"the operator, with no number at all", cancel("-9223372036854775808"), identity.ErrNoInvite},
		{"the operator, with a number between two", cancel("0"), identity.ErrNoInvite},
		{"the operator", cancel(token), nil},
		{"the operator, by number", cancel(byID), nil},
		{"the operator, again", cancel(byID), identity.ErrNoInvite},
		{"the sender, too late", invites.Cancel(t.Context(), bob, token), identity.ErrNoInvite},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, c.err, c.want)
		}
	}
	if left := listed(t, s, s.clock.Now()); len(left) != 0 {
		t.Errorf("%d invites are left", len(left))
	}
}

// inviteRows is a store of invites with gaps between their IDs.
type inviteRows struct {
	identity.InviteStore
	all   []identity.InviteRecord
	pages int
}

func (s *inviteRows) Invites(ctx context.Context, after int64, limit int) ([]identity.InviteRecord, error) {
	s.pages++
	first, _ := slices.BinarySearchFunc(s.all, after+1, func(r identity.InviteRecord, id int64) int { return cmp.Compare(r.ID, id) })
	return s.all[first:min(first+limit, len(s.all))], ctx.Err()
}

func TestInvitesAreListedPageByPage(t *testing.T) {
	t.Parallel()
	const many, expired = 1001, 700 // two pages and one
	now := time.Now()
	store := &inviteRows{}
	for n := range many {
		r := identity.InviteRecord{ID: int64(3*n + 1), State: identity.InviteWaiting}
		r.Expires = now.Add(time.Duration(n-expired+1) * time.Minute)
		if n == 0 {
			r.State = identity.InviteUsed
		}
		store.all = append(store.all, r)
	}
	n := 0
	for r, err := range identity.AllInvites(t.Context(), store, now) {
		want := identity.InviteWaiting
		switch {
		case n == 0:
			want = identity.InviteUsed
		case n < expired:
			want = identity.InviteExpired
		}
		if err != nil || r.ID != int64(3*n+1) || r.State != want {
			t.Errorf("invite %d is %d and %s, want %s; %v", n, r.ID, r.State, want, err)
		}
		n++
	}
	if n != many || store.pages != 3 {
		t.Errorf("%d invites in %d pages, want %d in 3", n, store.pages, many)
	}
	next, stop := iter.Pull2(identity.AllInvites(t.Context(), store, now))
	if r, err, is := next(); !is || err != nil || r.ID != 1 {
		t.Errorf("the first is %v, %v", r, err)
	}
	stop() // an iterator that went on after this would panic
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for r, err := range identity.AllInvites(gone, store, now) {
		if !errors.Is(err, context.Canceled) || r.ID != 0 {
			t.Errorf("got %d, %v", r.ID, err)
		}
	}
}

// inviteSweeps fails the first time, and then has n rows to sweep.
type inviteSweeps struct {
	identity.InviteStore
	calls chan time.Duration // since when invites may have been used
	n     int
}

func (s *inviteSweeps) SweepInvites(_ context.Context, now, usedSince time.Time, limit int) (int, error) {
	s.calls <- now.Sub(usedSince)
	if s.n < 0 {
		s.n = -s.n
		return 0, errors.New("away")
	}
	swept := min(limit, s.n)
	s.n -= swept
	return swept, nil
}

func TestInvitesAreSweptEveryHour(t *testing.T) {
	t.Parallel()
	s := newService(t)
	synctest.Test(t, func(t *testing.T) {
		store := &inviteSweeps{calls: make(chan time.Duration), n: -1500}
		invites, _ := s.invites(t, func(o *identity.InvitesOptions) { o.Store, o.Now = store, time.Now })
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- invites.Run(ctx) }()
		began := time.Now()
		for _, want := range []time.Duration{0, time.Hour, time.Hour, time.Hour, 2 * time.Hour} {
			if used := <-store.calls; used != identity.UsedInviteLife || time.Since(began) != want {
				t.Errorf("swept what was used %v ago after %v, want %v after %v", used, time.Since(began), identity.UsedInviteLife, want)
			}
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run returned %v", err)
		}
	})
}
