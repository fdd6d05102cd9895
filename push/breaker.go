package push

import (
	"context"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"
)

const (
	// refusalThreshold is how many devices in a row an app's credentials or
	// settings are refused for before its push service is left alone.
	refusalThreshold = 5
	// refusalWait is how long that is, before a few pushes find out whether it
	// refuses still.
	refusalWait = 10 * time.Second
)

// refusal is the gate of an app that its push service refuses: Apple closes
// connections of those who ask again with each notification, and Google counts it.
type refusal struct{ gate }

func newRefusal() *refusal {
	return &refusal{newGate(refusalWait, circuitbreaker.NewBuilder[any]().WithFailureThreshold(refusalThreshold))}
}

func (r *refusal) answer(device Key, s sign, probe bool, now time.Time) (was, is circuitbreaker.State) {
	return r.gate.answer(device, s, probe, func() {
		switch {
		case s == good:
			clear(r.failed)
			r.breaker.RecordSuccess()
		case s == bad && r.failed[device].IsZero(): // there are no more than the threshold
			r.failed[device] = now
			r.breaker.RecordFailure()
		}
	})
}

// consents returns what o says about whether the push service takes the app's
// credentials and settings.
func (o *Outcome) consents() sign {
	switch {
	case o.Kind == Temporary && (o.Reason == ReasonCredentials || o.Reason == ReasonConfig):
		return bad
	case o.Status != 0:
		return good
	}
	return none
}

// tellRefusal tells an app's refusal what came of an attempt, and the operator
// when that changes what is known.
func (g *Gateway) tellRefusal(ctx context.Context, t *task, out Outcome, probe bool) {
	was, is := t.lane.refusal.answer(t.query.PushKey, out.consents(), probe, time.Now())
	switch {
	case was == is:
	case was == circuitbreaker.ClosedState:
		g.opts.Metrics.breakerOpen(t.app, true)
		g.opts.Log.ErrorContext(ctx, "the push service refuses the app, and is asked only now and then", "app", t.app.Name,
			"reason", out.Reason, "status", out.Status, "detail", out.Detail)
	case is == circuitbreaker.ClosedState:
		g.opts.Metrics.breakerOpen(t.app, false)
		g.opts.Log.InfoContext(ctx, "the push service takes the app's pushes again", "app", t.app.Name)
	}
}
