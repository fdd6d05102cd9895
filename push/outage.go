package push

import (
	"context"
	"sync"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"
)

const (
	// outageSlots is into how many parts the window is divided. Of what happens
	// in one, one failure and one success count: a cut connection fails all pushes
	// that are on it at once, and is no outage.
	outageSlots = 100
	// outageProbes is how many pushes find out whether an outage is over. The
	// first success says that it is, as many failures that it is not.
	outageProbes = 3
)

// outage finds out whether an app's push service works at all, as far as this
// process can tell, and keeps the app from waiting for it while it does not.
//
// Anybody can have a push for a device of their own fail as often as they like,
// if there is a way to make it fail at all. So a device's failure counts once in
// the window, and a device is one probe at most.
type outage struct {
	slot, window, wait time.Duration

	mu        sync.Mutex
	breaker   circuitbreaker.CircuitBreaker[any]
	good, bad time.Time         // when one was last counted
	failed    map[Key]time.Time // until when a device's failure does not count, or it is no probe
	probes    int               // on their way
	misses    int               // probes that failed since the service was last left alone
}

func newOutage(t Trouble) *outage {
	return &outage{
		slot: t.Window / outageSlots, window: t.Window, wait: t.Wait,
		breaker: circuitbreaker.NewBuilder[any]().
			WithFailureRateThreshold(float64(t.Share)/100, uint(t.Pushes), t.Window).
			WithDelay(t.Wait).WithJitterFactor(0.2).Build(),
		failed: make(map[Key]time.Time),
	}
}

// admit reports whether an attempt may be made, and whether as a probe.
func (o *outage) admit(device Key, now time.Time) (ok, probe bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.breaker.IsClosed() {
		return true, false
	}
	if o.breaker.IsOpen() {
		if o.breaker.RemainingDelay() > 0 {
			return false, false
		}
		o.breaker.HalfOpen()
		o.probes, o.misses = 0, 0
		clear(o.failed)
	}
	if o.probes+o.misses >= outageProbes || now.Before(o.failed[device]) {
		return false, false
	}
	o.probes++
	o.failed[device] = now.Add(o.wait)
	return true, true
}

// answer is told what came of an attempt that was admitted. It returns the state
// before and after.
func (o *outage) answer(device Key, s sign, probe bool, now time.Time) (was, is circuitbreaker.State) {
	o.mu.Lock()
	defer o.mu.Unlock()
	was = o.breaker.State()
	switch {
	case was == circuitbreaker.ClosedState:
		o.count(device, s, now)
	case was == circuitbreaker.HalfOpenState && probe:
		o.probes--
		o.judge(device, s)
	}
	return was, o.breaker.State()
}

func (o *outage) count(device Key, s sign, now time.Time) {
	switch {
	case s == signOfLife && now.Sub(o.good) >= o.slot:
		o.good = now
		o.breaker.RecordSuccess()
	case s == signOfOutage && now.Sub(o.bad) >= o.slot && !now.Before(o.failed[device]):
		o.bad = now
		for d, until := range o.failed { // there are no more than slots
			if !now.Before(until) {
				delete(o.failed, d)
			}
		}
		o.failed[device] = now.Add(o.window)
		o.breaker.RecordFailure()
	}
}

func (o *outage) judge(device Key, s sign) {
	switch s {
	case signOfLife:
		clear(o.failed)
		o.breaker.Close()
	case signOfOutage:
		if o.misses++; o.misses == outageProbes {
			o.breaker.Open()
		}
	case noSign:
		delete(o.failed, device)
	}
}

// left returns how long the push service is still left alone, at least a second.
func (o *outage) left() time.Duration { return max(o.breaker.RemainingDelay(), time.Second) }

func (o *outage) state() circuitbreaker.State { return o.breaker.State() }

// sign is what the outcome of an attempt says about the push service.
type sign uint8

const (
	noSign sign = iota
	signOfLife
	signOfOutage
)

// sign returns what o says about the push service. patient is whether the attempt
// was given the time that one needs.
func (o *Outcome) sign(patient bool) sign {
	switch o.Reason {
	case ReasonUnavailable:
		return signOfOutage
	case ReasonConnection, ReasonUncertain, ReasonTimeout:
		if o.Status == 0 && patient {
			return signOfOutage
		}
		return noSign
	}
	if o.Status != 0 {
		return signOfLife
	}
	return noSign
}

// tellOutage tells an app's outage what came of an attempt, and the operator when
// that changes what is known.
func (g *Gateway) tellOutage(ctx context.Context, t *task, out Outcome, patient, probe bool) {
	was, is := t.lane.outage.answer(t.query.PushKey, out.sign(patient), probe, time.Now())
	if was == is && !probe {
		return
	}
	g.opts.Metrics.outageState(t.app, is)
	switch {
	case was == is:
	case was == circuitbreaker.ClosedState:
		g.opts.Log.WarnContext(ctx, "the push service does not work: homeservers are told to come back later", "app", t.app.Name,
			"reason", out.Reason, "status", out.Status, "detail", out.Detail, "err", out.Err)
	case is == circuitbreaker.ClosedState:
		g.opts.Log.InfoContext(ctx, "the push service works again", "app", t.app.Name)
	}
}
