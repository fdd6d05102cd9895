// Package httpapi speaks the Matrix Push Gateway API for a push.Gateway: what
// is on the wire, its limits, and which answer makes a homeserver do the right
// thing. It decides nothing about delivery.
package httpapi

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/internal/mxhttp"
	"github.com/matrix-herald/herald/internal/ratelimit"
	"github.com/matrix-herald/herald/push"
)

// notifyPath is the one path a pusher's URL may have (Client-Server API, POST
// /_matrix/client/v3/pushers/set).
const notifyPath = "/_matrix/push/v1/notify"

// Options configure the API.
type Options struct {
	Gateway    *push.Gateway
	Log        *slog.Logger
	Registerer prometheus.Registerer
	// TrustedProxies are the addresses and ranges whose X-Forwarded-For is
	// believed.
	TrustedProxies []string
	// Timeout bounds a whole request from its headers on. It is below 30 s,
	// because Dendrite gives up then and never tries again.
	Timeout time.Duration
	// Limits are how many requests are taken, Limiter counts them, and
	// TrustedSources are the networks to which they do not apply. Limiter is
	// required where there are Limits.
	Limits         Limits
	Limiter        *ratelimit.Limiter
	TrustedSources []netip.Prefix
	// BytesInFlight bounds what requests hold in memory at once; 0 means not at all. A
	// source that is not trusted holds at most a quarter.
	BytesInFlight int64
	// Discovery says whether UnifiedPush's discovery request is answered, which
	// promises that pushkeys that are URLs are delivered to. Nil is never.
	Discovery func() bool
}

type api struct {
	Options

	decoders mxhttp.Decoders
}

// New returns the API's handler. It fails if a trusted proxy is neither an
// address nor a range, if there are limits and nobody to count, or if the metrics
// are already registered.
func New(opts Options) (http.Handler, error) {
	if !opts.Limits.Off() && opts.Limiter == nil {
		return nil, errors.New("push API: there are limits without a limiter")
	}
	engine, err := mxhttp.NewEngine(mxhttp.Options{
		Logger: opts.Log, Registerer: opts.Registerer, TrustedProxies: opts.TrustedProxies, Timeout: opts.Timeout,
		BytesInFlight: opts.BytesInFlight, TrustedSources: opts.TrustedSources, SlowestBody: slowestBody,
	})
	if err != nil {
		return nil, err
	}
	a := &api{Options: opts}
	// What a member of a room writes must not keep a push from others.
	a.decoders.DeepIsAbsent = true
	engine.POST(notifyPath, mxhttp.Wrap(a.notify))
	if opts.Discovery != nil {
		engine.GET(notifyPath, mxhttp.Wrap(a.discover))
	}
	return engine, nil
}

type notifyResponse struct {
	// Rejected is never null: the specification requires the list.
	Rejected []string `json:"rejected"`
}

// notify handles POST /_matrix/push/v1/notify. It answers when the push
// services have, and not before as the specification advises, because only then
// can a homeserver be told to try again.
func (a *api) notify(w http.ResponseWriter, r *http.Request) error {
	deadline := time.Now().Add(a.Timeout)
	req, err := a.readNotify(w, r)
	if err != nil {
		return err
	}
	// A homeserver that hangs up does not stop what has begun: it would send the
	// same again, and the phone would show it twice.
	ctx, cancel := context.WithDeadline(context.WithoutCancel(r.Context()), deadline)
	defer cancel()
	if err := a.limit(ctx, req); err != nil {
		return err
	}
	req.notification.Source, _ = ratelimit.Source(mxhttp.ClientAddr(r.Context()), nil)
	outcomes := a.Gateway.Deliver(ctx, &req.notification, req.devices)
	mxhttp.AddLogAttrs(r.Context(), logAttrs(req, outcomes)...)
	if failed := failure(outcomes); failed != nil {
		return failed
	}
	var res notifyResponse
	for i, out := range outcomes {
		if out.Kind == push.Rejected {
			res.Rejected = append(res.Rejected, req.devices[i].PushKey)
		}
	}
	if res.Rejected == nil { // nearly always
		return mxhttp.WriteBody(w, http.StatusOK, []byte(`{"rejected":[]}`))
	}
	return mxhttp.WriteJSON(w, http.StatusOK, res)
}

// discover handles GET on the notify path: an app that holds a UnifiedPush
// endpoint asks whether a Matrix gateway stands here.
// https://unifiedpush.org/developers/gateway/
func (a *api) discover(w http.ResponseWriter, _ *http.Request) error {
	if !a.Discovery() {
		w.Header().Set("Allow", http.MethodPost)
		return mxhttp.ErrMethodNotAllowed()
	}
	return mxhttp.WriteBody(w, http.StatusOK, []byte(`{"unifiedpush":{"gateway":"matrix"}}`))
}
