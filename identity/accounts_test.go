package identity_test

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/identity/storetest"
)

func register(t *testing.T, a *identity.Accounts) string {
	t.Helper()
	token, err := a.Register(t.Context(), "example.org", "alice")
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// Conformance (accounts): several tokens of a user; logout ends one; again, 401 `M_UNKNOWN_TOKEN` (also TestAccount)
func TestRegistrationsLiveSideBySide(t *testing.T) {
	t.Parallel()
	a, ctx := newService(t).accounts(t), t.Context()
	first, second := register(t, a), register(t, a)
	if first == second || len(first) < 32 {
		t.Errorf("tokens %q and %q", first, second)
	}
	if err := a.Logout(ctx, first); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Account(ctx, first); !errors.Is(err, identity.ErrUnauthorized) {
		t.Errorf("after logging out: got %v, want ErrUnauthorized", err)
	}
	if err := a.Logout(ctx, first); !errors.Is(err, identity.ErrUnknownToken) {
		t.Errorf("second logout: got %v, want ErrUnknownToken", err)
	}
	if account, err := a.Account(ctx, second); err != nil || account.UserID != "@alice:example.org" {
		t.Errorf("the other token: got %v, %v", account, err)
	}
}

func TestTokensThatAreNone(t *testing.T) {
	t.Parallel()
	a, ctx := newService(t).accounts(t), t.Context()
	token := register(t, a)
	for _, other := range []string{"", "x", token + " ", strings.ToLower(token)} {
		if _, err := a.Account(ctx, other); !errors.Is(err, identity.ErrUnauthorized) {
			t.Errorf("got %v, want ErrUnauthorized", err)
		}
	}
	if err := a.Logout(ctx, ""); !errors.Is(err, identity.ErrUnauthorized) {
		t.Errorf("logout without a token: got %v, want ErrUnauthorized", err)
	}
}

func TestRegistrationsThatFail(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		sub  string // what the homeserver answers
		err  error  // of the exchange
		want error
	}{
		"a token the homeserver does not know":       {err: identity.ErrOpenIDRefused, want: identity.ErrOpenIDRefused},
		"a homeserver that does not answer":          {err: identity.ErrUnreachable, want: identity.ErrUnreachable},
		"a user of another server":                   {sub: "@a:example.com", want: identity.ErrOpenIDMismatch},
		"a user of a server that only ends the same": {sub: "@a:evil.example.org", want: identity.ErrOpenIDMismatch},
		"a user of a server in other case":           {sub: "@a:Example.org", want: identity.ErrOpenIDMismatch},
		"a second server behind the first":           {sub: "@a:example.com:example.org", want: identity.ErrOpenIDMismatch},
		"no sigil":                                   {sub: "a:example.org", want: identity.ErrOpenIDMismatch},
		"no server":                                  {sub: "@a", want: identity.ErrOpenIDMismatch},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newService(t)
			s.openID.users["t"], s.openID.err = c.sub, c.err
			token, err := s.accounts(t).Register(t.Context(), "example.org", "t")
			if token != "" || !errors.Is(err, c.want) {
				t.Errorf("got %q, %v; want %v", token, err, c.want)
			}
		})
	}
}

func TestTokensExpireWhenTheyAreIdle(t *testing.T) {
	t.Parallel()
	s := newService(t)
	a, noted := s.noting(t, s.db)
	ctx := t.Context()
	used, idle := register(t, a), register(t, a)
	const day = 24 * time.Hour
	for range 4 { // a use every 60 days keeps the one alive
		s.clock.advance(60 * day)
		if _, err := a.Account(ctx, used); err != nil {
			t.Fatal(err)
		}
		if err := <-noted; err != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.Account(ctx, idle); !errors.Is(err, identity.ErrUnauthorized) {
		t.Errorf("after 240 idle days: got %v, want ErrUnauthorized", err)
	}
	if err := a.Logout(ctx, idle); !errors.Is(err, identity.ErrUnknownToken) {
		t.Errorf("logout after 240 idle days: got %v, want ErrUnknownToken", err)
	}
	s.clock.advance(180*day - time.Millisecond)
	if _, err := a.Account(ctx, used); err != nil {
		t.Errorf("just before 180 idle days: %v", err)
	}
}

// noted tells what became of each note of a token's use.
type noted struct {
	identity.AccountStore
	touched chan error
}

func (n *noted) TouchToken(ctx context.Context, token identity.Digest, now time.Time) error {
	err := n.AccountStore.TouchToken(ctx, token, now)
	select {
	case n.touched <- err:
	case <-ctx.Done():
	}
	return err
}

// noting returns Accounts that run until the end of the test, and what became
// of each note of a token's use.
func (s *service) noting(t *testing.T, store identity.AccountStore) (*identity.Accounts, <-chan error) {
	t.Helper()
	n := &noted{AccountStore: store, touched: make(chan error)}
	a, err := identity.NewAccounts(identity.AccountsOptions{
		Store: n, OpenID: s.openID, Now: s.clock.Now, Log: s.log, Metrics: s.metrics,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run returned %v", err)
		}
	})
	return a, n.touched
}

func TestUseOfATokenIsWrittenOnceADay(t *testing.T) {
	t.Parallel()
	s := newService(t)
	a, noted := s.noting(t, s.db)
	token := register(t, a)
	for hour := 1; hour <= 3*24; hour++ {
		s.clock.advance(time.Hour)
		if _, err := a.Account(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		if hour%24 == 0 {
			if err := <-noted; err != nil {
				t.Fatal(err)
			}
			continue
		}
		select {
		case err := <-noted:
			t.Errorf("a write after %d hours: %v", hour, err)
		default:
		}
	}
}

// TestRequestsDoNotWaitToNoteTheUseOfAToken holds the write lock as another
// process would, for as long as it takes.
func TestRequestsDoNotWaitToNoteTheUseOfAToken(t *testing.T) {
	t.Parallel()
	url := storetest.SQLite(t)
	s := newServiceOn(t, url)
	a, noted := s.noting(t, s.db)
	token := register(t, a)
	s.clock.advance(25 * time.Hour)

	other, err := sql.Open("sqlite", strings.TrimPrefix(url, "sqlite:")+"?_pragma=busy_timeout(20000)")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	other.SetMaxOpenConns(1)
	if _, err := other.ExecContext(t.Context(), "BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		account, err := a.Account(t.Context(), token)
		if err != nil || account.UserID != "@alice:example.org" {
			t.Errorf("got %v, %v", account, err)
		}
		select {
		case err := <-noted:
			t.Errorf("it waited until the use was noted: %v", err)
		default:
		}
	}
	if _, err := other.ExecContext(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if err := <-noted; err != nil {
		t.Errorf("the use was not noted afterwards: %v", err)
	}
}

func TestTokensWorkWhenTheirUseCannotBeNoted(t *testing.T) {
	t.Parallel()
	s := newService(t)
	a, noted := s.noting(t, untouchable{s.db})
	token := register(t, a)
	s.clock.advance(25 * time.Hour)
	for range 2 { // the second use is noted again, or tried to be
		if account, err := a.Account(t.Context(), token); err != nil || account.UserID != "@alice:example.org" {
			t.Errorf("got %v, %v", account, err)
		}
		if err := <-noted; err == nil {
			t.Error("it was noted")
		}
	}
}

// untouchable refuses to note the use of tokens.
type untouchable struct{ identity.AccountStore }

func (untouchable) TouchToken(context.Context, identity.Digest, time.Time) error {
	return errors.New("away")
}

// sweeps has n rows to sweep and fails the first time.
type sweeps struct {
	identity.AccountStore
	calls chan int
	n     int
}

func (s *sweeps) SweepAccounts(_ context.Context, _ time.Time, limit int) (int, error) {
	if s.n < 0 {
		s.n = -s.n
		s.calls <- -1
		return 0, errors.New("away")
	}
	swept := min(limit, s.n)
	s.n -= swept
	s.calls <- swept
	return swept, nil
}

func TestSweepRunsEveryHourAndOutlivesFailures(t *testing.T) {
	t.Parallel()
	s := newService(t)
	synctest.Test(t, func(t *testing.T) {
		store := &sweeps{calls: make(chan int), n: -1500}
		a, err := identity.NewAccounts(identity.AccountsOptions{
			Store: store, OpenID: s.openID, Now: time.Now, Log: s.log, Metrics: s.metrics,
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- a.Run(ctx) }()
		begin := time.Now()
		for _, want := range []struct {
			n  int
			at time.Duration
		}{{-1, 0}, {1000, time.Hour}, {500, time.Hour}, {0, time.Hour}, {0, 2 * time.Hour}} {
			if n := <-store.calls; n != want.n || time.Since(begin) != want.at {
				t.Errorf("swept %d after %v, want %d after %v", n, time.Since(begin), want.n, want.at)
			}
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run returned %v", err)
		}
	})
}

func TestSweepRemovesExpiredTokens(t *testing.T) {
	t.Parallel()
	s := newService(t)
	a := s.accounts(t)
	register(t, a)
	s.clock.advance(identity.DefaultIdleLife)
	kept := register(t, a)
	if err := a.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Account(t.Context(), kept); err != nil {
		t.Errorf("the token in use: %v", err)
	}
	if err := testutil.GatherAndCompare(s.registry, strings.NewReader(`
# HELP herald_identity_swept_rows_total Expired access tokens, invites and deliveries and abandoned consents removed.
# TYPE herald_identity_swept_rows_total counter
herald_identity_swept_rows_total 1
`), "herald_identity_swept_rows_total"); err != nil {
		t.Error(err)
	}
}
