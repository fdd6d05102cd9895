package push

import (
	"context"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"
)

// outageSlots is into how many parts the window is divided. Of what happens in
// one, one failure and one success count: a cut connection fails all pushes that
// are on it at once, and is no outage.
const outageSlots = 100

// outage is the gate of an app whose push service does not work, as far as this
// process can tell.
type outage struct {
	gate
	slot, window time.Duration
	good, bad    time.Time // when one was last counted
}

func newOutage(t Trouble) *outage {
	return &outage{
		gate: newGate(t.Wait, circuitbreaker.NewBuilder[any]().
			WithFailureRateThreshold(float64(t.Share)/100, uint(t.Pushes), t.Window)),
		slot: t.Window / outageSlots, window: t.Window,
	}
}

func (o *outage) answer(device Key, s sign, probe bool, now time.Time) (was, is circuitbreaker.State) {
	return o.gate.answer(device, s, probe, func() {
		switch {
		case s == good && now.Sub(o.good) >= o.slot:
			o.good = now
			o.breaker.RecordSuccess()
		case s == bad && now.Sub(o.bad) >= o.slot && !now.Before(o.failed[device]):
			o.bad = now
			for d, until := range o.failed { // there are no more than slots
				if !now.Before(until) {
					delete(o.failed, d)
				}
			}
			o.failed[device] = now.Add(o.window)
			o.breaker.RecordFailure()
		}
	})
}

func (o *outage) state() circuitbreaker.State { return o.breaker.State() }

// works returns what o says about whether the push service works. patient is
// whether the attempt was given the time that one needs.
func (o *Outcome) works(patient bool) sign {
	switch o.Reason {
	case ReasonUnavailable:
		return bad
	case ReasonConnection, ReasonUncertain, ReasonTimeout:
		if o.Status == 0 && patient {
			return bad
		}
		return none
	}
	if o.Status != 0 {
		return good
	}
	return none
}

// tellOutage tells an app's outage what came of an attempt, and the operator when
// that changes what is known.
func (g *Gateway) tellOutage(ctx context.Context, t *task, out Outcome, patient, probe bool) {
	was, is := t.lane.outage.answer(t.query.PushKey, out.works(patient), probe, time.Now())
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
