package push

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
)

// UnknownApp says what becomes of a device whose app_id no app is configured
// for.
type UnknownApp string

const (
	// UnknownAppFail answers Temporary: the homeserver keeps the pusher and
	// tries again. A forgotten app costs delays, not pushers.
	UnknownAppFail UnknownApp = "fail"
	// UnknownAppReject answers Rejected: the homeserver deletes the pusher.
	UnknownAppReject UnknownApp = "reject"
)

// Options configure a Gateway.
type Options struct {
	Log        *slog.Logger
	Metrics    *Metrics
	UnknownApp UnknownApp
	// AttemptTimeout bounds one attempt at one device, within the deadline of
	// the whole delivery. An attempt that reaches it is uncertain.
	AttemptTimeout time.Duration
	// RetryWait is the mean wait before the second attempt; each further one
	// waits twice as long.
	RetryWait time.Duration
	// Ledger remembers what was delivered and rejected. When it is nil, it is a
	// Memory with DefaultTerms and DefaultMemoryEvents.
	Ledger Ledger
}

// maxAttempts bounds the attempts at one device within one delivery. A push
// service that refuses three in a row is left to the homeserver's backoff.
const maxAttempts = 3

// busyRetryAfter is what a device is told when its app is at its limit: long
// enough to shed load, short against the homeservers' backoff.
const busyRetryAfter = 2 * time.Second

// Gateway delivers notifications to the devices of the configured apps.
type Gateway struct {
	opts Options
	apps atomic.Pointer[routes]

	mu    sync.Mutex // held while apps are replaced
	lanes map[string]*lane
}

// routes is one generation of apps with what belongs to each by name.
type routes struct {
	apps  *Apps
	lanes map[string]*lane
}

// lane counts what is in flight for one app, and knows what was last said
// about it, across reloads.
type lane struct {
	max      atomic.Int64
	inFlight atomic.Int64
	tripped  atomic.Bool
	proven   atomic.Bool
}

func (l *lane) acquire() bool {
	if l.inFlight.Add(1) > l.max.Load() {
		l.inFlight.Add(-1)
		return false
	}
	return true
}

func (l *lane) release() { l.inFlight.Add(-1) }

// NewGateway returns a gateway for apps.
func NewGateway(apps *Apps, opts Options) (*Gateway, error) {
	switch {
	case opts.UnknownApp != UnknownAppFail && opts.UnknownApp != UnknownAppReject:
		return nil, errors.New("unknown app policy: neither fail nor reject")
	case opts.AttemptTimeout <= 0 || opts.RetryWait <= 0:
		return nil, errors.New("attempt timeout and retry wait: must be positive")
	}
	if opts.Ledger == nil {
		memory, err := NewMemory(DefaultTerms(), DefaultMemoryEvents)
		if err != nil {
			return nil, err
		}
		opts.Ledger = memory
	}
	g := &Gateway{opts: opts, lanes: make(map[string]*lane)}
	g.SetApps(apps)
	return g, nil
}

// SetApps replaces the apps at once. Deliveries under way finish with the app
// they began with, and count towards the limit of the app that has its name.
func (g *Gateway) SetApps(apps *Apps) {
	g.mu.Lock()
	defer g.mu.Unlock()
	lanes := make(map[string]*lane)
	for _, app := range apps.All() {
		l := g.lanes[app.Name]
		if l == nil {
			l = new(lane)
		}
		l.max.Store(int64(app.MaxInFlight))
		lanes[app.Name] = l
	}
	g.lanes = lanes
	g.opts.Metrics.setApps(apps)
	g.apps.Store(&routes{apps, lanes})
}

// Deliver delivers n to all devices in parallel and returns one outcome for
// each, in their order, by ctx's deadline. A device that is listed twice with
// equal data is sent to once, and a device that has had the event not again.
func (g *Gateway) Deliver(ctx context.Context, n *Notification, devices []Device) []Outcome {
	r := g.apps.Load()
	g.opts.Metrics.notification(len(devices))
	request := Query{Owner: rand.Uint64() | 1, Lease: newLease(ctx)} //nolint:gosec // nobody gains by guessing it
	all := make([]*task, len(devices))
	open := make([]*task, 0, len(devices)) // each once, without the settled
	seen := make(map[identity]*task)
	for i := range devices {
		id := devices[i].identity()
		if all[i] = seen[id]; all[i] != nil {
			continue
		}
		all[i] = g.admit(r, &devices[i])
		seen[id] = all[i]
		if t := all[i]; !t.settled {
			t.query = request
			t.query.Event = n.eventKey(id)
			t.query.App = t.app.key
			t.query.PushKey = keyOf(string(t.app.key[:]), t.device.PushKey)
			open = append(open, t)
		}
	}
	if len(open) > 0 {
		defer g.release(open)
		g.deliver(ctx, n, open)
	}
	for _, t := range seen {
		g.report(ctx, t)
	}
	outcomes := make([]Outcome, len(devices))
	for i, t := range all {
		outcomes[i] = t.out
	}
	return outcomes
}

// admit finds the device's app and takes a place in its lane, or settles the
// task.
func (g *Gateway) admit(r *routes, d *Device) *task {
	t := &task{app: r.apps.Find(d.AppID), device: d, settled: true}
	switch {
	case d.impossible():
		t.out = Outcome{Kind: Rejected, Reason: ReasonMalformedPushKey}
		return t
	case t.app == nil:
		t.out = Outcome{Kind: Temporary, Reason: ReasonUnknownApp}
		if g.opts.UnknownApp == UnknownAppReject {
			t.out.Kind = Rejected
		}
		return t
	}
	t.lane = r.lanes[t.app.Name]
	if !t.lane.acquire() {
		t.out = Outcome{Kind: Temporary, Reason: ReasonBusy, RetryAfter: busyRetryAfter}
		return t
	}
	g.opts.Metrics.begin(t.app)
	t.settled = false
	return t
}

func (g *Gateway) release(tasks []*task) {
	for _, t := range tasks {
		t.lane.release()
		g.opts.Metrics.end(t.app)
	}
}

// report counts and logs what became of a device.
func (g *Gateway) report(ctx context.Context, t *task) {
	g.opts.Metrics.outcome(t.app, t.out)
	if t.app != nil && g.opts.Log.Enabled(ctx, slog.LevelDebug) {
		g.opts.Log.DebugContext(ctx, "device done", "app", t.app.Name, "device", t.device, "outcome", t.out.Kind.String(),
			"reason", t.out.Reason, "status", t.out.Status, "detail", t.out.Detail, "waited", t.waited, "err", t.out.Err)
	}
}

// send makes the attempts that n at the task's device needs.
func (g *Gateway) send(ctx context.Context, n *Notification, t *task) Outcome {
	app := t.app
	delivery := Delivery{Notification: n, Device: t.device, ID: uuid.NewString()}
	resent := false // after an uncertain attempt: once, with the same ID
	for attempt := 1; ; attempt++ {
		out := g.attempt(ctx, app, delivery)
		uncertain := out.Kind == Temporary && out.Reason == ReasonUncertain
		if uncertain {
			g.opts.Metrics.uncertain(app)
		}
		again := out.Kind == Temporary && out.RetryAfter == 0 && attempt < attemptsFor(out) &&
			(out.Unprocessed || uncertain && !resent)
		if !again || !wait(ctx, jitter(g.opts.RetryWait<<(attempt-1))) {
			return out
		}
		resent = resent || uncertain
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

func (g *Gateway) attempt(ctx context.Context, app *App, delivery Delivery) Outcome {
	ctx, cancel := context.WithTimeoutCause(ctx, g.opts.AttemptTimeout, errAttemptTimeout)
	defer cancel()
	if !app.breaker.TryAcquirePermit() {
		return Outcome{Kind: Temporary, Reason: ReasonBreaker, RetryAfter: app.breaker.left()}
	}
	start := time.Now()
	out := g.ask(ctx, app, delivery)
	g.tellBreaker(ctx, app, out)
	g.opts.Metrics.attempt(app, out, time.Since(start))
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
