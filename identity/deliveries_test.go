package identity_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/identity/storetest"
	"github.com/matrix-herald/herald/threepid"
)

// Conformance (federation): onbind | POST (the specification says PUT), no Authorization, signed, one invite each, `invites: []` without one (also TestOnBindPostsTheNotification, TestHomeserversCanCheckWhatTheyAreTold)
func TestHomeserverIsToldOfABinding(t *testing.T) {
	t.Parallel()
	s, n := newService(t), newNetwork(t)
	home := n.remote(t, "127.0.0.1:0")
	s.deliver(t, n, nil)
	bindAs(t, s, s.directory(t, s.peppers(t, nil), nil), home.user("alice"), "alice@example.com")
	got := home.next(t)
	key := active(t, s.keyring(t))
	verify(t, got.raw, key.ID(), key.PublicBase64())
	delete(got.raw, "signatures")
	ts := float64(s.clock.Now().UnixMilli())
	want := map[string]any{
		"medium": "email", "address": "alice@example.com", "mxid": home.user("alice"), "invites": []any{},
		"ts": ts, "not_before": ts, "not_after": ts + 3153600000000,
	}
	if diff := cmp.Diff(want, got.raw); diff != "" {
		t.Error(diff)
	}
}

// TestInviteIsSignedWithTheKeyOfItsTime is about a room that was told of the
// key from before a rotation, and checks invites with no other.
//
// Conformance (federation): `signed` | exactly `mxid` and `token`, with the key that the room was told of, rotated meanwhile or not (also TestInviteOfACompromisedKeyFails, TestHomeserversCanCheckWhatTheyAreTold)
func TestInviteIsSignedWithTheKeyOfItsTime(t *testing.T) {
	t.Parallel()
	s, n := newService(t), newNetwork(t)
	home := n.remote(t, "127.0.0.1:0")
	invites, _ := s.invites(t, nil)
	old := active(t, s.keyring(t))
	token := invited(t, invites, "alice@example.com")
	if _, err := s.keyring(t).Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.deliver(t, n, nil)
	bindAs(t, s, s.directory(t, s.peppers(t, nil), nil), home.user("alice"), "Alice@example.com")
	got := home.next(t)
	current := active(t, s.keyring(t))
	if old.ID() == current.ID() || len(got.Invites) != 1 {
		t.Fatalf("key %s, %d invites", current.ID(), len(got.Invites))
	}
	verify(t, got.raw, current.ID(), current.PublicBase64())
	invite := got.raw["invites"].([]any)[0].(map[string]any)
	signed := invite["signed"].(map[string]any)
	verify(t, signed, old.ID(), old.PublicBase64())
	bare := maps.Clone(signed)
	delete(bare, "signatures")
	if diff := cmp.Diff(map[string]any{"mxid": home.user("alice"), "token": token}, bare); diff != "" {
		t.Errorf("signed: %s", diff)
	}
	delete(invite, "signed")
	want := map[string]any{
		"medium": "email", "address": "alice@example.com", "mxid": home.user("alice"), "room_id": "!room:example.org",
		"sender": bob, "token": token,
	}
	if diff := cmp.Diff(want, invite); diff != "" {
		t.Error(diff)
	}
	record(t, s.db, token, identity.InviteUsed)
}

func TestInviteOfACompromisedKeyFails(t *testing.T) {
	t.Parallel()
	s, n := newService(t), newNetwork(t)
	home := n.remote(t, "127.0.0.1:0")
	invites, _ := s.invites(t, nil)
	token := invited(t, invites, "alice@example.com")
	k := s.keyring(t)
	if err := k.Compromise(t.Context(), active(t, k).ID()); err != nil {
		t.Fatal(err)
	}
	bindAs(t, s, s.directory(t, s.peppers(t, nil), nil), home.user("alice"), "alice@example.com")
	s.deliver(t, n, nil)
	if r := record(t, s.db, token, identity.InviteFailed); !strings.Contains(r.Failure, "compromised") {
		t.Errorf("failure %q", r.Failure)
	}
	if len(home.heard) != 0 {
		t.Error("the homeserver was told")
	}
}

// Conformance (federation): homeservers that refuse, hang, die, come back | 4xx with an errcode is final, everything else is tried again (also TestWhatHomeserversAnswerDecidesAnInvite, TestAHomeserverThatHangsAndDies, TestPausesGrow)
// Conformance (federation): success is 200; a homeserver's refusals come to an end (Synapse answers with an error for ever if a room is gone) | given up when the invite expires, at the latest (also TestPausesGrow, TestContract)
func TestHomeserversThatAreNotWell(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answers  []http.HandlerFunc
		requests int
		state    identity.InviteState
		failure  string
	}{
		"one that refuses for good":           {[]http.HandlerFunc{status(403, "M_FORBIDDEN")}, 1, identity.InviteFailed, "M_FORBIDDEN"},
		"one that does not know the room":     {[]http.HandlerFunc{status(400, "M_UNSUPPORTED_ROOM_VERSION")}, 1, identity.InviteFailed, "M_UNSUPPORTED_ROOM_VERSION"},
		"one that does not know the endpoint": {[]http.HandlerFunc{status(404, "M_UNRECOGNIZED")}, 2, identity.InviteUsed, ""},
		"one with another server before it":   {[]http.HandlerFunc{func(w http.ResponseWriter, _ *http.Request) { http.NotFound(w, nil) }}, 2, identity.InviteUsed, ""},
		"one that is too busy":                {[]http.HandlerFunc{status(429, "M_LIMIT_EXCEEDED")}, 2, identity.InviteUsed, ""},
		"one that is broken for a while":      {[]http.HandlerFunc{status(500, "M_UNKNOWN"), status(502, ""), status(503, "M_FORBIDDEN")}, 4, identity.InviteUsed, ""},
		"one that answers 201":                {[]http.HandlerFunc{status(201, "")}, 2, identity.InviteUsed, ""},
		"one that leads elsewhere":            {[]http.HandlerFunc{http.RedirectHandler("/", http.StatusTemporaryRedirect).ServeHTTP}, 2, identity.InviteUsed, ""},
		"one that hangs":                      {[]http.HandlerFunc{hang}, 2, identity.InviteUsed, ""},
		"one that dies":                       {[]http.HandlerFunc{die, die}, 3, identity.InviteUsed, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, n := newService(t), newNetwork(t)
			home := n.remote(t, "127.0.0.1:0", c.answers...)
			invites, _ := s.invites(t, nil)
			token := invited(t, invites, "alice@example.com")
			bindAs(t, s, s.directory(t, s.peppers(t, nil), nil), home.user("alice"), "alice@example.com")
			stop := s.deliver(t, n, func(o *identity.DeliveriesOptions) { o.Timeout = 500 * time.Millisecond })
			r := record(t, s.db, token, c.state)
			if r.Failure != c.failure || r.TakenBy != home.user("alice") {
				t.Errorf("failure %q, taken by %s", r.Failure, r.TakenBy)
			}
			stop()
			if got := len(home.heard); got != c.requests {
				t.Errorf("%d requests, want %d", got, c.requests)
			}
			// Nothing is left to be sent, ever.
			later := s.clock.Now().Add(48 * time.Hour)
			if left, err := s.db.ClaimDeliveries(t.Context(), "later", later, later, 10); len(left) != 0 || err != nil {
				t.Errorf("%d deliveries are left, %v", len(left), err)
			}
		})
	}
}

func TestHomeserverThatComesBack(t *testing.T) {
	t.Parallel()
	s, n := newService(t), newNetwork(t)
	away := n.ca.Server(t, "127.0.0.1:0", http.NotFoundHandler(), "127.0.0.1")
	name := away.Listener.Addr().String()
	away.Close()
	invites, _ := s.invites(t, nil)
	token := invited(t, invites, "alice@example.com")
	tried := make(chan struct{}, 1000)
	s.deliver(t, n, func(o *identity.DeliveriesOptions) {
		o.Homeservers = onBindFunc(func(ctx context.Context, server string, body []byte) error {
			err := n.OnBind(ctx, server, body)
			tried <- struct{}{}
			return err
		})
	})
	bindAs(t, s, s.directory(t, s.peppers(t, nil), nil), "@alice:"+name, "alice@example.com")
	for range 3 {
		<-tried
	}
	home := n.remote(t, name)
	if got := home.next(t); got.Invites[0].Token != token {
		t.Errorf("told %v", got)
	}
	record(t, s.db, token, identity.InviteUsed)
}

// onBindFunc is a function as identity.Homeservers.
type onBindFunc func(ctx context.Context, server string, body []byte) error

func (f onBindFunc) OnBind(ctx context.Context, server string, body []byte) error {
	return f(ctx, server, body)
}

// Conformance (federation): a stop, a crash, several replicas | what was answered with 200 is not told again (also TestAKillBeforeTheHomeserverIsToldLosesNothing, TestReplicasTellEachThingOnce)
func TestDeliveriesSurviveARestart(t *testing.T) {
	t.Parallel()
	s, n := newService(t), newNetwork(t)
	home := n.remote(t, "127.0.0.1:0", hang)
	invites, _ := s.invites(t, nil)
	token := invited(t, invites, "alice@example.com")
	bindAs(t, s, s.directory(t, s.peppers(t, nil), nil), home.user("alice"), "alice@example.com")
	stop := s.deliver(t, n, nil)
	home.next(t)
	stop() // with the request still open
	s.deliver(t, n, nil)
	home.next(t) // at once, not when the first attempt would have been given up
	record(t, s.db, token, identity.InviteUsed)
}

// Conformance (security): what homeservers have to be told survives everything and is told once (also TestReplicasTellEachThingOnce)
func TestDeliveriesSurviveACrash(t *testing.T) {
	t.Parallel()
	s, n := newService(t), newNetwork(t)
	home := n.remote(t, "127.0.0.1:0")
	invites, _ := s.invites(t, nil)
	token := invited(t, invites, "alice@example.com")
	bindAs(t, s, s.directory(t, s.peppers(t, nil), nil), home.user("alice"), "alice@example.com")
	now := s.clock.Now()
	dead, err := s.db.ClaimDeliveries(t.Context(), "dead", now, now.Add(time.Minute), 10)
	if err != nil || len(dead) != 1 {
		t.Fatal(len(dead), err)
	}
	s.clock.advance(time.Minute)
	s.deliver(t, n, nil)
	home.next(t)
	record(t, s.db, token, identity.InviteUsed)
}

func TestReplicasTellEachThingOnce(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, newDatabase func(testing.TB) string) {
		s, n := newServiceOn(t, newDatabase(t)), newNetwork(t)
		d := s.directory(t, s.peppers(t, nil), nil)
		invites, _ := s.invites(t, nil)
		const servers, each, replicas = 4, 8, 3
		want := make(map[string]int)
		var remotes []*remote
		for i := range servers {
			home := n.remote(t, "127.0.0.1:0")
			remotes = append(remotes, home)
			for j := range each {
				address := fmt.Sprintf("a%d-%d@example.com", i, j)
				if j%2 == 0 {
					want[invited(t, invites, address)] = 1
				} else {
					want[address] = 1
				}
				bindAs(t, s, d, home.user("alice"), address)
			}
		}
		recorded := make(chan struct{}, servers*each)
		var stops []func()
		for range replicas {
			stops = append(stops, s.deliver(t, n, func(o *identity.DeliveriesOptions) {
				o.Store = recorder{o.Store, recorded}
			}))
		}
		got := make(map[string]int)
		for _, home := range remotes {
			for range each {
				told := home.next(t)
				if len(told.Invites) == 1 {
					got[told.Invites[0].Token]++
				} else {
					got[told.Address]++
				}
			}
		}
		// A replica that stops before it has written down what it told leaves it to the
		// others to be told again.
		for range servers * each {
			<-recorded
		}
		for _, stop := range stops {
			stop()
		}
		for _, home := range remotes {
			if extra := len(home.heard); extra != 0 {
				t.Errorf("%d things were told twice", extra)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

// recorder is a store that tells when it has written down that something was
// delivered.
type recorder struct {
	identity.DeliveryStore
	recorded chan<- struct{}
}

func (r recorder) SettleDeliveries(ctx context.Context, results []identity.DeliveryResult, now time.Time) error {
	err := r.DeliveryStore.SettleDeliveries(ctx, results, now)
	for _, one := range results {
		if one.Told {
			r.recorded <- struct{}{}
		}
	}
	return err
}

// Conformance (federation): one homeserver that hangs | holds up itself
func TestOneHomeserverDoesNotHoldUpOthers(t *testing.T) {
	t.Parallel()
	s, n := newService(t), newNetwork(t)
	d := s.directory(t, s.peppers(t, nil), nil)
	slow := n.remote(t, "127.0.0.1:0", hang)
	quick := n.remote(t, "127.0.0.1:0")
	for i := range 10 {
		bindAs(t, s, d, slow.user("alice"), fmt.Sprintf("slow%d@example.com", i))
	}
	bindAs(t, s, d, quick.user("alice"), "quick@example.com")
	s.deliver(t, n, func(o *identity.DeliveriesOptions) { o.MaxInFlight = 2 })
	slow.next(t)
	quick.next(t)
	if told := len(slow.heard); told != 0 {
		t.Errorf("the slow one was told %d more things meanwhile", told)
	}
}

// TestAHomeserverThatTakesThingsIsToldSeveralAtOnce has one take the first, and
// then hold back its answers until it has got as many as it gets at once.
//
// Conformance (federation): many invites of one homeserver | sixteen at once, once it has taken one; with 100,000 due thousands leave in a second on loopback (also BenchmarkDeliveries)
func TestAHomeserverThatTakesThingsIsToldSeveralAtOnce(t *testing.T) {
	t.Parallel()
	s, n := newService(t), newNetwork(t)
	d := s.directory(t, s.peppers(t, nil), nil)
	const most = 16
	for i := range 2*most + 1 {
		bindAs(t, s, d, "@alice:hs.example", fmt.Sprintf("a%d@example.com", i))
	}
	told, answer := make(chan struct{}, 3*most), make(chan struct{})
	s.deliver(t, n, func(o *identity.DeliveriesOptions) {
		o.Homeservers = onBindFunc(func(context.Context, string, []byte) error {
			told <- struct{}{}
			<-answer
			return nil
		})
	})
	for _, atOnce := range []int{1, most, most} {
		for range atOnce {
			<-told
		}
		if extra := len(told); extra > 0 {
			t.Errorf("%d things at once, want %d", atOnce+extra, atOnce)
		}
		for range atOnce {
			answer <- struct{}{}
		}
	}
}

// TestNothingOfOneUserIsToldToAnother binds an address with invites to one user
// and then to another before the first one's homeserver has been reached.
func TestNothingOfOneUserIsToldToAnother(t *testing.T) {
	t.Parallel()
	s, n := newService(t), newNetwork(t)
	d := s.directory(t, s.peppers(t, nil), nil)
	first, second := n.remote(t, "127.0.0.1:0"), n.remote(t, "127.0.0.1:0")
	invites, _ := s.invites(t, nil)
	token := invited(t, invites, "shared@example.com")
	bindAs(t, s, d, first.user("alice"), "shared@example.com")
	bindAs(t, s, d, second.user("carol"), "shared@example.com")
	stop := s.deliver(t, n, nil)
	got := second.next(t)
	if len(got.Invites) != 0 || strings.Contains(fmt.Sprint(got.raw), token) || strings.Contains(fmt.Sprint(got.raw), first.name) {
		t.Errorf("told %v", got.raw)
	}
	record(t, s.db, token, identity.InviteStranded)
	stop()
	if len(first.heard) != 0 {
		t.Error("the first homeserver is told of a binding that is no more")
	}
}

// pauses is a store that hands out one delivery and takes down when it is due
// again.
type pauses struct {
	identity.DeliveryStore
	delivery  chan identity.Delivery
	postponed chan time.Time
}

func (p pauses) ClaimDeliveries(context.Context, string, time.Time, time.Time, int) ([]identity.Delivery, error) {
	select {
	case d := <-p.delivery:
		return []identity.Delivery{d}, nil
	default:
		return nil, nil
	}
}

func (p pauses) SettleDeliveries(_ context.Context, results []identity.DeliveryResult, _ time.Time) error {
	p.postponed <- results[0].Due
	return nil
}

func TestPausesGrow(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for name, c := range map[string]struct {
		attempt int
		age     time.Duration
		after   time.Duration // what the homeserver asks for
		want    time.Duration // and up to a fifth more
	}{
		"after the first attempt":                 {attempt: 1, want: 10 * time.Second},
		"after the second":                        {attempt: 2, want: 20 * time.Second},
		"after the fifth":                         {attempt: 5, want: 160 * time.Second},
		"no longer than an hour":                  {attempt: 12, want: time.Hour},
		"also after very many":                    {attempt: 1 << 40, want: time.Hour},
		"just before a day has passed":            {attempt: 30, age: day - 1, want: time.Hour},
		"daily from then on":                      {attempt: 30, age: day, want: day},
		"as long as the homeserver asks":          {attempt: 1, after: 5 * time.Minute, want: 5 * time.Minute},
		"no less because the homeserver asks":     {attempt: 12, after: time.Second, want: time.Hour},
		"no longer than a day whatever it may be": {attempt: 1, after: 1000 * day, want: day},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newService(t)
			store := pauses{delivery: make(chan identity.Delivery, 1), postponed: make(chan time.Time, 1)}
			s.deliver(t, nil, func(o *identity.DeliveriesOptions) {
				o.Store, o.Now, o.Retry = store, s.clock.Now, 0
				o.Homeservers = onBindFunc(func(context.Context, string, []byte) error {
					return &identity.LaterError{After: c.after, Err: errors.New("not now")}
				})
			})
			store.delivery <- identity.Delivery{
				Attempt: c.attempt,
				Binding: identity.Binding{ID: threepid.ID{Medium: "email", Address: "a@b.example"}, UserID: alice, TS: s.clock.Now().Add(-c.age)},
			}
			pause := (<-store.postponed).Sub(s.clock.Now())
			if pause < c.want || pause > c.want+c.want/5+1 {
				t.Errorf("%v, want %v", pause, c.want)
			}
		})
	}
}

func TestDeliveriesGoOnWhenTheDatabaseIsAway(t *testing.T) {
	t.Parallel()
	s, n := newService(t), newNetwork(t)
	home := n.remote(t, "127.0.0.1:0")
	store := &flaky{DeliveryStore: s.db, failures: make(chan struct{}, 3)}
	for range 3 {
		store.failures <- struct{}{}
	}
	s.deliver(t, n, func(o *identity.DeliveriesOptions) { o.Store = store })
	bindAs(t, s, s.directory(t, s.peppers(t, nil), nil), home.user("alice"), "alice@example.com")
	home.next(t)
}

// flaky fails to answer a few times.
type flaky struct {
	identity.DeliveryStore
	failures chan struct{}
}

func (f *flaky) ClaimDeliveries(ctx context.Context, claim string, now, lease time.Time, limit int) ([]identity.Delivery, error) {
	select {
	case <-f.failures:
		return nil, errors.New("away")
	default:
		return f.DeliveryStore.ClaimDeliveries(ctx, claim, now, lease, limit)
	}
}
