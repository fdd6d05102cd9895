package push_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/push"
)

var broken = push.Outcome{Kind: push.Temporary, Reason: push.ReasonUnavailable, Status: 502}

// weather is a push service in the test's own memory that fails for some devices
// and not for others.
type weather struct {
	mu   sync.Mutex
	fair func(pushKey string) push.Outcome
	n    int
}

func (w *weather) Send(_ context.Context, d push.Delivery) push.Outcome {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.n++
	return w.fair(d.Device.PushKey)
}

func (w *weather) change(fair func(pushKey string) push.Outcome) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fair = fair
}

func (w *weather) asked() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.n
}

func all(out push.Outcome) func(string) push.Outcome {
	return func(string) push.Outcome { return out }
}

// climate is a gateway for a weather.
type climate struct {
	*weather
	g   *push.Gateway
	reg *prometheus.Registry
	log bytes.Buffer
	t   *testing.T
	n   int // devices so far
}

func newClimate(t *testing.T, out push.Outcome) *climate {
	t.Helper()
	c := &climate{weather: &weather{fair: all(out)}, reg: prometheus.NewRegistry(), t: t}
	c.g = newGateway(t, c.reg, nil, func(o *push.Options) { o.Log = slog.New(slog.NewTextHandler(&c.log, nil)) })
	c.reload("")
	return c
}

func (c *climate) reload(fingerprint string) {
	c.t.Helper()
	apps, err := push.NewApps([]push.App{{Name: "app", ProviderName: "apns", Provider: c.weather, MaxInFlight: 1000, Fingerprint: fingerprint}})
	if err != nil {
		c.t.Fatal(err)
	}
	c.g.SetApps(apps)
}

func (c *climate) push(pushKey string) push.Outcome {
	return c.g.Deliver(c.t.Context(), &push.Notification{}, devices(pushKey))[0]
}

// next pushes to a device that had nothing yet, a while after the one before.
func (c *climate) next() push.Outcome {
	<-time.After(150 * time.Millisecond)
	c.n++
	return c.push(fmt.Sprint("device ", c.n))
}

func (c *climate) expectState(want float64) {
	c.t.Helper()
	if got := count(c.t, c.reg, "herald_push_outage_state", "app", "app"); got != want {
		c.t.Errorf("the gauge shows %v, want %v", got, want)
	}
}

// breakDown pushes until the push service is left alone.
func (c *climate) breakDown() {
	c.t.Helper()
	for range 10 {
		expect(c.t, "a push in an outage", c.next(), broken)
	}
	c.expectState(1)
}

func TestAPushServiceThatDoesNotWorkIsLeftAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newClimate(t, broken)
		c.expectState(0)
		c.breakDown()
		before := c.asked()
		for range 10 {
			out := c.next()
			if out.Kind != push.Temporary || out.Reason != push.ReasonOutage || out.RetryAfter <= 0 || out.RetryAfter > 6*time.Second {
				t.Fatalf("in an outage: %+v", out)
			}
		}
		if n := c.asked() - before; n != 0 {
			t.Errorf("it was asked %d times", n)
		}
		// Three devices find out that it does not work yet.
		<-time.After(6 * time.Second)
		for range 3 {
			expect(t, "a probe", c.push("first probe"), broken)
			if out := c.push("first probe"); out.Reason != push.ReasonOutage {
				t.Errorf("a second probe of one device: %+v", out)
			}
			expect(t, "a probe", c.next(), broken)
			expect(t, "a probe", c.next(), broken)
			if out := c.next(); out.Reason != push.ReasonOutage {
				t.Errorf("after the probes: %+v", out)
			}
			<-time.After(6 * time.Second)
		}
		// One finds out that it does.
		c.change(all(sent))
		expect(t, "a probe", c.next(), sent)
		c.expectState(0)
		expect(t, "afterwards", c.push("first probe"), sent)
		if log := c.log.String(); strings.Count(log, "does not work") != 1 || strings.Count(log, "works again") != 1 {
			t.Errorf("the log says\n%s", log)
		}
	})
}

func TestOneBadDeviceIsNoOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newClimate(t, sent)
		c.change(func(pushKey string) push.Outcome {
			if strings.HasPrefix(pushKey, "bad") {
				return broken
			}
			return sent
		})
		for i := range 1000 { // far more often than anybody else
			expect(t, "a bad device", c.push(fmt.Sprint("bad ", i%7)), broken)
			<-time.After(20 * time.Millisecond)
			if i%100 == 0 {
				expect(t, "a good one", c.next(), sent)
			}
		}
		c.expectState(0)
	})
}

func TestACutConnectionIsNoOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newClimate(t, cut)
		var wg sync.WaitGroup
		for i := range 500 { // all at once, and then once more
			wg.Go(func() { c.push(fmt.Sprint("device ", i)) })
		}
		wg.Wait()
		c.change(all(sent))
		expect(t, "afterwards", c.next(), sent)
		c.expectState(0)
	})
}

func TestWhatIsNoOutage(t *testing.T) {
	t.Parallel()
	for name, out := range map[string]push.Outcome{
		"patience for a device":  tooMany,
		"refused credentials":    {Kind: push.Temporary, Reason: push.ReasonStaleReport, Status: 410},
		"an idle connection":     idle,
		"dead pushkeys":          gone,
		"messages it cannot use": {Kind: push.Dropped, Reason: push.ReasonTooLarge, Status: 413},
		"a fault of ours":        {Kind: push.Temporary, Reason: push.ReasonInternal},
		"nothing to send":        {Kind: push.Accepted, Reason: push.ReasonNothingToSend},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := newClimate(t, out)
				for range 50 {
					if got := c.next(); got.Reason != out.Reason {
						t.Fatalf("%+v", got)
					}
				}
				c.expectState(0)
			})
		})
	}
}

func TestAServiceThatWorksForSomeIsNotLeftAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newClimate(t, sent)
		n := 0
		c.change(func(string) push.Outcome {
			if n++; n%2 == 0 {
				return sent
			}
			return broken
		})
		for range 200 {
			if out := c.next(); out.Reason == push.ReasonOutage {
				t.Fatalf("%+v", out)
			}
		}
	})
}

// An attempt for which no time was left says nothing about the push service.
func TestARequestsOwnDeadlineIsNoOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &service{delay: time.Second}
		reg := prometheus.NewRegistry()
		g := newGateway(t, reg, s, nil)
		deliver := func(within time.Duration, pushKey string) push.Outcome {
			ctx, cancel := context.WithTimeout(t.Context(), within)
			defer cancel()
			return g.Deliver(ctx, &push.Notification{}, devices(pushKey))[0]
		}
		for i := range 50 {
			if out := deliver(200*time.Millisecond, fmt.Sprint("hurried ", i)); out.Reason != push.ReasonUncertain {
				t.Fatalf("%+v", out)
			}
		}
		expect(t, "with time", deliver(5*time.Second, "k"), sent)
		s.delay = time.Minute
		var wg sync.WaitGroup
		for i := range 10 {
			<-time.After(150 * time.Millisecond)
			wg.Go(func() { deliver(25*time.Second, fmt.Sprint("device ", i)) })
		}
		wg.Wait()
		if state := count(t, reg, "herald_push_outage_state", "app", "app"); state != 1 {
			t.Error("a push service that does not answer is not left alone")
		}
	})
}

func TestAProbeThatSaysNothingGivesItsPlaceBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newClimate(t, broken)
		c.breakDown()
		<-time.After(6 * time.Second)
		c.change(all(push.Outcome{Kind: push.Rejected, Reason: push.ReasonMalformedPushKey}))
		for range 10 {
			if out := c.push("mallory"); out.Reason != push.ReasonMalformedPushKey {
				t.Fatalf("%+v", out)
			}
		}
		c.expectState(2)
		c.change(all(sent))
		expect(t, "a probe", c.next(), sent)
		c.expectState(0)
	})
}

func TestOtherSettingsAreTriedAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newClimate(t, broken)
		c.breakDown()
		c.reload("")
		c.expectState(1)
		if out := c.next(); out.Reason != push.ReasonOutage {
			t.Errorf("after a reload: %+v", out)
		}
		c.reload("another host")
		c.expectState(0)
		expect(t, "with other settings", c.next(), broken)
	})
}

// What was cut may have been accepted, even if it is not sent again.
func TestACutInAnOutageStaysUncertain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newClimate(t, cut)
		var wg sync.WaitGroup
		left := make(map[push.Reason]int)
		var mu sync.Mutex
		for i := range 80 {
			<-time.After(20 * time.Millisecond)
			wg.Go(func() {
				out := c.push(fmt.Sprint("device ", i))
				mu.Lock()
				defer mu.Unlock()
				left[out.Reason]++
			})
		}
		wg.Wait()
		c.expectState(1)
		if uncertain := count(t, c.reg, "herald_push_uncertain_total", "app", "app"); int(uncertain) < left[push.ReasonUncertain] || left[push.ReasonUncertain]+left[push.ReasonOutage] != 80 {
			t.Errorf("%v uncertain attempts, and %v", uncertain, left)
		}
		if c.asked() >= left[push.ReasonUncertain]*2 {
			t.Errorf("no push was held back from its second attempt: %d attempts, %v", c.asked(), left)
		}
	})
}
