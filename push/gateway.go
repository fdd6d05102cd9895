package push

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math/rand/v2"
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

	mu     sync.Mutex // held while apps are replaced
	limits map[string]*limit
}

// routes is one generation of apps with what belongs to each by name.
type routes struct {
	apps   *Apps
	limits map[string]*limit
}

// limit counts what is in flight for one app, across reloads.
type limit struct {
	max      atomic.Int64
	inFlight atomic.Int64
}

func (l *limit) acquire() bool {
	if l.inFlight.Add(1) > l.max.Load() {
		l.inFlight.Add(-1)
		return false
	}
	return true
}

func (l *limit) release() { l.inFlight.Add(-1) }

// NewGateway returns a gateway for apps.
func NewGateway(apps *Apps, opts Options) (*Gateway, error) {
	switch {
	case opts.UnknownApp != UnknownAppFail && opts.UnknownApp != UnknownAppReject:
		return nil, errors.New("unknown app policy: neither fail nor reject")
	case opts.AttemptTimeout <= 0 || opts.RetryWait <= 0:
		return nil, errors.New("attempt timeout and retry wait: must be positive")
	}
	g := &Gateway{opts: opts, limits: make(map[string]*limit)}
	g.SetApps(apps)
	return g, nil
}

// SetApps replaces the apps at once. Deliveries under way finish with the app
// they began with, and count towards the limit of the app that has its name.
func (g *Gateway) SetApps(apps *Apps) {
	g.mu.Lock()
	defer g.mu.Unlock()
	limits := make(map[string]*limit)
	for _, app := range apps.All() {
		l := g.limits[app.Name]
		if l == nil {
			l = new(limit)
		}
		l.max.Store(int64(app.MaxInFlight))
		limits[app.Name] = l
	}
	g.limits = limits
	g.opts.Metrics.setApps(apps)
	g.apps.Store(&routes{apps, limits})
}

// Deliver delivers n to all devices in parallel and returns one outcome for
// each, in their order, by ctx's deadline. A device that is listed twice with
// equal data is sent to once.
func (g *Gateway) Deliver(ctx context.Context, n *Notification, devices []Device) []Outcome {
	r := g.apps.Load()
	g.opts.Metrics.notification(len(devices))
	if len(devices) == 1 { // what homeservers send
		return []Outcome{g.deliver(ctx, r, n, &devices[0])}
	}
	outcomes := make([]Outcome, len(devices))
	first := firstOfEach(devices)
	var wg sync.WaitGroup
	for i := range devices {
		if first[i] == i {
			wg.Go(func() { outcomes[i] = g.deliver(ctx, r, n, &devices[i]) })
		}
	}
	wg.Wait()
	for i := range devices {
		outcomes[i] = outcomes[first[i]]
	}
	return outcomes
}

// firstOfEach returns for each device the index of the first one that is equal
// to it. Two accounts on one phone share app_id and pushkey; their data tells
// them apart, and both must get the notification.
func firstOfEach(devices []Device) []int {
	type key struct{ appID, pushKey, data string }
	first := make([]int, len(devices))
	seen := make(map[key]int, len(devices))
	for i, d := range devices {
		// Marshal sorts the keys. What was decoded from JSON cannot fail.
		data, _ := json.Marshal(d.Data)
		k := key{d.AppID, d.PushKey, string(data)}
		if _, ok := seen[k]; !ok {
			seen[k] = i
		}
		first[i] = seen[k]
	}
	return first
}

func (g *Gateway) deliver(ctx context.Context, r *routes, n *Notification, d *Device) Outcome {
	app := r.apps.Find(d.AppID)
	switch {
	case d.impossible():
		out := Outcome{Kind: Rejected, Reason: ReasonMalformedPushKey}
		g.opts.Metrics.outcome(app, out)
		return out
	case app == nil:
		out := Outcome{Kind: Temporary, Reason: ReasonUnknownApp}
		if g.opts.UnknownApp == UnknownAppReject {
			out.Kind = Rejected
		}
		g.opts.Metrics.outcome(nil, out)
		return out
	}
	out := g.deliverTo(ctx, r.limits[app.Name], app, n, d)
	g.opts.Metrics.outcome(app, out)
	if g.opts.Log.Enabled(ctx, slog.LevelDebug) {
		g.opts.Log.DebugContext(ctx, "device done", "app", app.Name, "device", d, "outcome", out.Kind.String(),
			"reason", out.Reason, "status", out.Status, "detail", out.Detail, "err", out.Err)
	}
	return out
}

func (g *Gateway) deliverTo(ctx context.Context, l *limit, app *App, n *Notification, d *Device) Outcome {
	if !l.acquire() {
		return Outcome{Kind: Temporary, Reason: ReasonBusy, RetryAfter: busyRetryAfter}
	}
	defer l.release()
	g.opts.Metrics.begin(app)
	defer g.opts.Metrics.end(app)

	delivery := Delivery{Notification: n, Device: d, ID: uuid.NewString()}
	resent := false // after an uncertain attempt: once, with the same ID
	for attempt := 1; ; attempt++ {
		out := g.attempt(ctx, app, delivery)
		uncertain := out.Kind == Temporary && out.Reason == ReasonUncertain
		if uncertain {
			g.opts.Metrics.uncertain(app)
		}
		again := out.Kind == Temporary && out.RetryAfter == 0 && attempt < maxAttempts &&
			(out.Unprocessed || uncertain && !resent)
		if !again || !wait(ctx, jitter(g.opts.RetryWait<<(attempt-1))) {
			return out
		}
		resent = resent || uncertain
		g.opts.Metrics.retry(app, out.Reason)
	}
}

var errAttemptTimeout = errors.New("the attempt took longer than its timeout")

func (g *Gateway) attempt(ctx context.Context, app *App, delivery Delivery) Outcome {
	ctx, cancel := context.WithTimeoutCause(ctx, g.opts.AttemptTimeout, errAttemptTimeout)
	defer cancel()
	start := time.Now()
	out := app.Provider.Send(ctx, delivery)
	g.opts.Metrics.attempt(app, out, time.Since(start))
	return out
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
