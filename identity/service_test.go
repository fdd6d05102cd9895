package identity_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/identity/sqlstore"
	"github.com/matrix-herald/herald/identity/storetest"
	"github.com/matrix-herald/herald/threepid"
)

const serverName = "id.example.org"

// service is everything in this package over one database.
type service struct {
	db       *sqlstore.DB
	clock    *clock
	log      *slog.Logger
	registry *prometheus.Registry
	metrics  *identity.Metrics
	proofs   *proofs
	openID   *openID
}

func newService(t testing.TB) *service { return newServiceOn(t, storetest.SQLite(t)) }

func newServiceOn(t testing.TB, url string) *service {
	t.Helper()
	db, err := sqlstore.Open(t.Context(), sqlstore.Options{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	registry := prometheus.NewRegistry()
	return &service{
		db:       db,
		clock:    &clock{now: time.UnixMilli(1_800_000_000_123)},
		log:      slog.New(slog.DiscardHandler),
		registry: registry,
		metrics:  identity.NewMetrics(registry),
		proofs:   &proofs{all: make(map[string]proof)},
		openID:   &openID{users: map[string]string{"alice": "@alice:example.org", "mallory": "@alice:example.com"}},
	}
}

func (s *service) accounts(t testing.TB) *identity.Accounts {
	t.Helper()
	a, err := identity.NewAccounts(identity.AccountsOptions{
		Store: s.db, OpenID: s.openID, Now: s.clock.Now, Log: s.log, Metrics: s.metrics,
	})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (s *service) peppers(t testing.TB, change func(*identity.PeppersOptions)) *identity.Peppers {
	t.Helper()
	o := identity.PeppersOptions{
		Store: s.db, Directory: s.db, Now: s.clock.Now, Log: s.log, Metrics: s.metrics, Batch: 3,
	}
	if change != nil {
		change(&o)
	}
	p, err := identity.OpenPeppers(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (s *service) keyring(t testing.TB) *identity.Keyring {
	t.Helper()
	k, err := identity.OpenKeyring(t.Context(), identity.KeyringOptions{Store: s.db, Now: s.clock.Now, Log: s.log})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (s *service) directory(t testing.TB, p *identity.Peppers, change func(*identity.DirectoryOptions)) *identity.Directory {
	t.Helper()
	o := identity.DirectoryOptions{
		Store: s.db, Peppers: p, Keys: s.keyring(t), Proofs: s.proofs, ServerName: serverName,
		PlainLookup: true, Now: s.clock.Now, Metrics: s.metrics,
	}
	if change != nil {
		change(&o)
	}
	d, err := identity.NewDirectory(o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// clock is set by tests.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// proofs stands for validation sessions.
type proofs struct {
	mu  sync.Mutex
	all map[string]proof // by sid; every client secret is "secret"
}

type proof struct {
	identity.Proof
	err error
}

// add adds a validated session for an address in any spelling.
func (p *proofs) add(t testing.TB, sid, medium, address string) threepid.ID {
	t.Helper()
	id, err := threepid.ParseAddress(medium, address)
	if err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all[sid] = proof{Proof: identity.Proof{ID: id, OriginalSpelling: address}}
	return id
}

func (p *proofs) Validated(ctx context.Context, _, sid, secret string) (identity.Proof, error) {
	return p.Proven(ctx, sid, secret)
}

func (p *proofs) Proven(_ context.Context, sid, secret string) (identity.Proof, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	found, ok := p.all[sid]
	if !ok || secret != "secret" {
		return identity.Proof{}, threepid.ErrNoSession
	}
	return found.Proof, found.err
}

// openID stands for the homeserver example.org.
type openID struct {
	users map[string]string // by token
	err   error
}

func (o *openID) UserInfo(_ context.Context, server, token string) (string, error) {
	if o.err != nil {
		return "", o.err
	}
	user, ok := o.users[token]
	if !ok || server != "example.org" {
		return "", identity.ErrOpenIDRefused
	}
	return user, nil
}
