package identity_test

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/threepid"
)

// Conformance (invites): `display_name` | Sydent's vectors, limits in the configuration
func TestRedactedAddresses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		local, domain int
		address, want string
	}{
		{0, 0, "a@b.c", "...@b..."},
		{0, 0, "a@b.co", "...@b.c..."},
		{0, 0, "ab@cd.ef", "a...@cd...."},
		{0, 0, "foo@bar.com", "f...@bar..."},
		{0, 0, "abcdef@abcdefg.com", "abc...@abc..."},
		{0, 0, "äöüß@bücher.example", "äöü...@büc..."},
		{1, 1, "abcdef@abcdefg.com", "a...@a..."},
		{2, 20, "ab@abcdefg.com", "a...@abc..."},
		{20, 20, "abcdef@ab.com", "abc...@ab...."},
		{20, 20, "abcdef@abc.com", "abc...@abc..."},
	} {
		s := newService(t)
		invites, _ := s.invites(t, func(o *identity.InvitesOptions) { o.ShownLocal, o.ShownDomain = c.local, c.domain })
		stored, err := invites.Store(t.Context(), identity.InviteRequest{
			Account: bob, Sender: bob, Medium: "email", Address: c.address, RoomID: "!room:example.org",
		})
		if err != nil {
			t.Fatal(err)
		}
		if stored.DisplayName != c.want {
			t.Errorf("%s with %d and %d: %s, want %s", c.address, c.local, c.domain, stored.DisplayName, c.want)
		}
	}
}

// Conformance (invites): the invite is there before its mail; a refused mail removes it (≠ Sydent: it stays) | 400 `M_EMAIL_SEND_ERROR` (also TestInviteWhoseMailIsNotSent, TestInviteWithoutAMailIsRemoved)
func TestInviteIsThereBeforeItsMail(t *testing.T) {
	t.Parallel()
	s := newService(t)
	var invites *identity.Invites
	asked := false
	invites, _ = s.invites(t, func(o *identity.InvitesOptions) {
		o.Mailer = mailerFunc(func(ctx context.Context, i threepid.Invitation) error {
			asked = true
			if _, err := invites.Open(ctx, i.Token, i.PrivateKey); err != nil {
				t.Errorf("whoever reads the mail finds %v", err)
			}
			return nil
		})
	})
	invited(t, invites, "alice@example.com")
	if !asked {
		t.Error("there was no mail")
	}
}

// mailerFunc is a function as identity.InviteMailer.
type mailerFunc func(ctx context.Context, i threepid.Invitation) error

func (f mailerFunc) SendInvitation(ctx context.Context, i threepid.Invitation) error {
	return f(ctx, i)
}

func TestInviteWithoutAMailIsRemoved(t *testing.T) {
	t.Parallel()
	s := newService(t)
	ctx, cancel := context.WithCancel(t.Context())
	invites, _ := s.invites(t, func(o *identity.InvitesOptions) {
		o.Mailer = mailerFunc(func(context.Context, threepid.Invitation) error {
			cancel() // whoever asked has gone, and the invite must still go
			return threepid.ErrSend
		})
	})
	_, err := invites.Store(ctx, identity.InviteRequest{
		Account: bob, Sender: bob, Medium: "email", Address: "alice@example.com", RoomID: "!room:example.org",
	})
	if !errors.Is(err, threepid.ErrSend) || strings.Contains(err.Error(), "alice") {
		t.Errorf("got %v", err)
	}
	if left := listed(t, s, s.clock.Now()); len(left) != 0 {
		t.Errorf("%d invites", len(left))
	}
}

func TestUsedInvitesStayValidForADay(t *testing.T) {
	t.Parallel()
	s := newService(t)
	invites, mail := s.invites(t, nil)
	token := invited(t, invites, "alice@example.com")
	bindAs(t, s, s.directory(t, s.peppers(t, nil), nil), alice, "alice@example.com")
	now := s.clock.Now()
	told, err := s.db.ClaimDeliveries(t.Context(), "c", now, now.Add(time.Minute), 1)
	if err != nil || len(told) != 1 {
		t.Fatal(told, err)
	}
	if err := s.db.SettleDeliveries(t.Context(), []identity.DeliveryResult{{Delivery: told[0], Told: true}}, now); err != nil {
		t.Fatal(err)
	}
	key := mail.all[0].PrivateKey
	s.clock.advance(24*time.Hour - time.Millisecond)
	for range 2 { // signing uses nothing up
		if _, err := invites.Sign(t.Context(), token, key, alice); err != nil {
			t.Errorf("within a day: %v", err)
		}
	}
	s.clock.advance(time.Millisecond)
	if _, err := invites.Sign(t.Context(), token, key, alice); !errors.Is(err, identity.ErrNoInvite) {
		t.Errorf("after a day: got %v, want ErrNoInvite", err)
	}
	if err := invites.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := listed(t, s, s.clock.Now()); len(left) != 0 {
		t.Errorf("%d invites after the sweep", len(left))
	}
}

func TestSendersCancellationsAreCounted(t *testing.T) {
	t.Parallel()
	s := newService(t)
	invites, _ := s.invites(t, nil)
	if err := invites.Cancel(t.Context(), bob, invited(t, invites, "alice@example.com")); err != nil {
		t.Fatal(err)
	}
	const want = `# HELP herald_identity_invite_cancellations_total Invites cancelled by their senders.
# TYPE herald_identity_invite_cancellations_total counter
herald_identity_invite_cancellations_total 1
`
	if err := testutil.GatherAndCompare(s.registry, strings.NewReader(want), "herald_identity_invite_cancellations_total"); err != nil {
		t.Error(err)
	}
}

func TestInviteOptions(t *testing.T) {
	t.Parallel()
	s := newService(t)
	if _, err := identity.NewInvites(identity.InvitesOptions{Store: s.db}); err == nil {
		t.Error("Invites without a mailer")
	}
	if _, err := identity.NewDeliveries(identity.DeliveriesOptions{Store: s.db}); err == nil {
		t.Error("Deliveries without homeservers")
	}
}

// FuzzOpen is about what anybody may put into a link.
func FuzzOpen(f *testing.F) {
	s := newService(f)
	invites, mail := s.invites(f, nil)
	token := invited(f, invites, "alice@example.com")
	key := mail.all[0].PrivateKey
	f.Add(token, key, alice)
	f.Add("", "", "")
	f.Add("\x00", base64.StdEncoding.EncodeToString(make([]byte, 32)), "@\xff:x")
	f.Add(token, strings.Repeat("A", 43), "@a:b")
	f.Fuzz(func(t *testing.T, token, key, user string) {
		signed, err := invites.Sign(t.Context(), token, key, user)
		switch {
		case err == nil:
			if signed["mxid"] != user || signed["sender"] != bob || signed["token"] != token {
				t.Errorf("signed %v", signed)
			}
		case !errors.Is(err, identity.ErrNoInvite) && !errors.Is(err, identity.ErrInviteKey) && !errors.Is(err, identity.ErrInvalidUser):
			t.Errorf("got %v", err)
		}
	})
}
