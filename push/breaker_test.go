package push_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matrix-herald/herald/push"
)

func (c *climate) expectBreaker(want float64) {
	c.t.Helper()
	if got := count(c.t, c.reg, "herald_push_breaker_open", "app", "app"); got != want {
		c.t.Errorf("the gauge shows %v, want %v", got, want)
	}
}

func refusedFor(reason push.Reason) push.Outcome {
	return push.Outcome{Kind: push.Temporary, Reason: reason, Status: 403, Detail: "InvalidProviderToken"}
}

func TestARefusedAppIsAskedOnlyNowAndThen(t *testing.T) {
	t.Parallel()
	for _, reason := range []push.Reason{push.ReasonCredentials, push.ReasonConfig} {
		synctest.Test(t, func(t *testing.T) {
			refused := refusedFor(reason)
			c := newClimate(t, refused)
			c.expectBreaker(0)
			for range 5 {
				expect(t, "a refused device", c.next(), refused)
			}
			c.expectBreaker(1)
			for range 3 {
				out := c.next()
				if out.Kind != push.Temporary || out.Reason != push.ReasonBreaker || out.RetryAfter <= 0 {
					t.Fatalf("with an open breaker: %+v", out)
				}
			}
			if n := c.asked(); n != 5 {
				t.Errorf("%d attempts, want 5", n)
			}
			// Three devices find out, and are refused; later one is taken.
			<-time.After(13 * time.Second)
			for range 3 {
				expect(t, "a probe", c.next(), refused)
			}
			if out := c.next(); out.Reason != push.ReasonBreaker {
				t.Errorf("after refused probes: %+v", out)
			}
			<-time.After(13 * time.Second)
			c.change(all(sent))
			expect(t, "a probe", c.next(), sent)
			c.expectBreaker(0)
			expect(t, "afterwards", c.next(), sent)
			if log := c.log.String(); strings.Count(log, "refuses the app") != 1 || strings.Count(log, "takes the app's pushes again") != 1 {
				t.Errorf("the log says\n%s", log)
			}
		})
	}
}

func TestOneRefusedDeviceDoesNotOpenTheBreaker(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		refused := refusedFor(push.ReasonConfig)
		c := newClimate(t, sent)
		c.change(func(pushKey string) push.Outcome {
			if strings.HasPrefix(pushKey, "odd") {
				return refused
			}
			return sent
		})
		for i := range 100 {
			expect(t, "an odd device", c.push(fmt.Sprint("odd ", i%4)), refused)
		}
		expect(t, "another", c.next(), sent)
		c.expectBreaker(0)

		// Nor does it keep one open that others would close.
		c.change(all(refused))
		for range 5 {
			c.next()
		}
		c.expectBreaker(1)
		<-time.After(13 * time.Second)
		for i := range 100 {
			out := c.push("odd")
			if probe := i == 0; probe != (out == refused) {
				t.Fatalf("attempt %d: %+v", i, out)
			}
		}
		c.change(all(sent))
		expect(t, "another one's probe", c.next(), sent)
		c.expectBreaker(0)
	})
}

func TestOtherFailuresDoNotOpenTheBreaker(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, out := range []push.Outcome{tooMany, broken, gone, cut} {
			c := newClimate(t, out)
			for range 8 {
				if got := c.next(); got.Reason == push.ReasonBreaker {
					t.Fatalf("%+v", got)
				}
			}
			c.expectBreaker(0)
		}
	})
}

func TestNewSettingsCloseTheBreaker(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newClimate(t, refusedFor(push.ReasonCredentials))
		for range 5 {
			c.next()
		}
		c.expectBreaker(1)
		c.reload("")
		c.expectBreaker(0)
		c.change(all(sent))
		expect(t, "after a reload", c.next(), sent)
	})
}
