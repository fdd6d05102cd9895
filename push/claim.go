package push

import (
	"context"
	"errors"
	"time"
)

// leaseOf is how long a claim holds: five seconds longer than its request, so that
// the request has time to record its end, and a minute where that has no deadline.
func leaseOf(ctx context.Context) time.Duration {
	if deadline, ok := ctx.Deadline(); ok {
		return max(time.Until(deadline), 0) + 5*time.Second
	}
	return time.Minute
}

// claim asks for the right to make deliveries.
func (g *Gateway) claim(ctx context.Context, deliveries []*delivery) {
	if len(deliveries) == 0 {
		return
	}
	claims := make([]Claim, len(deliveries))
	for i, d := range deliveries {
		claims[i] = d.claim
	}
	claimed := g.opts.Dedup.Claim(ctx, claims)
	for i, d := range deliveries {
		d.claimed = claimed[i]
		g.observe(ctx, d, d.claimed.Guard)
	}
}

// complete records what became of deliveries, and withholds rejections that are
// not believed: what the push service was asked before it was to be believed is
// not believed either, even if it has been right about others since.
func (g *Gateway) complete(ctx context.Context, n *Notification, deliveries []*delivery) {
	if len(deliveries) == 0 {
		return
	}
	results := make([]Result, len(deliveries))
	for i, d := range deliveries {
		results[i] = d.result(n)
	}
	// What has happened is recorded, however late it is.
	guards := g.opts.Dedup.Complete(context.WithoutCancel(ctx), results)
	for i, d := range deliveries {
		g.observe(ctx, d, guards[i])
		if d.outcome.verdict() != Dead {
			continue
		}
		if err := errors.Join(d.doubt(d.claimed.Guard), d.doubt(guards[i])); err != nil {
			g.opts.Metrics.withheld.WithLabelValues(d.app.Name, d.app.ProviderName).Inc()
			d.outcome = Outcome{Kind: Temporary, Reason: ReasonWithheld, Status: d.outcome.Status, Detail: d.outcome.Detail, Err: err}
		}
	}
}

// result is what Dedup is told of a delivery.
func (d *delivery) result(n *Notification) Result {
	r := Result{Claim: d.claim, Claimed: d.claimed, Verdict: d.outcome.verdict()}
	r.Sent = d.outcome.Reason == ReasonSent || d.outcome.Reason == ReasonDuplicate
	r.SentCounts = n.Counts.digest()
	if d.outcome.Reason == ReasonDuplicate {
		r.SentCounts = d.claimed.Counts
	}
	r.Reject = r.Verdict == Dead && d.doubt(d.claimed.Guard) == nil
	// A later one would have the pushkey be dead when it is registered again.
	r.RejectedTS = min(d.push.Device.PushKeyTS, time.Now().Unix())
	return r
}

var (
	errUnproven = errors.New("the push service has not accepted a push with the app's current settings yet")
	errTripped  = errors.New("the push service calls too many of the app's pushkeys dead to be believed")
)

// doubt returns why a push service is not believed that rejects the pushkey, nil
// when it is.
func (d *delivery) doubt(guard Guard) error {
	switch {
	case d.claim.App == Key{}: // it has no guard
		return nil
	case guard.Tripped:
		return errTripped
	case !guard.Proven && d.outcome.Reason != ReasonUnregistered:
		// A wrong environment, topic, key or project looks like this.
		return errUnproven
	}
	return nil
}

// verdict says what an outcome tells about the pushkey. What our own checks
// find is not the push service's word.
func (o *Outcome) verdict() Verdict {
	switch o.Reason {
	case ReasonSent:
		return Alive
	case ReasonUnregistered, ReasonBadToken, ReasonWrongTopic, ReasonSenderMismatch:
		return Dead
	default:
		return NoVerdict
	}
}

// observe tells the operator when an app's push service is no longer believed, or is
// again. Pushkeys that anybody can make up change no metric: a stranger must not
// wake the operator.
func (g *Gateway) observe(ctx context.Context, d *delivery, guard Guard) {
	if d.claim.App == (Key{}) {
		return
	}
	if d.state.proven.Load() != guard.Proven {
		d.state.proven.Store(guard.Proven)
		set(g.opts.Metrics.proven, d.app, guard.Proven)
	}
	of := 0
	if d.claimed.Accepted {
		of = 1
	}
	tripped := &d.state.tripped[of]
	if tripped.Load() == guard.Tripped || tripped.Swap(guard.Tripped) == guard.Tripped {
		return
	}
	log := g.opts.Log.With("app", d.app.Name)
	if !d.claimed.Accepted {
		if guard.Tripped {
			log.WarnContext(ctx, "most pushes for pushkeys that never had one come back dead: their pushers are kept")
		}
		return
	}
	set(g.opts.Metrics.tripped, d.app, guard.Tripped)
	if guard.Tripped {
		log.ErrorContext(ctx, "most pushes of an app come back dead: pushers are kept until it accepts them again; "+
			"check its environment, topic and project")
		return
	}
	log.InfoContext(ctx, "an app's pushes are accepted again: dead pushkeys are rejected again")
}
