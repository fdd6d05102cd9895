package push

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"time"

	"github.com/google/uuid"
)

// maxAttempts bounds the attempts at one device within one delivery. A push
// service that refuses three in a row is left to the homeserver's backoff.
const maxAttempts = 3

// send makes the attempts that n at the task's device needs.
func (g *Gateway) send(ctx context.Context, n *Notification, t *task) Outcome {
	app := t.app
	var last Outcome
	delivery := Delivery{Notification: n, Device: t.device, ID: uuid.NewString()}
	resent := false // after an uncertain attempt: once, with the same ID
	for attempt := 1; ; attempt++ {
		out := g.attempt(ctx, t, delivery)
		if attempt > 1 && (out.Reason == ReasonOutage || out.Reason == ReasonBreaker) {
			return last // it was not asked again
		}
		uncertain := out.Kind == Temporary && out.Reason == ReasonUncertain
		if uncertain {
			g.opts.Metrics.uncertain(app)
		}
		again := out.Kind == Temporary && out.RetryAfter == 0 && attempt < attemptsFor(out) &&
			(out.Unprocessed || uncertain && !resent)
		if !again || !wait(ctx, jitter(g.opts.RetryWait<<(attempt-1))) {
			return out
		}
		last, resent = out, resent || uncertain
		g.opts.Metrics.retry(app, out.Reason)
	}
}

// attemptsFor returns how many attempts an outcome allows. A push service that
// refuses the connection as idle (APNs' 400 IdleTimeout) is asked once more.
func attemptsFor(out Outcome) int {
	if out.Status == 400 {
		return 2
	}
	return maxAttempts
}

var errAttemptTimeout = errors.New("the attempt took longer than its timeout")

func (g *Gateway) attempt(ctx context.Context, t *task, delivery Delivery) Outcome {
	ctx, cancel := context.WithTimeoutCause(ctx, g.opts.AttemptTimeout, errAttemptTimeout)
	defer cancel()
	app, device, start := t.app, t.query.PushKey, time.Now()
	admitted, probesOutage := t.lane.outage.admit(device, start)
	if !admitted {
		return Outcome{Kind: Temporary, Reason: ReasonOutage, RetryAfter: t.lane.outage.left()}
	}
	admitted, probesRefusal := t.lane.refusal.admit(device, start)
	if !admitted {
		out := Outcome{Kind: Temporary, Reason: ReasonBreaker, RetryAfter: t.lane.refusal.left()}
		g.tellOutage(ctx, t, out, true, probesOutage)
		return out
	}
	out := g.ask(ctx, app, delivery)
	took := time.Since(start)
	// An attempt that our own deadline cut short says nothing.
	g.tellOutage(ctx, t, out, ctx.Err() == nil || took >= g.opts.AttemptTimeout/2, probesOutage)
	g.tellRefusal(ctx, t, out, probesRefusal)
	g.opts.Metrics.attempt(app, out, took)
	return out
}

var errPanic = errors.New("the provider panicked")

// ask has the provider make the attempt. A fault in its code costs this
// delivery and not the process. The panic's value may quote the message: only
// its type is logged.
func (g *Gateway) ask(ctx context.Context, app *App, delivery Delivery) (out Outcome) {
	defer func() {
		if v := recover(); v != nil {
			g.opts.Log.ErrorContext(ctx, "provider panicked", "app", app.Name, "type", fmt.Sprintf("%T", v), "stack", string(debug.Stack()))
			out = Outcome{Kind: Temporary, Reason: ReasonInternal, Err: errPanic}
		}
	}()
	return app.Provider.Send(ctx, delivery)
}

// jitter spreads d over its half to one and a half, so that what failed
// together does not come back together.
func jitter(d time.Duration) time.Duration {
	return d/2 + rand.N(d) //nolint:gosec // nobody gains by guessing it
}

// wait waits d and reports true, or false at once when ctx ends before that.
func wait(ctx context.Context, d time.Duration) bool {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= d {
		return false
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
