package identity_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/matrix-herald/herald/identity"
)

func register(t *testing.T, a *identity.Accounts) string {
	t.Helper()
	token, err := a.Register(t.Context(), "example.org", "alice")
	if err != nil {
		t.Fatal(err)
	}
	return token
}

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
	a, ctx := s.accounts(t), t.Context()
	used, idle := register(t, a), register(t, a)
	const day = 24 * time.Hour
	for range 4 { // a use every 60 days keeps the one alive
		s.clock.advance(60 * day)
		if _, err := a.Account(ctx, used); err != nil {
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

// writes counts the tokens touched.
type writes struct {
	identity.AccountStore
	n int
}

func (w *writes) TouchToken(ctx context.Context, token identity.Digest, now time.Time) error {
	w.n++
	return w.AccountStore.TouchToken(ctx, token, now)
}

func TestUseOfATokenIsWrittenOnceADay(t *testing.T) {
	t.Parallel()
	s := newService(t)
	store := &writes{AccountStore: s.db}
	a, err := identity.NewAccounts(identity.AccountsOptions{
		Store: store, OpenID: s.openID, Now: s.clock.Now, Log: s.log, Metrics: s.metrics,
	})
	if err != nil {
		t.Fatal(err)
	}
	token := register(t, a)
	for range 3 * 24 {
		s.clock.advance(time.Hour)
		if _, err := a.Account(t.Context(), token); err != nil {
			t.Fatal(err)
		}
	}
	if store.n != 3 {
		t.Errorf("%d writes in three days of hourly use, want 3", store.n)
	}
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
