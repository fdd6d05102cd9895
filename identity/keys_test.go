package identity_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/identity/signing"
)

func active(t *testing.T, k *identity.Keyring) signing.Key {
	t.Helper()
	key, err := k.Active(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestFirstKeyIsKept(t *testing.T) {
	t.Parallel()
	s := newService(t)
	first := active(t, s.keyring(t))
	again := active(t, s.keyring(t))
	if first.ID() != again.ID() || first.Seed() != again.Seed() {
		t.Errorf("keys %s and %s", first, again)
	}
	if !signing.ValidKeyID(first.ID()) {
		t.Errorf("key ID %q", first.ID())
	}
}

func TestKeysThroughRotation(t *testing.T) {
	t.Parallel()
	s := newService(t)
	server, ctx := s.keyring(t), t.Context()
	old := active(t, server)

	id, err := s.keyring(t).Rotate(ctx) // by another process
	if err != nil {
		t.Fatal(err)
	}
	// A key that is new may be asked for before the server has noticed it.
	s.clock.advance(time.Second)
	public, err := server.Public(ctx, id)
	if err != nil {
		t.Fatalf("the new key a second later: %v", err)
	}
	if !server.Valid(ctx, public) {
		t.Error("the new key is not valid")
	}
	s.clock.advance(time.Minute)
	if got := active(t, server).ID(); got != id || got == old.ID() {
		t.Errorf("signs with %s a minute later, want %s", got, id)
	}
	if got, err := server.Public(ctx, old.ID()); err != nil || got != old.PublicBase64() {
		t.Errorf("the retired key: got %q, %v", got, err)
	}
	if !server.Valid(ctx, old.PublicBase64()) {
		t.Error("what the retired key signed is not valid any more")
	}

	if err := s.keyring(t).Compromise(ctx, old.ID()); err != nil {
		t.Fatal(err)
	}
	s.clock.advance(time.Minute)
	if server.Valid(ctx, old.PublicBase64()) {
		t.Error("the compromised key is valid a minute later")
	}
	if _, err := server.Public(ctx, old.ID()); !errors.Is(err, identity.ErrNoKey) {
		t.Errorf("the compromised key: got %v, want ErrNoKey", err)
	}
	if got := active(t, server).ID(); got != id {
		t.Errorf("signs with %s, want %s still", got, id)
	}
}

func TestCompromisedActiveKeyIsReplaced(t *testing.T) {
	t.Parallel()
	s := newService(t)
	k, ctx := s.keyring(t), t.Context()
	old := active(t, k)
	if err := k.Compromise(ctx, old.ID()); err != nil {
		t.Fatal(err)
	}
	if key := active(t, k); key.ID() == old.ID() || !k.Valid(ctx, key.PublicBase64()) {
		t.Errorf("signs with %s", key)
	}
	if k.Valid(ctx, old.PublicBase64()) {
		t.Error("the compromised key is valid")
	}
	if err := k.Compromise(ctx, "ed25519:other"); !errors.Is(err, identity.ErrNoKey) {
		t.Errorf("a key that is not there: got %v, want ErrNoKey", err)
	}
}

// Conformance (endpoints): `/pubkey/isvalid` for every spelling of the key (≠ Sydent: padding is invalid), for retired and compromised keys | true, true, false (also TestKeysThroughRotation, TestKeysAndPeppersAreRotatedByCommand)
func TestEverySpellingOfAPublicKeyIsValid(t *testing.T) {
	t.Parallel()
	s := newService(t)
	key := keyWithBothAlphabets(t)
	if err := s.db.ActivateKey(t.Context(), "", identity.StoredKey{Key: key, State: identity.KeyActive}); err != nil {
		t.Fatal(err)
	}
	k, public, standard := s.keyring(t), key.Public(), key.PublicBase64()
	for name, c := range map[string]struct {
		asked string
		want  bool
	}{
		"as published":             {standard, true},
		"padded":                   {base64.StdEncoding.EncodeToString(public), true},
		"URL-safe":                 {base64.RawURLEncoding.EncodeToString(public), true},
		"URL-safe and padded":      {base64.URLEncoding.EncodeToString(public), true},
		"a plus that came a space": {strings.ReplaceAll(standard, "+", " "), true},
		"another key":              {base64.RawStdEncoding.EncodeToString(make([]byte, 32)), false},
		"cut off":                  {standard[:42], false},
		"nothing":                  {"", false},
		"a key ID":                 {"ed25519:1", false},
		"hexadecimal":              {strings.Repeat("ab", 32), false},
	} {
		if got := k.Valid(t.Context(), c.asked); got != c.want {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

// keyWithBothAlphabets returns a key whose public half has both characters in
// which standard and URL-safe base64 differ.
func keyWithBothAlphabets(t *testing.T) signing.Key {
	t.Helper()
	for i := range 256 {
		seed := append(make([]byte, 31), byte(i))
		key, err := signing.NewKey("ed25519:1", base64.RawStdEncoding.EncodeToString(seed))
		if err != nil {
			t.Fatal(err)
		}
		if s := key.PublicBase64(); strings.Contains(s, "+") && strings.Contains(s, "/") {
			return key
		}
	}
	t.Fatal("no such key")
	return signing.Key{}
}

// counted counts the questions to a store.
type counted struct {
	identity.KeyStore
	n atomic.Int64
}

func (c *counted) Keys(ctx context.Context) ([]identity.StoredKey, error) {
	c.n.Add(1)
	return c.KeyStore.Keys(ctx)
}

// TestStrangersDoNotReachTheStore is about isvalid, which needs no token: a
// flood of questions about unknown keys must not become one of queries.
func TestStrangersDoNotReachTheStore(t *testing.T) {
	t.Parallel()
	s := newService(t)
	store := &counted{KeyStore: s.db}
	k, err := identity.OpenKeyring(t.Context(), identity.KeyringOptions{Store: store, Now: s.clock.Now, Log: s.log})
	if err != nil {
		t.Fatal(err)
	}
	before, unknown := store.n.Load(), base64.RawStdEncoding.EncodeToString(make([]byte, 32))
	for range 10 { // seconds
		s.clock.advance(time.Second)
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				if k.Valid(t.Context(), unknown) {
					t.Error("an unknown key is valid")
				}
				if _, err := k.Public(t.Context(), "ed25519:other"); !errors.Is(err, identity.ErrNoKey) {
					t.Errorf("got %v", err)
				}
			})
		}
		all.Wait()
	}
	if n := store.n.Load() - before; n < 1 || n > 10 {
		t.Errorf("1,000 questions in ten seconds became %d queries, want at most 10", n)
	}
}

func TestKeysOutliveTheStore(t *testing.T) {
	t.Parallel()
	s := newService(t)
	store := &away{DB: s.db}
	k, err := identity.OpenKeyring(t.Context(), identity.KeyringOptions{Store: store, Now: s.clock.Now, Log: s.log})
	if err != nil {
		t.Fatal(err)
	}
	key := active(t, k)
	store.on.Store(true)
	s.clock.advance(time.Hour)
	if !k.Valid(t.Context(), key.PublicBase64()) {
		t.Error("a key stopped being valid because the database is away")
	}
	if _, err := k.Public(t.Context(), "ed25519:other"); !errors.Is(err, identity.ErrNoKey) {
		t.Errorf("a key that is not known: got %v, want ErrNoKey", err)
	}
}

// TestAStoreThatIsAwayIsNotAskedByEverybody is about the requests that meet a
// database which is down: each would wait for it, and write a line in the log.
func TestAStoreThatIsAwayIsNotAskedByEverybody(t *testing.T) {
	t.Parallel()
	s := newService(t)
	gone := &away{DB: s.db}
	store := &counted{KeyStore: gone}
	var logged bytes.Buffer
	k, err := identity.OpenKeyring(t.Context(), identity.KeyringOptions{
		Store: store, Now: s.clock.Now, Log: slog.New(slog.NewTextHandler(&logged, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	logged.Reset() // a key was made
	for outage := 1; outage <= 2; outage++ {
		gone.on.Store(true)
		s.clock.advance(time.Hour)
		before := store.n.Load()
		for range 3 { // seconds
			for range 10 {
				active(t, k)
			}
			s.clock.advance(time.Second)
		}
		if n := store.n.Load() - before; n != 3 {
			t.Errorf("outage %d: 30 questions in three seconds became %d queries, want 3", outage, n)
		}
		if n := strings.Count(logged.String(), "signing keys are not up to date"); n != outage {
			t.Errorf("outage %d: %d lines in the log, want one for each outage", outage, n)
		}
		gone.on.Store(false)
		active(t, k) // ends the outage
	}
}
