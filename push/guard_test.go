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
			apps, err := push.NewApps([]push.App{{Name: "app", ProviderName: "apns", Provider: s, MaxInFlight: 1, Fingerprint: "new"}})
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

func TestTheGuardTripsAndRecovers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var logged bytes.Buffer
		reg := prometheus.NewRegistry()
		c := newCrowd(t, reg, func(o *push.Options) { o.Log = slog.New(slog.NewTextHandler(&logged, nil)) })
		tripped := func() bool { return count(t, reg, "herald_push_guard_tripped", "app", "app") == 1 }

		c.pushMany(49, sent)
		if got := c.pushMany(50, gone); got != gone || tripped() {
			t.Fatalf("the guard trips before 100 pushes: %+v", got)
		}
		early := fmt.Sprint("device ", c.n)
		if got := c.push(gone); got.Kind != push.Temporary || got.Reason != push.ReasonWithheld || got.Status != 410 || !tripped() {
			t.Fatalf("51 of 100 pushes come back dead: %+v", got)
		}

		// What was remembered is forgotten; while the guard is tripped, nothing
		// is remembered.
		c.s.script[early] = []push.Outcome{gone}
		for range 2 {
			if got := c.g.Deliver(t.Context(), event("$2"), devices(early))[0]; got.Kind != push.Temporary && got != sent {
				t.Errorf("a rejection of before: %+v", got)
			}
		}
		if n := len(c.s.attempts(early)); n != 3 {
			t.Errorf("%d attempts at a pushkey of before, want all 3", n)
		}

		// Neither time nor a few good pushes are enough.
		<-time.After(time.Hour)
		c.pushMany(10, sent)
		if got := c.push(gone); got.Kind != push.Temporary || !tripped() {
			t.Errorf("believed after ten good pushes: %+v", got)
		}
		c.pushMany(90, sent)
		if got := c.push(gone); got != gone || tripped() {
			t.Errorf("not believed after 100 pushes of which most are good: %+v", got)
		}
		last := fmt.Sprint("device ", c.n)
		if got := c.g.Deliver(t.Context(), event("$2"), devices(last))[0]; got != remembered {
			t.Errorf("a rejection after the recovery: %+v", got)
		}
		for text, n := range map[string]int{"come back dead": 1, "accepted again": 1} {
			if got := strings.Count(logged.String(), text); got != n {
				t.Errorf("%q is logged %d times, want %d:\n%s", text, got, n, &logged)
			}
		}
		if n := count(t, reg, "herald_push_rejections_withheld_total", "app", "app"); n != 3 {
			t.Errorf("%v rejections withheld, want 3", n)
		}
	})
}

func TestWhatTripsTheGuard(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		terms func(*push.Terms)
		do    func(*crowd)
		want  bool
	}{
		"half of the pushes dead": {nil, func(c *crowd) { c.pushMany(100, sent); c.pushMany(100, gone) }, false},
		"more than half":          {nil, func(c *crowd) { c.pushMany(100, sent); c.pushMany(101, gone) }, true},
		"failures do not count":   {nil, func(c *crowd) { c.pushMany(99, gone); c.pushMany(100, unavailable) }, false},
		"our own checks do not":   {nil, func(c *crowd) { c.pushMany(99, gone); c.pushMany(100, malformed) }, false},
		"what was long ago does not": {nil, func(c *crowd) {
			c.pushMany(99, gone)
			<-time.After(20 * time.Minute)
			c.pushMany(99, gone)
		}, false},
		"the window before does": {nil, func(c *crowd) {
			c.pushMany(99, gone)
			<-time.After(10 * time.Minute)
			c.push(gone)
		}, true},
		"remembered ones do not": {nil, func(c *crowd) {
			c.pushMany(98, gone)
			for range 10 {
				c.g.Deliver(c.t.Context(), event("$1"), devices("device 1"))
			}
		}, false},
		"a smaller number of pushes":  {func(o *push.Terms) { o.GuardPushes = 10 }, func(c *crowd) { c.pushMany(10, gone) }, true},
		"a higher share":              {func(o *push.Terms) { o.GuardShare = 90 }, func(c *crowd) { c.pushMany(11, sent); c.pushMany(90, gone) }, false},
		"never, if that is the share": {func(o *push.Terms) { o.GuardShare = 100 }, func(c *crowd) { c.pushMany(300, gone) }, false},
		"a shorter window": {func(o *push.Terms) { o.GuardWindow = time.Minute }, func(c *crowd) {
			c.pushMany(99, gone)
			<-time.After(2 * time.Minute)
			c.pushMany(99, gone)
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				terms := push.DefaultTerms()
				if tt.terms != nil {
					tt.terms(&terms)
				}
				reg := prometheus.NewRegistry()
				c := newCrowd(t, reg, func(o *push.Options) { o.Ledger = newMemory(t, terms) })
				tt.do(c)
				if got := count(t, reg, "herald_push_guard_tripped", "app", "app") == 1; got != tt.want {
					t.Errorf("tripped: %v, want %v", got, tt.want)
				}
			})
		})
	}
}

// slow answers for one device late, and takes all others.
type slow struct {
	asked, answer chan struct{}
}

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
		go deliver() // waits for the first, and asks how the app fares after it
		synctest.Wait()
		if got := g.Deliver(t.Context(), event("$1"), devices("alive"))[0]; got != sent {
			t.Errorf("a right pushkey: %+v", got)
		}
		close(p.answer)
		for range 2 {
			if got := <-late; got.Kind != push.Temporary || got.Reason != push.ReasonWithheld {
				t.Errorf("a pushkey that was asked about before: %+v", got)
			}
		}
	})
}
