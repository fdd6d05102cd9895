package push

import (
	"context"
	"errors"
	"hash/crc32"
	"strconv"
	"sync"
	"time"
)

// leaseMargin is by how much a claim outlives the deadline of its request.
const leaseMargin = 5 * time.Second

// defaultLease is the lease of a request without a deadline.
const defaultLease = 30 * time.Second

var (
	errStillInFlight = errors.New("another request still delivers the same notification")
	errUnproven      = errors.New("the push service calls the pushkey wrong, but has never accepted a push with these settings")
	errTripped       = errors.New("the push service calls too many of the app's pushkeys dead to be believed")
)

// task is one device's way through a delivery.
type task struct {
	app     *App
	lane    *lane
	device  *Device
	query   Query
	found   Finding
	out     Outcome
	waited  bool
	pause   time.Duration // what the answer asked of all that share the quota
	resume  bool          // the answer ended such a pause
	settled bool          // out is final, and the app's lane is not held
}

// deliver takes the tasks that are not settled to their outcomes. What waits
// for other requests holds up nothing that they in turn might wait for.
func (g *Gateway) deliver(ctx context.Context, n *Notification, tasks []*task) {
	g.begin(ctx, tasks)
	var own []*task
	var waiting, sending sync.WaitGroup
	for i, t := range tasks {
		switch {
		case t.found.State == InFlight && !t.remembered():
			waiting.Go(func() { g.await(ctx, n, t) })
		case i == len(tasks)-1: // mostly the only one
			own = append(own, t)
			g.serve(ctx, n, t)
		default:
			own = append(own, t)
			sending.Go(func() { g.serve(ctx, n, t) })
		}
	}
	sending.Wait()
	g.end(ctx, n, own)
	waiting.Wait()
}

func (g *Gateway) begin(ctx context.Context, tasks []*task) {
	queries := make([]Query, len(tasks))
	for i, t := range tasks {
		queries[i] = t.query
	}
	findings := g.opts.Ledger.Begin(ctx, queries)
	for i, t := range tasks {
		t.found = findings[i]
		g.observe(ctx, t, t.found.Guard)
	}
}

// serve finds the outcome of a task for which no other request has to be
// waited for, but does not record it.
func (g *Gateway) serve(ctx context.Context, n *Notification, t *task) {
	switch {
	case t.remembered():
		t.out = Outcome{Kind: Rejected, Reason: ReasonRemembered}
	case t.found.State == Ended:
		t.out = t.found.Outcome
	case t.found.State != Delivered:
		t.out = g.heed(ctx, n, t)
	case !n.Counts.Known() || n.Counts.digest() == t.found.Counts:
		g.opts.Metrics.duplicate(t.app, suppressed)
		t.out = Outcome{Kind: Accepted, Reason: ReasonDuplicate}
	default:
		// The device has had the event, but not these counts.
		g.opts.Metrics.duplicate(t.app, countsUpdate)
		t.out = g.heed(ctx, &Notification{Counts: n.Counts}, t)
	}
}

// await waits until the request that has the notification ends, and reports
// its outcome or takes over where it left nothing.
func (g *Gateway) await(ctx context.Context, n *Notification, t *task) {
	t.waited = true
	g.opts.Metrics.duplicate(t.app, waited)
	inTime := true
	for inTime && t.found.State == InFlight && !t.remembered() {
		t.query.Awaited = t.found.Owner
		if inTime = wait(ctx, PollInterval); inTime {
			g.begin(ctx, []*task{t})
		}
	}
	if inTime {
		g.serve(ctx, n, t)
	} else {
		t.out = Outcome{Kind: Temporary, Reason: ReasonInFlight, RetryAfter: busyRetryAfter, Err: errStillInFlight}
	}
	g.end(ctx, n, []*task{t})
}

// end records the outcomes of tasks, and withholds rejections that are not
// believed.
func (g *Gateway) end(ctx context.Context, n *Notification, tasks []*task) {
	results := make([]Result, 0, len(tasks))
	from := make([]*task, 0, len(tasks))
	for _, t := range tasks {
		if r, needed := t.result(n); needed {
			results, from = append(results, r), append(from, t)
		} else {
			g.judge(t, t.found.Guard)
		}
	}
	if len(results) == 0 {
		return
	}
	// What has happened is recorded, however late it is.
	guards := g.opts.Ledger.End(context.WithoutCancel(ctx), results)
	for i, t := range from {
		g.observe(ctx, t, guards[i])
		g.judge(t, guards[i])
	}
}

// result is what the Ledger must know about a task, if anything.
func (t *task) result(n *Notification) (r Result, needed bool) {
	r = Result{Query: t.query, Outcome: t.out, own: t.found.own, kept: t.found.kept, Pause: t.pause, Resume: t.resume}
	r.Held = t.found.State == Claimed && r.Event != Key{}
	sent := t.found.State != Ended && t.out.Reason != ReasonDuplicate && t.out.Reason != ReasonRemembered
	if sent {
		r.Verdict = t.out.verdict()
		if r.Event != (Key{}) && (t.out.Kind == Accepted || t.out.Kind == Dropped) {
			r.Done, r.Counts = true, n.Counts.digest()
		}
	}
	if r.Verdict == Dead {
		if err := believed(t.out.Reason, t.found.Guard); err != nil {
			r.Outcome = t.out.withheld(err)
		} else {
			r.Rejection = Rejection{Known: true, PushKeyTS: t.device.PushKeyTS, Trips: t.found.Guard.Trips}
		}
	}
	return r, r.Held || r.Done || r.kept || r.Verdict != NoVerdict || r.Pause > 0 || r.Resume
}

// judge withholds a rejection that is not believed: the homeserver keeps the
// pusher and tries again. What the push service was asked before it was to be
// believed is not believed either, even if it has been right about others since.
func (g *Gateway) judge(t *task, guard Guard) {
	if t.out.verdict() != Dead {
		return
	}
	err := believed(t.out.Reason, t.found.Guard)
	if err == nil {
		err = believed(t.out.Reason, guard)
	}
	if err != nil {
		g.opts.Metrics.withheld(t.app)
		t.out = t.out.withheld(err)
	}
}

// withheld is what the homeserver is told instead of a rejection that is not
// believed.
func (o *Outcome) withheld(err error) Outcome {
	return Outcome{Kind: Temporary, Reason: ReasonWithheld, Status: o.Status, Detail: o.Detail, Err: err}
}

// believed returns why a push service is not believed that rejects a pushkey
// for that reason, nil when it is.
func believed(reason Reason, guard Guard) error {
	switch {
	case guard.Tripped:
		return errTripped
	case !guard.Proven && reason != ReasonUnregistered:
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

// remembered reports whether the pushkey was rejected before, and has neither
// been registered again nor the rejection been forgotten since.
func (t *task) remembered() bool {
	r := t.found.Rejection
	return r.Known && t.device.PushKeyTS <= r.PushKeyTS && r.Trips == t.found.Guard.Trips
}

// observe tells people how far an app's push service is believed, when that
// changes.
func (g *Gateway) observe(ctx context.Context, t *task, guard Guard) {
	if t.lane.proven.Load() != guard.Proven {
		t.lane.proven.Store(guard.Proven)
		g.opts.Metrics.guardProven(t.app, guard.Proven)
	}
	if t.lane.tripped.Load() == guard.Tripped || t.lane.tripped.Swap(guard.Tripped) == guard.Tripped {
		return
	}
	g.opts.Metrics.guardTripped(t.app, guard.Tripped)
	if guard.Tripped {
		g.opts.Log.ErrorContext(ctx, "most pushes of an app come back dead: pushers are kept until it accepts them again; "+
			"check its environment, topic and project", "app", t.app.Name)
		return
	}
	g.opts.Log.InfoContext(ctx, "an app's pushes are accepted again: dead pushkeys are rejected again", "app", t.app.Name)
}

func newLease(ctx context.Context) time.Duration {
	if deadline, ok := ctx.Deadline(); ok {
		return max(time.Until(deadline), 0) + leaseMargin
	}
	return defaultLease
}

// identity tells devices of one request apart. Two accounts on one phone share
// app_id and pushkey; their data differs, and both must get the notification.
type identity struct{ appID, pushKey, data string }

func (d *Device) identity() identity {
	id := identity{appID: d.AppID, pushKey: d.PushKey}
	if len(d.Data) > 0 {
		// What was decoded from JSON cannot fail.
		data, _ := EncodeJSON(d.Data)
		id.data = string(data)
	}
	return id
}

// eventKey stands for n at the device. It is zero for notifications without an
// event, which change the badge and may be repeated.
func (n *Notification) eventKey(id identity) Key {
	if !n.EventID.Truthy() {
		return Key{}
	}
	event, isText := n.EventID.Text()
	if !isText {
		text, _ := EncodeJSON(n.EventID.Value())
		return keyOf("json", string(text), id.appID, id.pushKey, id.data)
	}
	return keyOf("event", event, id.appID, id.pushKey, id.data)
}

// digest stands for the counts; that of unknown ones is 0.
func (c Counts) digest() uint32 {
	if !c.Known() {
		return 0
	}
	var text []byte
	for _, count := range []*int64{c.Unread, c.MissedCalls} {
		if count != nil {
			text = strconv.AppendInt(text, *count, 10)
		}
		text = append(text, '/')
	}
	return crc32.ChecksumIEEE(text)
}
