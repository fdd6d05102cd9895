package push

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"time"

	"github.com/google/uuid"
)

const (
	// maxAttempts bounds the attempts at one device within one delivery. A push
	// service that refuses three in a row is left to the homeserver's backoff.
	maxAttempts = 3
	// busyRetryAfter is what a device is told when its app is at its limit: long
	// enough to shed load, short against the homeservers' backoff.
	busyRetryAfter = 2 * time.Second
	// warnEvery is the time between two warnings about one app. What one device's
	// data brings about may come in turns with the good pushes of others.
	warnEvery = 10 * time.Minute
)

// send takes one of the app's places and asks the push service, again where that
// repeats nothing, for as long as its destination may be asked.
func (g *Gateway) send(ctx context.Context, source string, d *delivery) Outcome {
	if !d.state.inFlight.acquire(ctx, source, d.claimed.Accepted) {
		return Outcome{Kind: Temporary, Reason: ReasonBusy, RetryAfter: busyRetryAfter}
	}
	inFlight := g.opts.Metrics.inFlight.WithLabelValues(d.app.Name, d.app.ProviderName)
	inFlight.Inc()
	defer func() {
		inFlight.Dec()
		d.state.inFlight.release(source, d.claimed.Accepted)
	}()
	d.push.ID = uuid.NewString()
	last := Outcome{Kind: Temporary, Reason: ReasonTimeout} // if nobody was asked in time
	resent := false                                         // after an uncertain attempt: once, with the same ID
	for attempt := 1; ; attempt++ {
		if ctx.Err() != nil {
			return last // a payload that nobody waits for costs the others
		}
		now := time.Now()
		if call := d.push.Call(now); call.Rings() && call.Left(now) == 0 {
			return Outcome{Kind: Accepted, Reason: ReasonNothingToSend} // a late ring is worse than none
		}
		held, reason := g.opts.Health.Wait(d.destination)
		switch {
		case held > 0 && attempt > 1:
			return last // it was not asked again
		case held > 0:
			// Spread, so that not all who wait come back at once.
			return Outcome{Kind: Temporary, Reason: reason, RetryAfter: held + rand.N(held/5+time.Second)} //nolint:gosec // nobody gains by guessing it
		}
		out := g.attempt(ctx, source, d)
		uncertain := out.Kind == Temporary && out.Reason == ReasonUncertain
		if uncertain {
			g.opts.Metrics.uncertains.WithLabelValues(d.app.Name, d.app.ProviderName).Inc()
		}
		// A connection that is refused as idle (APNs' 400 IdleTimeout) is tried once more.
		last400 := out.Status == 400 && attempt > 1
		again := out.Kind == Temporary && out.RetryAfter == 0 && attempt < maxAttempts && !last400 &&
			(out.Unprocessed || uncertain && !resent)
		pause := g.opts.RetryWait << (attempt - 1)
		if !again || !wait(ctx, pause/2+rand.N(pause)) { //nolint:gosec // what failed together is not to come back together
			return out
		}
		last, resent = out, resent || uncertain
		g.opts.Metrics.retries.WithLabelValues(d.app.Name, d.app.ProviderName, string(out.Reason)).Inc()
	}
}

var errAttemptTimeout = errors.New("the attempt took longer than its timeout")

// attempt asks the push service once, and tells health and the operator what that
// says about the service.
func (g *Gateway) attempt(ctx context.Context, source string, d *delivery) Outcome {
	ctx, cancel := context.WithTimeoutCause(ctx, g.opts.AttemptTimeout, errAttemptTimeout)
	defer cancel()
	start := time.Now()
	out := g.callProvider(ctx, d)
	took := time.Since(start)
	if ctx.Err() != nil && took < g.opts.AttemptTimeout/2 && out.Evidence == EvidenceUnreachable {
		out.Evidence = EvidenceNone // the request's own deadline cut it short
	}
	g.opts.Metrics.attempt(d.app, out, took)
	change := g.opts.Health.Record(d.destination, Witness{Device: d.claim.PushKey, Source: source}, out)
	g.tell(ctx, d, out, change)
	return out
}

var errPanic = errors.New("the provider panicked")

// callProvider has the provider make the attempt. A fault in its code costs this
// delivery and not the process. The panic's value may quote the message: only
// its type is logged.
func (g *Gateway) callProvider(ctx context.Context, d *delivery) (out Outcome) {
	defer func() {
		if v := recover(); v != nil {
			g.opts.Log.ErrorContext(ctx, "provider panicked", "app", d.app.Name, "type", fmt.Sprintf("%T", v), "stack", string(debug.Stack()))
			out = Outcome{Kind: Temporary, Reason: ReasonInternal, Err: errPanic}
		}
	}()
	return d.app.Provider.Send(ctx, d.push)
}

// tell tells the operator what an answer says about the app or its push service,
// once for each change.
func (g *Gateway) tell(ctx context.Context, d *delivery, out Outcome, change HealthChange) {
	refused := out.Reason == ReasonCredentials || out.Reason == ReasonConfig
	// A token or a payload of a stranger's may be all that is refused.
	ours := out.Evidence == EvidenceRefused || d.claimed.Accepted || !d.state.proven.Load()
	said := d.destination != "" && (refused && ours || out.Reason == ReasonSent) // else by a host of a stranger's choice
	if said && d.state.refused.Load() != refused && d.state.refused.Swap(refused) != refused {
		set(g.opts.Metrics.refused, d.app, refused)
		now, last := time.Now().Unix(), d.state.warned.Load()
		if refused && now-last >= int64(warnEvery.Seconds()) && d.state.warned.CompareAndSwap(last, now) {
			level := slog.LevelWarn
			if out.Reason == ReasonConfig { // nothing but the operator changes that
				level = slog.LevelError
			}
			g.opts.Log.Log(ctx, level, "the push service refuses the app's credentials or settings", "app", d.app.Name,
				"reason", out.Reason, "status", out.Status, "detail", out.Detail, "err", out.Err)
		}
	}
	if change == HealthSame {
		return
	}
	log := g.opts.Log.With("app", d.app.Name)
	switch change {
	case HealthOpened:
		log.ErrorContext(ctx, "the push service is left alone for a while: homeservers are told to come back later",
			"reason", out.Reason, "status", out.Status, "detail", out.Detail, "err", out.Err)
	case HealthClosed:
		log.InfoContext(ctx, "the push service works again")
	case HealthPaused:
		log.WarnContext(ctx, "the push service sent Retry-After for all devices: homeservers are told to come back later",
			"status", out.Status, "detail", out.Detail, "retry_after", out.RetryAfter)
	}
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
