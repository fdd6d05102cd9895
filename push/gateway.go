package push

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// UnknownApp says what becomes of a device whose app_id no app is configured
// for.
type UnknownApp string

const (
	// UnknownAppKeep answers Temporary: the homeserver keeps the pusher and
	// tries again. A forgotten app costs delays, not pushers.
	UnknownAppKeep UnknownApp = "keep_pusher"
	// UnknownAppDelete answers Rejected: the homeserver deletes the pusher.
	UnknownAppDelete UnknownApp = "delete_pusher"
)

// Options configure a Gateway. All but the times are required.
type Options struct {
	Log        *slog.Logger
	Metrics    *Metrics
	UnknownApp UnknownApp
	Dedup      Dedup
	Health     Health
	// AttemptTimeout bounds one attempt at one device, within the deadline of
	// the whole delivery; 0 is 10 s. An attempt that reaches it is uncertain.
	AttemptTimeout time.Duration
	// RetryWait is the mean wait before the second attempt; 0 is 100 ms. Each
	// further one waits twice as long.
	RetryWait time.Duration
}

// Gateway delivers notifications to the devices of the configured apps.
type Gateway struct {
	opts   Options
	routes atomic.Pointer[routes]
	calls  failedCalls
}

// routes are one generation of apps with the state of each by its id.
type routes struct {
	apps   *Apps
	states map[string]*appState
}

// appState is what the gateway keeps about an app for as long as one of its name
// is configured.
type appState struct {
	key      Key // of the settings it is about
	inFlight *inFlight
	refused  atomic.Bool  // its credentials or settings, since the last accepted push
	warned   atomic.Int64 // of that, in seconds since the epoch
	proven   atomic.Bool
	tripped  [2]atomic.Bool // for pushkeys that never had an accepted push, and for the others
}

// NewGateway returns a gateway for apps.
func NewGateway(apps *Apps, opts Options) (*Gateway, error) {
	switch {
	case opts.UnknownApp != UnknownAppKeep && opts.UnknownApp != UnknownAppDelete:
		return nil, errors.New("unknown app policy: neither keep_pusher nor delete_pusher")
	case opts.Dedup == nil || opts.Health == nil || opts.Log == nil || opts.Metrics == nil:
		return nil, errors.New("a gateway needs Dedup, Health, Log and Metrics")
	}
	opts.AttemptTimeout = cmp.Or(opts.AttemptTimeout, 10*time.Second)
	opts.RetryWait = cmp.Or(opts.RetryWait, 100*time.Millisecond)
	g := &Gateway{opts: opts}
	g.SetApps(apps)
	opts.Metrics.watch(g)
	return g, nil
}

// SetApps replaces the apps at once. Deliveries under way finish with the app
// they began with, and count towards the limit of the app that has its name. It
// must not be called twice at a time.
func (g *Gateway) SetApps(apps *Apps) {
	before := g.routes.Load()
	states := make(map[string]*appState)
	for _, app := range apps.All() {
		s := &appState{key: app.key, inFlight: newInFlight()}
		switch {
		case states[app.Name] != nil: // it is the URLs of that one
			s.inFlight = states[app.Name].inFlight
		case before != nil && before.states[app.Name] != nil:
			s.inFlight = before.states[app.Name].inFlight
		}
		if before != nil && before.states[app.id] != nil && before.states[app.id].key == app.key {
			s = before.states[app.id]
		}
		s.inFlight.resize(app.MaxInFlight)
		states[app.id] = s
	}
	g.opts.Metrics.setApps(apps)
	for _, app := range apps.All() {
		s := states[app.id]
		set(g.opts.Metrics.refused, app, s.refused.Load())
		set(g.opts.Metrics.proven, app, s.proven.Load())
		set(g.opts.Metrics.tripped, app, s.tripped[1].Load())
	}
	g.routes.Store(&routes{apps, states})
}

// AppName returns the name of the app that an app_id belongs to, "" if there is
// none.
func (g *Gateway) AppName(appID string) string {
	if app := g.routes.Load().apps.Find(appID); app != nil {
		return app.Name
	}
	return ""
}

// UnifiedPush reports whether there is an app whose pushkeys may be endpoints of
// UnifiedPush: whoever holds one asks.
func (g *Gateway) UnifiedPush() bool {
	return slices.ContainsFunc(g.routes.Load().apps.All(), func(a *App) bool { return a.UnifiedPush })
}

// PassesOn reports whether an app passes members of that name on.
func (g *Gateway) PassesOn(name string) bool {
	return slices.ContainsFunc(g.routes.Load().apps.All(), func(a *App) bool { return slices.Contains(a.PassOn, name) })
}

// delivery is one device's way through a request.
type delivery struct {
	app         *App
	state       *appState
	push        Delivery
	address     string // of the device
	claim       Claim
	claimed     Claimed
	destination string
	waited      bool // for another request that had the notification
	outcome     Outcome
}

// Deliver delivers n to all devices in parallel and returns one outcome for
// each, in their order, by ctx's deadline. A device that is listed twice with
// equal data is sent to once, and a device that has had the event not again.
func (g *Gateway) Deliver(ctx context.Context, n *Notification, devices []Device) []Outcome {
	came := time.Now()
	all, open := g.prepare(ctx, n, devices)
	g.claim(ctx, open)
	ready, elsewhere := split(open)
	var waiting sync.WaitGroup
	if len(elsewhere) > 0 {
		waiting.Go(func() { g.await(ctx, n, elsewhere) })
	}
	g.serveAll(ctx, n, ready)
	waiting.Wait()
	g.calls.add(n, came, all)
	return g.report(ctx, all)
}

// split tells those deliveries apart that can be served from those that another
// request has on its way.
func split(all []*delivery) (ready, elsewhere []*delivery) {
	for _, d := range all {
		if d.claimed.State == InFlight && !d.remembered() {
			elsewhere = append(elsewhere, d)
		} else {
			ready = append(ready, d)
		}
	}
	return ready, elsewhere
}

// prepare finds the app of each device, merges equal devices and refuses what
// cannot be sent. It returns a delivery for each device, and those that are still
// to be made.
func (g *Gateway) prepare(ctx context.Context, n *Notification, devices []Device) (all, open []*delivery) {
	r := g.routes.Load()
	g.opts.Metrics.notifications.Inc()
	all, open = make([]*delivery, len(devices)), make([]*delivery, 0, len(devices))
	seen := make(map[identity]*delivery, len(devices))
	owner, lease, digest, common := rand.Uint64()|1, leaseOf(ctx), n.digest(), new(Common) //nolint:gosec // nobody gains by guessing the owner
	Delivery{Notification: n, Common: common}.Call(g.calls.since(digest, time.Now()))
	for i := range devices {
		device := &devices[i]
		id := device.identity()
		if all[i] = seen[id]; all[i] != nil {
			continue
		}
		d := &delivery{app: r.apps.Find(device.AppID), push: Delivery{Notification: n, Device: device, Common: common}}
		if d.app != nil {
			d.app = d.app.For(device)
		}
		all[i], seen[id] = d, d
		if d.outcome = g.refuse(d); d.outcome.Reason != "" {
			continue
		}
		d.state, d.push.Notification = r.states[d.app.id], n.passing(d.app.PassOn)
		d.destination = d.app.Provider.Destination(device)
		d.claim = Claim{Event: id.event(digest), Owner: owner, Lease: lease, PushKey: keyOf(string(d.app.key[:]), d.address)}
		if d.destination != "" { // else a host of a stranger's choice calls pushkeys of its own dead
			d.claim.App = d.app.key
		}
		open = append(open, d)
	}
	return all, open
}

// refuse returns what is known of a device before anybody is asked about it, and
// finds the address of what is not refused.
func (g *Gateway) refuse(d *delivery) Outcome {
	switch {
	case d.push.Device.impossible():
		return Outcome{Kind: Rejected, Reason: ReasonMalformedPushKey}
	case d.app == nil && g.opts.UnknownApp == UnknownAppDelete:
		return Outcome{Kind: Rejected, Reason: ReasonUnknownApp}
	case d.app == nil:
		return Outcome{Kind: Temporary, Reason: ReasonUnknownApp}
	}
	if d.address = d.app.Provider.Address(d.push.Device); d.address == "" {
		return Outcome{Kind: Rejected, Reason: ReasonMalformedPushKey}
	}
	return Outcome{}
}

// serveAll serves deliveries in parallel and records what became of them. The last
// one, mostly the only one, needs no goroutine.
func (g *Gateway) serveAll(ctx context.Context, n *Notification, all []*delivery) {
	if len(all) == 0 {
		return
	}
	var others sync.WaitGroup
	for _, d := range all[:len(all)-1] {
		others.Go(func() { g.serve(ctx, n, d) })
	}
	g.serve(ctx, n, all[len(all)-1])
	others.Wait()
	g.complete(ctx, n, all)
}

// serve finds the outcome of a delivery that no other request has, but does not
// record it.
func (g *Gateway) serve(ctx context.Context, n *Notification, d *delivery) {
	switch {
	case d.remembered():
		d.outcome = Outcome{Kind: Rejected, Reason: ReasonRemembered}
		return
	case d.claimed.State != Delivered:
	case !n.Counts.Known() || n.Counts.digest() == d.claimed.Counts:
		g.opts.Metrics.duplicate(d.app, suppressed)
		d.outcome = Outcome{Kind: Accepted, Reason: ReasonDuplicate}
		return
	default:
		// The device has had the event, but not these counts.
		g.opts.Metrics.duplicate(d.app, countsUpdate)
		d.push.Notification, d.push.Common = &Notification{Counts: n.Counts}, nil
	}
	d.outcome = g.send(ctx, n.Source, d)
}

// remembered reports whether the pushkey was rejected before and has not been
// registered again since.
func (d *delivery) remembered() bool {
	return d.claimed.Rejected && d.push.Device.PushKeyTS <= d.claimed.PushKeyTS
}

// pollInterval is how often a request looks whether the one it waits for has
// ended.
const pollInterval = 250 * time.Millisecond

var errStillInFlight = errors.New("another request still delivers the same notification")

// await waits until the requests that have the notification have delivered it, and
// delivers it where they could not. It asks for all devices at once: a hundred
// that wait must not cost a hundred times as much as one.
func (g *Gateway) await(ctx context.Context, n *Notification, waiting []*delivery) {
	for _, d := range waiting {
		d.waited = true
		g.opts.Metrics.duplicate(d.app, waited)
	}
	var serving sync.WaitGroup
	for len(waiting) > 0 && wait(ctx, pollInterval) {
		g.claim(ctx, waiting)
		var ready []*delivery
		ready, waiting = split(waiting)
		serving.Go(func() { g.serveAll(ctx, n, ready) })
	}
	for _, d := range waiting {
		d.outcome = Outcome{Kind: Temporary, Reason: ReasonInFlight, RetryAfter: busyRetryAfter, Err: errStillInFlight}
	}
	g.complete(ctx, n, waiting)
	serving.Wait()
}

// report counts and logs what became of each device.
func (g *Gateway) report(ctx context.Context, all []*delivery) []Outcome {
	outcomes := make([]Outcome, len(all))
	debug := g.opts.Log.Enabled(ctx, slog.LevelDebug)
	for i, d := range all {
		outcomes[i] = d.outcome
		g.opts.Metrics.outcome(d.app, d.outcome)
		if debug && d.app != nil {
			g.opts.Log.DebugContext(ctx, "device done", "app", d.app.Name, "device", d.push.Device, "outcome", d.outcome.Kind.String(),
				"reason", d.outcome.Reason, "status", d.outcome.Status, "detail", d.outcome.Detail, "waited", d.waited, "err", d.outcome.Err)
		}
	}
	return outcomes
}
