package push

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
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
	// FairShare lets no source of notifications have more than its share of an
	// app's places while others want one. By default whoever comes first is
	// served.
	FairShare bool
	// Trouble, if zero, is DefaultTrouble.
	Trouble Trouble
}

// busyRetryAfter is what a device is told when its app is at its limit: long
// enough to shed load, short against the homeservers' backoff.
const busyRetryAfter = 2 * time.Second

// Gateway delivers notifications to the devices of the configured apps.
type Gateway struct {
	opts Options
	apps atomic.Pointer[routes]

	mu    sync.Mutex       // held while apps are replaced
	loads map[string]*load // by app's name
	// quotas stay for as long as the process: what a push service asked for
	// outlives a change of configuration. There are as many as were ever
	// configured.
	quotas map[Key]*quota
}

// routes is one generation of apps with what belongs to each by name.
type routes struct {
	apps  *Apps
	lanes map[string]*lane
}

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
	if opts.Trouble == (Trouble{}) {
		opts.Trouble = DefaultTrouble()
	}
	if err := opts.Trouble.Check(); err != nil {
		return nil, err
	}
	g := &Gateway{opts: opts, loads: make(map[string]*load), quotas: make(map[Key]*quota)}
	g.SetApps(apps)
	return g, nil
}

// SetApps replaces the apps at once. Deliveries under way finish with the app
// they began with, and count towards the limit of the app that has its name.
func (g *Gateway) SetApps(apps *Apps) {
	g.mu.Lock()
	defer g.mu.Unlock()
	var before map[string]*lane
	if r := g.apps.Load(); r != nil {
		before = r.lanes
	}
	loads, lanes := make(map[string]*load), make(map[string]*lane)
	for _, app := range apps.All() {
		l := g.loads[app.Name]
		if l == nil {
			l = new(load)
			if g.opts.FairShare {
				l.shares = newShares()
			}
		}
		l.max.Store(int64(app.MaxInFlight))
		if g.quotas[app.quota] == nil {
			g.quotas[app.quota] = new(quota)
		}
		n := &lane{load: l, quota: g.quotas[app.quota], key: app.key, refusal: newRefusal()}
		if was := before[app.Name]; was != nil && was.key == n.key {
			n.outage = was.outage
		} else {
			n.outage = newOutage(g.opts.Trouble)
		}
		loads[app.Name], lanes[app.Name] = l, n
	}
	g.loads = loads
	g.opts.Metrics.setApps(apps)
	for _, app := range apps.All() {
		g.opts.Metrics.outageState(app, lanes[app.Name].outage.state())
	}
	g.apps.Store(&routes{apps, lanes})
}

// AppName returns the name of the app that an app_id belongs to, "" if there is
// none.
func (g *Gateway) AppName(appID string) string {
	if app := g.apps.Load().apps.Find(appID); app != nil {
		return app.Name
	}
	return ""
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
		// Who holds a place does not wait for another: all might.
		all[i] = g.admit(ctx, r, n, &devices[i], len(open) == 0)
		seen[id] = all[i]
		if t := all[i]; !t.settled {
			t.query = request
			t.query.Event = n.eventKey(id)
			t.query.App = t.app.key
			t.query.Quota = t.app.quota
			t.query.PushKey = keyOf(string(t.app.key[:]), t.device.PushKey)
			open = append(open, t)
		}
	}
	if len(open) > 0 {
		defer g.release(n, open)
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
func (g *Gateway) admit(ctx context.Context, r *routes, n *Notification, d *Device, patient bool) *task {
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
	if !t.lane.acquire(ctx, n.Source, patient) {
		t.out = Outcome{Kind: Temporary, Reason: ReasonBusy, RetryAfter: busyRetryAfter}
		return t
	}
	g.opts.Metrics.begin(t.app)
	t.settled = false
	return t
}

func (g *Gateway) release(n *Notification, tasks []*task) {
	for _, t := range tasks {
		t.lane.release(n.Source)
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
