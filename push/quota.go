package push

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// settling is how long after a process began or ended a pause it believes
	// itself rather than the Ledger: other requests asked that before it knew.
	settling = time.Second
	// firstProbe and longestProbe bound the waits between two probes. They double.
	firstProbe   = time.Second
	longestProbe = 30 * time.Second
	// maxRefused bounds the refused devices that are remembered in a pause.
	maxRefused = 1024
)

// quota is what the process knows of pushes that the push service counts
// together, and of the pause that it asked for. The pause itself is in the
// Ledger, for all processes.
//
// A 429 may be about one device, and anyone can make a device of their own get
// one. So it takes two devices in a row to pause the others, and in a pause
// probes go on, but not from devices that were refused in it: the first probe
// that is not refused ends the pause.
type quota struct {
	mu      sync.Mutex
	suspect Key       // refused last by an answer of unclear reach, zero after any other answer
	lapses  time.Time // when the suspicion does
	until   time.Time // the end of the pause, zero without one
	spoke   time.Time // when this process began or ended it

	probing   bool
	nextProbe time.Time
	probeWait time.Duration
	refused   map[Key]struct{}
}

// passage says whether a device's push may go ahead.
type passage struct {
	left  time.Duration // of the pause; 0 is to go ahead
	probe bool          // it goes ahead to find out whether the pause is over
	// began and ended say that a pause has just been noticed, or is over.
	began, ended bool
}

// admit is asked before a push. left is what the Ledger knows of a pause.
func (q *quota) admit(pushKey string, left time.Duration, now time.Time) (p passage) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if now.Sub(q.spoke) < settling {
		left = max(0, q.until.Sub(now))
	}
	switch paused := !q.until.IsZero(); {
	case left == 0:
		p.ended = paused
		q.until = time.Time{}
		return p
	case !paused: // another process began it
		p.began = true
		q.begin(now.Add(jitter(firstProbe)))
	}
	q.until = now.Add(left)
	_, refused := q.refused[keyOf(pushKey)]
	if p.probe = !q.probing && !refused && !now.Before(q.nextProbe); p.probe {
		q.probing = true
		return p
	}
	p.left = left
	return p
}

// begin begins a pause, with mu held.
func (q *quota) begin(nextProbe time.Time) {
	q.refused, q.probing, q.probeWait, q.nextProbe = make(map[Key]struct{}), false, firstProbe, nextProbe
}

// change is what an answer means for the pause.
type change struct {
	pause  time.Duration // begins, or is longer than was known
	began  bool
	resume bool
}

// answer is told what came of a push that admit let go ahead.
func (q *quota) answer(pushKey string, out Outcome, probe bool, longest time.Duration, now time.Time) (c change) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if probe {
		q.probing = false
	}
	refusal := out.Kind == Temporary && out.RetryAfter > 0 && out.Reach != ReachDevice
	var device Key
	if refusal {
		device = keyOf(pushKey) // whichever of the apps it is for
	}
	switch {
	case refusal && now.Before(q.until):
		q.refuse(device)
		if probe {
			q.probeWait = min(2*q.probeWait, longestProbe)
			q.nextProbe = now.Add(jitter(q.probeWait))
		}
	case refusal && out.Reach == ReachUnclear && (q.suspect == device || !now.Before(q.lapses)):
		q.suspect, q.lapses = device, now.Add(min(out.RetryAfter, longest))
		return c
	case refusal:
		c.began = true
		next := now // the devices that were refused may be the only ones that have to wait
		if out.Reach == ReachQuota {
			next = now.Add(jitter(firstProbe))
		}
		q.begin(next)
		q.refuse(q.suspect)
		q.refuse(device)
	case out.Kind != Temporary && out.Status != 0: // it was counted, and not refused
		q.suspect, q.lapses = Key{}, time.Time{}
		if c.resume = probe; c.resume {
			q.until, q.spoke = time.Time{}, now
		}
		return c
	default:
		if probe {
			q.nextProbe = now.Add(jitter(q.probeWait))
		}
		return c
	}
	length := min(out.RetryAfter, longest)
	if end := now.Add(length); end.After(q.until.Add(time.Second)) {
		c.pause, q.until, q.spoke = length, end, now
	}
	return c
}

func (q *quota) refuse(device Key) {
	if len(q.refused) < maxRefused {
		q.refused[device] = struct{}{}
	}
}

// heed makes the attempts at a task's device unless its push service asked for
// patience.
func (g *Gateway) heed(ctx context.Context, n *Notification, t *task) Outcome {
	q := t.lane.quota
	p := q.admit(t.device.PushKey, t.found.Pause, time.Now())
	switch {
	case p.began:
		g.paused(ctx, t, t.found.Pause)
	case p.ended:
		g.resumed(ctx, t)
	}
	if p.left > 0 {
		g.opts.Metrics.pausedFor(t.app, p.left)
		// Whoever heeds it does not come back together with the others.
		return Outcome{Kind: Temporary, Reason: ReasonPaused, RetryAfter: p.left + rand.N(p.left/5+time.Second)} //nolint:gosec // nobody gains by guessing it
	}
	out := g.send(ctx, n, t)
	c := q.answer(t.device.PushKey, out, p.probe, g.opts.Trouble.MaxPause, time.Now())
	t.pause, t.resume = c.pause, c.resume
	switch {
	case c.pause > 0 && c.began:
		g.paused(ctx, t, c.pause, slog.Int("status", out.Status), slog.String("detail", out.Detail))
	case c.pause > 0:
		g.opts.Metrics.pausedFor(t.app, c.pause)
	case c.resume:
		g.resumed(ctx, t)
	}
	return out
}

func (g *Gateway) paused(ctx context.Context, t *task, left time.Duration, answer ...slog.Attr) {
	g.opts.Metrics.pausedFor(t.app, left)
	g.opts.Log.LogAttrs(ctx, slog.LevelWarn, "the push service asks for patience: homeservers are told to come back later",
		append(answer, slog.String("app", t.app.Name), slog.Duration("left", left))...)
}

func (g *Gateway) resumed(ctx context.Context, t *task) {
	g.opts.Metrics.pausedFor(t.app, 0)
	g.opts.Log.InfoContext(ctx, "the push service is asked again", "app", t.app.Name)
}
