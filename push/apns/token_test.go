package apns_test

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/apns"
	"github.com/matrix-herald/herald/push/pushtest"
)

// noon is the start of a half hour.
var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

type clock struct{ at atomic.Int64 }

func (c *clock) now() time.Time { return time.Unix(c.at.Load(), 0) }

// set sets the clock to minutes after noon.
func (c *clock) set(minutes float64) {
	c.at.Store(noon.Add(time.Duration(minutes * float64(time.Minute))).Unix())
}

// tokenApp is a provider with a fake that share a clock. The fake can be told to
// refuse the token in use.
type tokenApp struct {
	app
	clock  *clock
	key    pushtest.TokenKey
	refuse atomic.Pointer[string]
	reason atomic.Pointer[pushtest.APNsAnswer]
}

func startTokens(t *testing.T) *tokenApp {
	t.Helper()
	a := &tokenApp{clock: new(clock), key: pushtest.NewTokenKey(t)}
	a.clock.set(0)
	a.fake = pushtest.StartAPNs(t, pushtest.APNsOptions{Key: &a.key, Now: a.clock.now, Answer: a.answer})
	a.Provider = a.replica(t)
	return a
}

func (a *tokenApp) answer(r pushtest.APNsRequest) pushtest.APNsAnswer {
	if refused := a.refuse.Load(); refused != nil && *refused == bearer(r) {
		return *a.reason.Load()
	}
	return pushtest.APNsAnswer{}
}

// refuseCurrent makes the fake refuse the token that is in use now.
func (a *tokenApp) refuseCurrent(t *testing.T, status int, reason string) {
	t.Helper()
	token := a.token(t)
	a.reason.Store(&pushtest.APNsAnswer{Status: status, Reason: reason})
	a.refuse.Store(&token)
}

// replica opens the app in another process, so to speak.
func (a *tokenApp) replica(t *testing.T) *apns.Provider {
	t.Helper()
	connections := connect(t, apns.Options{RootCAs: a.fake.CA().Pool(), Now: a.clock.now})
	return open(t, connections, tokenConfig(t, a.key, a.fake.URL()))
}

// token sends a push, which must be taken, and returns its provider token.
func (a *tokenApp) token(t *testing.T) string {
	t.Helper()
	return bearer(send(t, a.app, delivery(message("@a:x", "", "hi"))))
}

// issued is the minute after noon at which the token in use was issued.
func (a *tokenApp) issued(t *testing.T) float64 {
	t.Helper()
	at, ok := pushtest.ProviderTokenIssued(a.key, a.token(t))
	if !ok {
		t.Fatal("the token cannot be verified")
	}
	return at.Sub(noon).Minutes()
}

func bearer(r pushtest.APNsRequest) string {
	return strings.TrimPrefix(r.Header.Get("authorization"), "bearer ")
}

// Conformance (APNs): provider token: one for a team and key, the same on all replicas, by half hours (also TestAllProcessesUseTheSameProviderToken)
func TestProviderTokensFollowTheHalfHours(t *testing.T) {
	t.Parallel()
	a := startTokens(t)
	for _, step := range []struct{ at, issued float64 }{
		{7, 0}, {29.9, 0}, {30, 30}, {59, 30}, {60, 60}, {200, 180},
	} {
		a.clock.set(step.at)
		if got := a.issued(t); got != step.issued {
			t.Errorf("at minute %v the token is of minute %v, want %v", step.at, got, step.issued)
		}
	}
}

func TestAllProcessesUseTheSameProviderToken(t *testing.T) {
	t.Parallel()
	a := startTokens(t)
	a.clock.set(3)
	first := a.token(t)
	a.clock.set(29) // a process that starts later
	other := &tokenApp{app: app{a.replica(t), a.fake}, clock: a.clock, key: a.key}
	if second := other.token(t); second != first {
		t.Errorf("two processes use two tokens:\n%s\n%s", first, second)
	}
	a.clock.set(31)
	if a.token(t) != other.token(t) {
		t.Error("two processes use two tokens in the next half hour")
	}
}

// Conformance (APNs): ExpiredProviderToken: renewed once, never twice in 20 minutes for a team; TooManyProviderTokenUpdates keeps it (also TestAYoungProviderTokenIsNotRenewed, TestKeysOfOneTeamShareItsRenewals, TestTooManyUpdatesKeepTheProviderToken)
func TestAnExpiredProviderTokenIsRenewedOnce(t *testing.T) {
	t.Parallel()
	a := startTokens(t)
	a.clock.set(25)
	a.refuseCurrent(t, 403, "ExpiredProviderToken")
	before := a.fake.Count()
	if got := a.issued(t); got != 25 {
		t.Errorf("the renewed token is of minute %v, want 25", got)
	}
	requests := a.fake.Requests()[before:]
	if len(requests) != 2 {
		t.Fatalf("%d requests were made, want the refused one and another", len(requests))
	}
	if got := requests[1].Header.Get("apns-id"); got != id || got != requests[0].Header.Get("apns-id") {
		t.Errorf("the second request has the id %q, want that of the first", got)
	}
	for _, step := range []struct{ at, issued float64 }{{30, 25}, {44, 25}, {45, 30}, {60, 30}, {64, 30}, {65, 60}, {90, 90}} {
		a.clock.set(step.at)
		if got := a.issued(t); got != step.issued {
			t.Errorf("at minute %v the token is of minute %v, want %v: never two updates in 20 minutes", step.at, got, step.issued)
		}
	}
}

func TestAYoungProviderTokenIsNotRenewed(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(*tokenApp){
		"the half hour began less than 20 minutes ago": func(a *tokenApp) {
			a.clock.set(19)
			a.refuseCurrent(t, 403, "ExpiredProviderToken")
		},
		"it was renewed less than 20 minutes ago": func(a *tokenApp) {
			a.clock.set(21)
			a.refuseCurrent(t, 403, "ExpiredProviderToken")
			a.token(t) // renewed
			a.clock.set(40)
			a.refuseCurrent(t, 403, "ExpiredProviderToken")
		},
		"Apple found less than 20 minutes ago that it is renewed too often": func(a *tokenApp) {
			a.clock.set(25)
			a.refuseCurrent(t, 429, "TooManyProviderTokenUpdates")
			if got := a.Send(t.Context(), delivery(message("@a:x", "", "hi"))); got.Reason != push.ReasonRateLimited {
				t.Errorf("got %+v, want rate limited", got)
			}
			a.reason.Store(&pushtest.APNsAnswer{Status: 403, Reason: "ExpiredProviderToken"})
			a.clock.set(44)
		},
	} {
		a := startTokens(t)
		prepare(a)
		before := a.fake.Count()
		got := a.Send(t.Context(), delivery(message("@a:x", "", "hi")))
		if got.Kind != push.Temporary || got.Reason != push.ReasonCredentials || got.Unprocessed {
			t.Errorf("%s: got %+v, want credentials", name, got)
		}
		if n := a.fake.Count() - before; n != 1 {
			t.Errorf("%s: %d requests were made, want 1", name, n)
		}
	}
}

func TestTooManyUpdatesKeepTheProviderToken(t *testing.T) {
	t.Parallel()
	a := startTokens(t)
	a.clock.set(29)
	old := a.token(t)
	a.refuseCurrent(t, 429, "TooManyProviderTokenUpdates")
	if got := a.Send(t.Context(), delivery(message("@a:x", "", "hi"))); got.Reason != push.ReasonRateLimited {
		t.Errorf("got %+v, want rate limited", got)
	}
	a.clock.set(39) // another complaint does not extend the wait
	if got := a.Send(t.Context(), delivery(message("@a:x", "", "hi"))); got.Reason != push.ReasonRateLimited {
		t.Errorf("got %+v, want rate limited", got)
	}
	a.refuse.Store(nil)
	for _, step := range []struct {
		at   float64
		kept bool
	}{{40, true}, {48, true}, {49, false}} {
		a.clock.set(step.at)
		if kept := a.token(t) == old; kept != step.kept {
			t.Errorf("at minute %v the old token is in use: %t, want %t", step.at, kept, step.kept)
		}
	}
}

func TestKeysOfOneTeamShareItsRenewals(t *testing.T) {
	t.Parallel()
	clock := new(clock)
	clock.set(25)
	var expired sync.Map // of provider tokens
	fake := pushtest.StartAPNs(t, pushtest.APNsOptions{Answer: func(r pushtest.APNsRequest) pushtest.APNsAnswer {
		if _, is := expired.Load(bearer(r)); is {
			return pushtest.APNsAnswer{Status: 403, Reason: "ExpiredProviderToken"}
		}
		return pushtest.APNsAnswer{}
	}})
	connections := connect(t, apns.Options{RootCAs: fake.CA().Pool(), Now: clock.now})
	var apps [3]app
	for i := range apps {
		key := pushtest.NewTokenKey(t)
		if i == 2 {
			key.TeamID = "OTHERTEAM0"
		}
		apps[i] = app{open(t, connections, tokenConfig(t, key, fake.URL())), fake}
		expired.Store(bearer(send(t, apps[i], delivery(message("@a:x", "", "hi")))), true)
	}
	for i, want := range []push.Kind{push.Accepted, push.Temporary, push.Accepted} {
		if got := apps[i].Send(t.Context(), delivery(message("@a:x", "", "hi"))); got.Kind != want {
			t.Errorf("app %d: got %+v, want %s", i, got, want)
		}
	}
}

func TestTheClockMayBeSetBack(t *testing.T) {
	t.Parallel()
	a := startTokens(t)
	a.clock.set(240)
	a.token(t)
	a.clock.set(265)
	a.refuseCurrent(t, 403, "ExpiredProviderToken") // renewed at a time that will not have been
	a.token(t)
	a.refuse.Store(nil)
	for _, step := range []struct{ at, issued float64 }{{7, 0}, {31, 30}, {60, 60}} {
		a.clock.set(step.at)
		if got := a.issued(t); got != step.issued {
			t.Errorf("at minute %v the token is of minute %v, want %v", step.at, got, step.issued)
		}
	}
}

func TestPushesAtOnceRenewTheProviderTokenTogether(t *testing.T) {
	t.Parallel()
	a := startTokens(t)
	a.clock.set(25)
	a.refuseCurrent(t, 403, "ExpiredProviderToken")
	var wg sync.WaitGroup
	for range 30 {
		wg.Go(func() {
			if got := a.Send(t.Context(), delivery(message("@a:x", "", "hi"))); got.Kind != push.Accepted {
				t.Errorf("got %+v, want accepted", got)
			}
		})
	}
	wg.Wait()
	tokens := make(map[string]bool)
	for _, r := range a.fake.Requests() {
		tokens[bearer(r)] = true
	}
	if len(tokens) != 2 {
		t.Errorf("%d provider tokens were used, want the refused one and one new", len(tokens))
	}
}
