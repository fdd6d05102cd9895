package sydent_test

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/identity/signing"
	"github.com/matrix-herald/herald/identity/storetest"
	"github.com/matrix-herald/herald/threepid"
)

const dave = "@dave:example.org"

type noMail struct{}

func (noMail) SendInvitation(context.Context, threepid.Invitation) error { return nil }

func (h herald) invites(t *testing.T) *identity.Invites {
	t.Helper()
	i, err := identity.NewInvites(identity.InvitesOptions{
		Store: h.db, Keys: h.keyring(t), Mailer: noMail{}, ServerName: serverName, Now: now,
		Log: slog.New(slog.DiscardHandler), Metrics: identity.NewMetrics(prometheus.NewRegistry()),
	})
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// invite adds an invite and its key, as Sydent does, with times in seconds. It
// returns the key that Sydent mailed.
func (o *old) invite(t *testing.T, address, token string, at time.Time) signing.Key {
	t.Helper()
	key, err := signing.GenerateKey("0")
	if err != nil {
		t.Fatal(err)
	}
	o.exec(t, `INSERT INTO invite_tokens (medium, address, room_id, sender, token, received_ts)
		VALUES ('email', ?, '!r:example.org', ?, ?, ?)`, address, alice, token, at.Unix())
	o.exec(t, `INSERT INTO ephemeral_public_keys (public_key, persistence_ts) VALUES (?, ?)`, urlBase64(key.Public()), at.Unix())
	return key
}

func urlBase64(public ed25519.PublicKey) string { return base64.RawURLEncoding.EncodeToString(public) }

func TestImportedInviteIsAcceptedAndDelivered(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, newDatabase func(testing.TB) string) {
		ctx, o, h := t.Context(), newOld(t), newHeraldOn(t, newDatabase(t))
		key := o.invite(t, "dave@example.com", "daveInvite", before())
		if p := part(t, h.imports(t, o), "pending invites"); p.Read != 1 || p.Done != 1 {
			t.Errorf("pending invites: %+v", p)
		}
		invites := h.invites(t)
		if valid, err := invites.KeyValid(ctx, urlBase64(key.Public())); err != nil || !valid {
			t.Errorf("the key in the room is valid: %v, %v", valid, err)
		}
		signed, err := invites.Sign(ctx, "daveInvite", key.Seed(), dave)
		if err != nil {
			t.Fatal(err)
		}
		if err := signing.Verify(signed, serverName, "ed25519:0", key.Public()); err != nil {
			t.Error(err)
		}

		second := h.imports(t, o)
		for _, name := range []string{"pending invites", "keys of invites"} {
			if p := part(t, second, name); p.Done != 0 {
				t.Errorf("the second import: %+v", p)
			}
		}
		if err := h.db.Bind(ctx, identity.Binding{
			ID: threepid.ID{Medium: threepid.MediumEmail, Address: "dave@example.com"}, UserID: dave, TS: now(),
		}); err != nil {
			t.Fatal(err)
		}
		got, err := h.db.ClaimDeliveries(ctx, "c", now(), now().Add(time.Minute), 10)
		if err != nil || len(got) != 1 || got[0].Invite == nil {
			t.Fatalf("deliveries %v: %v", got, err)
		}
		want := identity.Invite{
			Token: "daveInvite", Address: got[0].Binding.ID, RoomID: "!r:example.org", Sender: alice, KeyID: "ed25519:0",
			Ephemeral: identity.ImportedEphemeral("daveInvite"), Created: before().Truncate(time.Second),
			Expires: before().Truncate(time.Second).Add(identity.DefaultInviteLife),
		}
		if diff := cmp.Diff(want, *got[0].Invite, cmp.Comparer(func(a, b threepid.ID) bool { return a == b })); diff != "" {
			t.Error(diff)
		}
	})
}

func TestImportedInviteRefusesOtherKeys(t *testing.T) {
	t.Parallel()
	ctx, o, h := t.Context(), newOld(t), newHerald(t)
	imported := o.invite(t, "dave@example.com", "daveInvite", before())
	h.imports(t, o)
	own, err := signing.GenerateKey("0")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.db.AddInvite(ctx, identity.Invite{
		Token: "ownInvite", Address: threepid.ID{Medium: threepid.MediumEmail, Address: "erin@example.com"}, RoomID: "!r:example.org",
		Sender: alice, KeyID: "ed25519:0", Ephemeral: own.Public(), Created: now(), Expires: now().Add(time.Hour),
	}); err != nil {
		t.Fatal(err)
	}
	invites := h.invites(t)
	for token, key := range map[string]signing.Key{"daveInvite": own, "ownInvite": imported} {
		if _, err := invites.Sign(ctx, token, key.Seed(), dave); !errors.Is(err, identity.ErrInviteKey) {
			t.Errorf("%s with the key of the other kind of invite: got %v, want ErrInviteKey", token, err)
		}
	}
}

func TestInvitesThatAreLeftOut(t *testing.T) {
	t.Parallel()
	o, h := newOld(t), newHerald(t)
	o.invite(t, "old@example.com", "old", now().Add(-identity.DefaultInviteLife))
	o.exec(t, `INSERT INTO invite_tokens (medium, address, room_id, sender, token, received_ts) VALUES
		('email', 'a@example.com', '!r:example.org', '@alice:example.org', 'a', NULL),
		('msisdn', '447700900001', '!r:example.org', '@alice:example.org', 'b', 1800000000),
		('email', 'nowhere', '!r:example.org', '@alice:example.org', 'c', 1800000000),
		('email', 'd@example.com', '!r:example.org', 'alice', 'd', 1800000000),
		('email', 'e@example.com', '', '@alice:example.org', 'e', 1800000000)`)
	r := h.imports(t, o)
	reasons := make(map[string]int)
	for _, s := range append(part(t, r, "pending invites").Skipped, part(t, r, "keys of invites").Skipped...) {
		reasons[s.Reason] += s.Count
	}
	want := map[string]int{
		"older than an invite waits (90 days)": 2, "no time of receipt": 1, "the medium is not email": 1,
		"not an email address that mail can be sent to": 1, "not a user ID": 1, "empty, or not text that can be stored": 1,
	}
	if diff := cmp.Diff(want, reasons); diff != "" {
		t.Error(diff)
	}
}

func TestKeyOfUnknownAgeIsValidFromTheImport(t *testing.T) {
	t.Parallel()
	ctx, o, h := t.Context(), newOld(t), newHerald(t)
	o.exec(t, `INSERT INTO ephemeral_public_keys (public_key) VALUES (?)`, seed)
	if p := part(t, h.imports(t, o), "keys of invites"); p.Done != 1 {
		t.Fatalf("keys of invites: %+v", p)
	}
	key, err := signing.ParsePublicKey(seed)
	if err != nil {
		t.Fatal(err)
	}
	end := now().Truncate(time.Second).Add(identity.DefaultInviteLife)
	for at, want := range map[time.Time]bool{end.Add(-time.Millisecond): true, end: false} {
		if valid, err := h.db.ImportedKey(ctx, key, at); err != nil || valid != want {
			t.Errorf("at %v: %v, %v; want %v", at, valid, err, want)
		}
	}
}
