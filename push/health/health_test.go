package health_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/health"
)

var (
	works       = push.Outcome{Kind: push.Accepted, Evidence: push.EvidenceWorks}
	says        = push.Outcome{Kind: push.Rejected}
	refused     = push.Outcome{Kind: push.Temporary, Evidence: push.EvidenceRefused}
	unreachable = push.Outcome{Kind: push.Temporary, Evidence: push.EvidenceUnreachable}
	quota       = push.Outcome{Kind: push.Temporary, Evidence: push.EvidenceQuota, RetryAfter: time.Minute}
	throttled   = push.Outcome{Kind: push.Temporary, Evidence: push.EvidenceThrottled, RetryAfter: time.Minute}
)

// crowd asks a destination for many devices, one after the other.
type crowd struct {
	t *testing.T
	*health.Health
	n int
}

func newCrowd(t *testing.T) *crowd { return &crowd{t: t, Health: health.New(health.Options{})} }

// ask asks for a device, if the destination may be asked.
func (c *crowd) ask(device, source string, out push.Outcome) (held push.Reason, change push.HealthChange) {
	<-time.After(110 * time.Millisecond) // one of each slot counts
	wait, reason := c.Wait("here")
	if wait > 0 {
		return reason, push.HealthSame
	}
	key := push.Key{}
	copy(key[:], device)
	return "", c.Record("here", push.Witness{Device: key, Source: source}, out)
}

// next asks for so many new devices, each from a source of its own.
func (c *crowd) next(n int, out push.Outcome) (held push.Reason, change push.HealthChange) {
	for range n {
		c.n++
		held, change = c.ask(fmt.Sprint("device", c.n), fmt.Sprint("source", c.n), out)
	}
	return held, change
}

func (c *crowd) expectHeld(want push.Reason) {
	c.t.Helper()
	if held, _ := c.next(1, says); held != want {
		c.t.Errorf("held back as %q, want %q", held, want)
	}
	if state := c.State("here"); state.Reason != want {
		c.t.Errorf("the state is %+v, want %q", state, want)
	}
	if wait, _ := c.Wait("elsewhere"); wait != 0 {
		c.t.Errorf("another destination waits %s", wait)
	}
}

// Conformance (attempts): a push service that does not work or refuses the credentials: eight of the last ten answers | left alone for 5 s at a time, 503 or 502; one push finds out whether it works again
func TestADestinationThatDoesNotWorkIsLeftAlone(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		out  push.Outcome
		want push.Reason
	}{"unreachable": {unreachable, push.ReasonOutage}, "refuses our credentials": {refused, push.ReasonBreaker}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := newCrowd(t)
				c.next(7, tt.out)
				c.expectHeld("")
				if _, change := c.next(1, tt.out); change != push.HealthOpened {
					t.Errorf("the eighth failure changed %v", change)
				}
				c.expectHeld(tt.want)
				wait, _ := c.Wait("here")
				if wait <= 0 || wait > 6*time.Second {
					t.Errorf("left alone for %s", wait)
				}

				// One push finds out that it does not work yet; while it is under way
				// the others wait.
				<-time.After(6 * time.Second)
				if wait, _ := c.Wait("here"); wait != 0 {
					t.Fatalf("nobody finds out for %s", wait)
				}
				if wait, reason := c.Wait("here"); wait == 0 || reason != tt.want {
					t.Error("two find out at a time")
				}
				c.Record("here", push.Witness{}, says) // it was not asked after all
				c.next(1, tt.out)
				c.expectHeld(tt.want)

				// One finds out that it does.
				<-time.After(6 * time.Second)
				if _, change := c.next(1, works); change != push.HealthClosed {
					t.Errorf("the good probe changed %v", change)
				}
				c.expectHeld("")
			})
		})
	}
}

// Conformance (attempts): what a token or a payload can cause, one device that always fails, a cut connection, a service that works for some, a host that a pusher's owner chose | opens no breaker (also TestNothingIsKnownOfADestinationWithoutName)
// Conformance (attacks): data that Apple answers with BadPriority | what data or a token can cause is no evidence against the service; 1.0 is 1 (also TestResponses)
func TestWhatDoesNotOpenTheBreaker(t *testing.T) {
	t.Parallel()
	for name, do := range map[string]func(*crowd){
		"what a token or a payload can cause": func(c *crowd) { c.next(100, says) },
		"one device, as often as it likes": func(c *crowd) {
			for range 100 {
				c.ask("device", "source", unreachable)
			}
		},
		"a cut connection, which fails many pushes at once": func(c *crowd) {
			for i := range byte(100) {
				c.Wait("here")
				c.Record("here", push.Witness{Device: push.Key{i}}, unreachable)
			}
		},
		"failures beside as many successes": func(c *crowd) {
			for range 50 {
				c.next(1, unreachable)
				c.next(1, works)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := newCrowd(t)
				do(c)
				c.expectHeld("")
			})
		})
	}
}

// Conformance (attempts): 429 that names a quota of all; 429 for ten devices, at most two of one source, and half of the last forty devices (≠ Sygnal: each push asks) | the project or key is left alone: 429 with what is left, at most 5 minutes: ADR 4 (also TestWhetherATooManyIsForAll)
func TestAQuotaThatTheServiceNamesPausesAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t)
		if _, change := c.next(1, quota); change != push.HealthPaused {
			t.Errorf("changed %v", change)
		}
		c.expectHeld(push.ReasonPaused)
		<-time.After(67 * time.Second)
		c.expectHeld("")
		long := quota
		long.RetryAfter = 24 * time.Hour
		c.next(1, long)
		<-time.After(6 * time.Minute) // it is asked again, however long it wants
		c.expectHeld("")
	})
}

// Conformance (attempts): any other 429, or Retry-After | that device's alone
// Conformance (attacks): ten tokens over their quota, two from each of five addresses, 100 times a second | a pause for all takes half of the last forty devices, or an answer that names the project's quota
func TestWhetherATooManyIsForAll(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		do   func(*crowd)
		want push.Reason
	}{
		"ten devices": {func(c *crowd) { c.next(10, throttled) }, push.ReasonPaused},
		"nine":        {func(c *crowd) { c.next(9, throttled) }, ""},
		"two devices, as often as they like": {func(c *crowd) {
			for i := range 200 {
				c.ask(fmt.Sprint(i%2), fmt.Sprint(i), throttled)
			}
		}, ""},
		"many devices of four sources": {func(c *crowd) {
			for i := range 200 {
				c.ask(fmt.Sprint(i), fmt.Sprint(i%4), throttled)
			}
		}, ""},
		"two devices of each of five sources": {func(c *crowd) {
			for i := range 10 {
				c.ask(fmt.Sprint(i), fmt.Sprint(i%5), throttled)
			}
		}, push.ReasonPaused},
		"ten devices beside more that get their push": {func(c *crowd) { c.next(25, works); c.next(15, throttled) }, ""},
		"ten devices, as often as they like, beside as many more that get their push": {func(c *crowd) {
			c.next(11, works)
			for i := range 200 {
				c.ask(fmt.Sprint(i%10), fmt.Sprint(i%10/2), throttled)
			}
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := newCrowd(t)
				tt.do(c)
				c.expectHeld(tt.want)
			})
		})
	}
}

// A host that the pusher's owner chose has no state that others could meet.
func TestNothingIsKnownOfADestinationWithoutName(t *testing.T) {
	t.Parallel()
	h := health.New(health.Options{})
	for i := range byte(50) {
		h.Record("", push.Witness{Device: push.Key{i}}, refused)
		h.Record("", push.Witness{Device: push.Key{i}}, quota)
	}
	if wait, _ := h.Wait(""); wait != 0 || h.State("").Reason != "" {
		t.Errorf("it waits %s", wait)
	}
}
