package push

import (
	"context"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"
)

const (
	// breakerThreshold is how many refusals of an app's credentials or settings
	// in a row open its breaker.
	breakerThreshold = 5
	// breakerDelay is how long the push service is then left alone before one
	// push finds out whether it refuses still.
	breakerDelay = 10 * time.Second
)

// breaker keeps an app that its push service refuses from asking again with each
// notification: Apple closes connections of those who do, and Google counts it.
type breaker struct {
	circuitbreaker.CircuitBreaker[any]
}

func newBreaker() breaker {
	return breaker{circuitbreaker.NewBuilder[any]().
		WithFailureThreshold(breakerThreshold).WithSuccessThreshold(1).
		WithDelay(breakerDelay).WithJitterFactor(0.2).Build()}
}

// left returns how long the push service is still left alone, at least a second.
func (b breaker) left() time.Duration { return max(b.RemainingDelay(), time.Second) }

// tellBreaker tells an app's breaker what came of an attempt, and the operator when
// that opens or closes it.
func (g *Gateway) tellBreaker(ctx context.Context, app *App, out Outcome) {
	was := app.breaker.IsClosed()
	if out.Kind == Temporary && (out.Reason == ReasonCredentials || out.Reason == ReasonConfig) {
		app.breaker.RecordFailure()
	} else if out.Status != 0 || !was { // what it did not answer says nothing, but a permit must be given back
		app.breaker.RecordSuccess()
	}
	switch is := app.breaker.IsClosed(); {
	case was && !is:
		g.opts.Metrics.breakerOpen(app, true)
		g.opts.Log.ErrorContext(ctx, "the push service refuses the app, and is asked only now and then", "app", app.Name,
			"reason", out.Reason, "status", out.Status, "detail", out.Detail)
	case !was && is:
		g.opts.Metrics.breakerOpen(app, false)
		g.opts.Log.InfoContext(ctx, "the push service takes the app's pushes again", "app", app.Name)
	}
}
