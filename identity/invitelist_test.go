package identity_test

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/threepid"
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
	cancel := func(name string) error { return identity.CancelInvite(t.Context(), s.db, name) }
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

func TestInvitesAreListedPageByPage(t *testing.T) {
	t.Parallel()
	s := newService(t)
	const many = 1001 // two pages and one
	began := s.clock.Now().Truncate(time.Millisecond)
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	for n := range many {
		key := slices.Clone(public)
		binary.BigEndian.PutUint64(key, uint64(n))
		err := s.db.AddInvite(t.Context(), identity.Invite{
			Token: fmt.Sprint("t", n), Address: threepid.ID{Medium: threepid.MediumEmail, Address: fmt.Sprint(n, "@example.com")},
			RoomID: "!r:example.org", Sender: bob, KeyID: "ed25519:1", Ephemeral: key,
			Created: began, Expires: began.Add(time.Duration(n+1) * time.Minute),
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	const expired = 700
	all := listed(t, s, began.Add(expired*time.Minute))
	if len(all) != many {
		t.Fatalf("%d invites, want %d", len(all), many)
	}
	for n, r := range all {
		want := identity.InviteWaiting
		if n < expired {
			want = identity.InviteExpired
		}
		if r.Token != fmt.Sprint("t", n) || r.State != want {
			t.Errorf("invite %d is %s and %s, want %s", n, r.Token, r.State, want)
		}
	}
	next, stop := iter.Pull2(identity.AllInvites(t.Context(), s.db, began))
	if r, err, is := next(); !is || err != nil || r.Token != "t0" {
		t.Errorf("the first is %v, %v", r, err)
	}
	stop() // an iterator that went on after this would panic
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for r, err := range identity.AllInvites(gone, s.db, began) {
		if !errors.Is(err, context.Canceled) || r.ID != 0 {
			t.Errorf("got %d, %v", r.ID, err)
		}
	}
}
