package push_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/push"
)

var (
	wrongTopic     = push.Outcome{Kind: push.Rejected, Reason: push.ReasonWrongTopic, Status: 400, Detail: "DeviceTokenNotForTopic"}
	senderMismatch = push.Outcome{Kind: push.Rejected, Reason: push.ReasonSenderMismatch, Status: 403, Detail: "SENDER_ID_MISMATCH"}
	malformed      = push.Outcome{Kind: push.Rejected, Reason: push.ReasonMalformedPushKey}
)

// Conformance (answers): wrong pushkeys before the first accepted push: BadDeviceToken, DeviceTokenNotForTopic, SENDER_ID_MISMATCH, FCM's invalid token (≠ Sygnal: rejected) | 502
// Conformance (attacks): having pushkeys called dead, by a wrong setting or an outage | believed once a push was accepted; when most are dead, none is given up (also TestTheGuardTripsAndRecovers)
func TestWrongPushkeysAreBelievedOnceAPushWasAccepted(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		answer    push.Outcome
		atFirst   push.Kind
		asksAgain bool
	}{
		"unknown token":          {badToken, push.Temporary, true},
		"another app's token":    {wrongTopic, push.Temporary, true},
		"another sender's token": {senderMismatch, push.Temporary, true},
		"a token that was one":   {gone, push.Rejected, false},
		"no token at all":        {malformed, push.Rejected, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &service{script: map[string][]push.Outcome{"k": {tt.answer, tt.answer}, "other": {tt.answer}}}
			reg := prometheus.NewRegistry()
			g := newGateway(t, reg, s, nil)
			got := g.Deliver(t.Context(), event("$1"), devices("k"))[0]
			if got.Kind != tt.atFirst || got.Status != tt.answer.Status || got.Detail != tt.answer.Detail {
				t.Errorf("before an accepted push: %+v", got)
			}
			if got.Kind == push.Temporary && (got.Reason != push.ReasonWithheld || got.Err == nil) {
				t.Errorf("before an accepted push: %+v", got)
			}
			if got := g.Deliver(t.Context(), event("$1"), devices("alive"))[0]; got != sent {
				t.Fatalf("%+v", got)
			}
			g.Deliver(t.Context(), event("$1"), devices("k"))
			if asked := len(s.attempts("k")) == 2; asked != tt.asksAgain {
				t.Errorf("asked again: %v", asked)
			}
			if got := g.Deliver(t.Context(), event("$1"), devices("other"))[0]; got != tt.answer {
				t.Errorf("after an accepted push: %+v", got)
			}

			// With other settings it all begins again.
			apps, err := push.NewApps([]push.App{{Name: "app", ProviderName: "apns", Provider: s, MaxInFlight: 2, Fingerprint: "new"}})
			if err != nil {
				t.Fatal(err)
			}
			g.SetApps(apps)
			s.script["third"] = []push.Outcome{tt.answer}
			if got := g.Deliver(t.Context(), event("$1"), devices("third"))[0]; got.Kind != tt.atFirst {
				t.Errorf("with new settings: %+v", got)
			}
			if proven := count(t, reg, "herald_push_guard_proven", "app", "app"); proven != 0 {
				t.Error("the new settings count as proven")
			}
		})
	}
}

// crowd drives a gateway with one push for each device.
type crowd struct {
	t *testing.T
	g *push.Gateway
	s *service
	n int
}

// push sends to a new device, for which the push service has this answer.
func (c *crowd) push(answer push.Outcome) push.Outcome {
	c.n++
	key := fmt.Sprint("device ", c.n)
	c.s.script[key] = []push.Outcome{answer}
	return c.g.Deliver(c.t.Context(), event("$1"), devices(key))[0]
}

func (c *crowd) pushMany(n int, answer push.Outcome) (last push.Outcome) {
	for range n {
		last = c.push(answer)
	}
	return last
}

func newCrowd(t *testing.T, reg *prometheus.Registry, change func(*push.Options)) *crowd {
	s := &service{script: make(map[string][]push.Outcome)}
	return &crowd{t: t, g: newGateway(t, reg, s, change), s: s}
}

// known has so many new devices get a push that is accepted.
func (c *crowd) known(n int) (pushKeys []string) {
	for range n {
		c.push(sent)
		pushKeys = append(pushKeys, fmt.Sprint("device ", c.n))
	}
	return pushKeys
}

// die has the push service call a device dead.
func (c *crowd) die(pushKey string) push.Outcome {
	c.s.script[pushKey] = []push.Outcome{gone}
	return c.g.Deliver(c.t.Context(), event("$dead"), devices(pushKey))[0]
}

// Conformance (answers): most pushes of an app come back dead (≠ Sygnal: all pushers are deleted) | 502 until they are accepted again; what was remembered is forgotten (also TestBackends, TestCluster)
func TestTheGuardTripsAndRecovers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var logged bytes.Buffer
		reg := prometheus.NewRegistry()
		c := newCrowd(t, reg, func(o *push.Options) { o.Log = slog.New(slog.NewTextHandler(&logged, nil)) })
		tripped := func() bool { return count(t, reg, "herald_push_guard_tripped", "app", "app") == 1 }
		phones := c.known(300)
		again := func(pushKey string) { c.g.Deliver(t.Context(), event("$2"), devices(pushKey)) }

		for _, phone := range phones[:49] {
			again(phone)
		}
		for _, phone := range phones[100:150] {
			if got := c.die(phone); got != gone || tripped() {
				t.Fatalf("the guard trips within a round: %+v", got)
			}
		}
		if got := c.die(phones[150]); got.Kind != push.Temporary || got.Reason != push.ReasonWithheld || got.Status != 410 || !tripped() {
			t.Fatalf("51 of 100 pushes come back dead: %+v", got)
		}
		// What was remembered is forgotten; while the guard is tripped, nothing
		// is remembered.
		for range 2 {
			if got := c.die(phones[120]); got.Reason == push.ReasonRemembered {
				t.Errorf("a rejection of before: %+v", got)
			}
		}

		// Neither time nor a few good pushes are enough, but a good round is.
		<-time.After(time.Hour)
		for i := range 99 {
			again(phones[160+i])
			if !tripped() {
				t.Fatalf("believed after %d good pushes", i)
			}
		}
		again(phones[299])
		if got := c.die(phones[298]); got != gone || tripped() {
			t.Errorf("not believed after a round of which most are good: %+v", got)
		}
		if got := c.g.Deliver(t.Context(), event("$3"), devices(phones[298]))[0]; got != remembered {
			t.Errorf("a rejection after the recovery: %+v", got)
		}
		for text, n := range map[string]int{"come back dead": 1, "accepted again": 1} {
			if got := strings.Count(logged.String(), text); got != n {
				t.Errorf("%q is logged %d times, want %d:\n%s", text, got, n, &logged)
			}
		}
	})
}

// Pushkeys that never had a push are anybody's to make up: they change nothing for
// the others, and are believed dead no longer themselves.
//
// Conformance (answers): pushkeys that somebody makes up, or one dead one posted again and again | trip nothing (also TestADeadPushkeyCountsOnce)
// Conformance (attacks): a hundred made-up tokens a request that are all called dead | they are counted apart, and one token is one pushkey however it is written: afterwards a phone that is gone is still rejected (also TestATokenIsOneHoweverItIsWritten)
func TestMadeUpPushkeysDoNotTripTheGuard(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	c := newCrowd(t, reg, nil)
	phone := c.known(1)[0]
	c.pushMany(98, gone)
	if got := c.push(gone); got.Reason != push.ReasonWithheld {
		t.Errorf("made-up pushkeys are believed dead: %+v", got)
	}
	if got := c.die(phone); got != gone {
		t.Errorf("a phone that was there is not: %+v", got)
	}
	if n := count(t, reg, "herald_push_guard_tripped", "app", "app"); n != 0 {
		t.Error("a stranger wakes the operator")
	}
}

// One's own dead pushkey counts once, whatever pushkey_ts comes with it.
func TestADeadPushkeyCountsOnce(t *testing.T) {
	t.Parallel()
	c := newCrowd(t, prometheus.NewRegistry(), nil)
	phones := c.known(2)
	for ts := range int64(120) {
		ds := devices(phones[0])
		ds[0].PushKeyTS = ts + 1
		c.s.script[phones[0]] = []push.Outcome{gone}
		c.g.Deliver(t.Context(), event("$2"), ds)
	}
	if got := c.die(phones[1]); got != gone {
		t.Errorf("another phone: %+v", got)
	}
}

// One phone whose token is written in many ways is one phone, for the guard too.
//
// Conformance (answers): one token in many ways of writing; a `pushkey_ts` to come | one pushkey in all that is remembered; counts as now (also TestADeadPushkeyIsRemembered)
func TestATokenIsOneHoweverItIsWritten(t *testing.T) {
	t.Parallel()
	c := newCrowd(t, prometheus.NewRegistry(), nil)
	phones := c.known(1)
	var written []string
	for i := range 120 {
		written = append(written, "mine"+strings.Repeat("+", i))
	}
	for _, pushKey := range written {
		c.g.Deliver(t.Context(), event("$1"), devices(pushKey))
	}
	for _, pushKey := range written {
		c.die(pushKey)
	}
	if got := c.die(phones[0]); got != gone {
		t.Errorf("another phone that dies: %+v", got)
	}
	asked := len(c.s.sent)
	if got := c.g.Deliver(t.Context(), event("$2"), devices("no token?"))[0]; got != malformed || len(c.s.sent) != asked {
		t.Errorf("what cannot be a token: %+v after %d pushes", got, len(c.s.sent)-asked)
	}
}

// slow answers for one device late, and takes all others.
type slow struct {
	asked, answer chan struct{}
}

func (slow) Destination(*push.Device) string { return "slow" }

func (slow) Address(d *push.Device) string { return d.PushKey }

func (s slow) Send(_ context.Context, d push.Delivery) push.Outcome {
	if d.Device.PushKey != "k" {
		return sent
	}
	close(s.asked)
	<-s.answer
	return badToken
}

// The wrong settings were wrong when the push service was asked, although it was
// right about another device before it answered.
//
// Conformance (answers): what came back dead before, but was asked before the first accepted push | 502
func TestAVerdictFromBeforeTheFirstAcceptedPushIsNotBelieved(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := slow{make(chan struct{}), make(chan struct{})}
		apps, err := push.NewApps([]push.App{{Name: "app", ProviderName: "apns", Provider: p, MaxInFlight: 10}})
		if err != nil {
			t.Fatal(err)
		}
		g := newGateway(t, prometheus.NewRegistry(), nil, nil)
		g.SetApps(apps)
		late := make(chan push.Outcome)
		deliver := func() { late <- g.Deliver(t.Context(), event("$1"), devices("k"))[0] }
		go deliver()
		<-p.asked
		synctest.Wait()
		if got := g.Deliver(t.Context(), event("$1"), devices("alive"))[0]; got != sent {
			t.Errorf("a right pushkey: %+v", got)
		}
		close(p.answer)
		if got := <-late; got.Kind != push.Temporary || got.Reason != push.ReasonWithheld {
			t.Errorf("a pushkey that was asked about before: %+v", got)
		}
	})
}

// Pushkeys that are URLs have a push service of their own under the same app_id.
// What the one says is nothing for or against the other.
//
// Conformance (answers): one app_id for FCM and UnifiedPush | each has its own guard and its own first accepted push; a push that an endpoint takes does not hide that FCM refuses
func TestTheFormsOfAnAppsPushkeysAreJudgedApart(t *testing.T) {
	t.Parallel()
	refused := push.Outcome{Kind: push.Temporary, Reason: push.ReasonConfig, Status: 400}
	tokens := &service{script: map[string][]push.Outcome{"wrong": {senderMismatch, senderMismatch}, "refused": {refused}}}
	urls := &service{script: make(map[string][]push.Outcome)}
	reg := prometheus.NewRegistry()
	g := newGateway(t, reg, nil, nil)
	apps, err := push.NewApps([]push.App{{
		Name: "app", ProviderName: "fcm", Provider: tokens, MaxInFlight: 20, Fingerprint: "fcm",
		URLs: &push.App{Name: "app", ProviderName: "unifiedpush", Provider: urls, MaxInFlight: 20, Fingerprint: "unifiedpush"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	g.SetApps(apps)
	deliver := func(id, pushKey string) push.Outcome { return g.Deliver(t.Context(), event(id), devices(pushKey))[0] }
	deliver("$1", "refused")
	url := func(i int) string { return fmt.Sprint("https://push.example.org/", i) }
	for i := range 60 {
		deliver("$1", url(i))
		deliver("$2", url(i%49))
	}
	if n := count(t, reg, "herald_push_app_refused", "provider", "fcm"); n != 1 {
		t.Error("a push that an endpoint took hides that FCM refuses the app")
	}
	if got := deliver("$1", "wrong"); got.Reason != push.ReasonWithheld {
		t.Errorf("a token before FCM took one: %+v", got)
	}
	deliver("$1", "alive")
	deliver("$1", "dies")
	for i := range 60 {
		urls.script[url(i)] = []push.Outcome{gone}
		deliver("$3", url(i))
	}
	g.SetApps(apps) // as a reload does
	if n := count(t, reg, "herald_push_guard_tripped", "provider", "unifiedpush"); n != 1 {
		t.Error("60 of 100 endpoints are dead, and believed to be")
	}
	tokens.script["dies"] = []push.Outcome{gone}
	if got := deliver("$3", "dies"); got != gone {
		t.Errorf("a token that dies while endpoints are not believed dead: %+v", got)
	}
	if got := deliver("$2", "wrong"); got != senderMismatch {
		t.Errorf("a token after FCM took one: %+v", got)
	}
}
