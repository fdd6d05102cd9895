package identity

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/matrix-herald/herald/identity/signing"
)

const (
	// DeliverFor is how long a homeserver that does not answer is asked with
	// growing pauses. After that it is asked once a day about an invite, and no
	// longer about a binding without one.
	DeliverFor = 24 * time.Hour

	// DefaultDeliveryTimeout bounds one request to a homeserver.
	DefaultDeliveryTimeout = 45 * time.Second
	// DefaultDeliveries is how many homeservers are told at once.
	DefaultDeliveries = 32
	// maxEach is how many things one homeserver is told at once, and maxMore how
	// many are told to all of them together beyond one each.
	maxEach, maxMore = 16, 64

	defaultRetry    = 10 * time.Second
	maxRetry        = time.Hour
	lateRetry       = 24 * time.Hour
	defaultInterval = time.Second
	// recordTime is for writing down what came of a delivery. It is part of the
	// lease, so that nobody else begins meanwhile.
	recordTime = 15 * time.Second
)

// What came of an attempt, for the metrics.
var (
	errRefused = errors.New("refused for good")
	errLater   = errors.New("to be tried again")
	errAborted = errors.New("aborted")
)

// Homeservers tells homeservers about bindings.
type Homeservers interface {
	// OnBind sends body to a homeserver (Server-Server API, POST
	// /_matrix/federation/v1/3pid/onbind). It returns nil after a 200, a
	// *RefusedError if trying again is in vain, and any other error, a *LaterError
	// if the homeserver says when, if it is not.
	OnBind(ctx context.Context, server string, body []byte) error
}

// DeliveriesOptions configure Deliveries. Store, Keys, Homeservers, ServerName,
// Now, Log and Metrics are required.
type DeliveriesOptions struct {
	Store       DeliveryStore
	Keys        *Keyring
	Homeservers Homeservers
	ServerName  string        // under which bodies are signed
	Timeout     time.Duration // of one request; 0 is DefaultDeliveryTimeout
	MaxInFlight int           // homeservers told at once; 0 is DefaultDeliveries
	// Retry is the first pause after a failure, which then doubles up to an hour; 0
	// is ten seconds. Interval lies between two looks at the store while nothing
	// is due; 0 is a second.
	Retry, Interval time.Duration
	Now             func() time.Time
	Log             *slog.Logger
	Metrics         *Metrics
}

// Deliveries tells homeservers which addresses of their users were bound and
// which invites waited for them. What there is to tell is in the store, so it
// survives a crash, and all replicas may run it.
type Deliveries struct {
	opts DeliveriesOptions
	more atomic.Int64 // what is being told beyond one thing to each homeserver
}

// NewDeliveries returns Deliveries, or an error if an option is missing.
func NewDeliveries(o DeliveriesOptions) (*Deliveries, error) {
	if o.Store == nil || o.Keys == nil || o.Homeservers == nil || o.ServerName == "" || o.Now == nil || o.Log == nil ||
		o.Metrics == nil || o.Timeout < 0 || o.MaxInFlight < 0 || o.Retry < 0 || o.Interval < 0 {
		return nil, errors.New("identity: deliveries: an option is missing or negative")
	}
	for d, standard := range map[*time.Duration]time.Duration{
		&o.Timeout: DefaultDeliveryTimeout, &o.Retry: defaultRetry, &o.Interval: defaultInterval,
	} {
		if *d == 0 {
			*d = standard
		}
	}
	if o.MaxInFlight == 0 {
		o.MaxInFlight = DefaultDeliveries
	}
	return &Deliveries{opts: o}, nil
}

// Run delivers what is due until ctx is done. Then it breaks off the requests
// that are running, which makes them due at once for whoever runs next, and
// returns nil.
func (d *Deliveries) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	slots := make(chan struct{}, d.opts.MaxInFlight)
	freed := make(chan struct{}, 1)
	for {
		for len(slots) < cap(slots) {
			batch := d.claim(ctx)
			if len(batch) == 0 {
				break
			}
			slots <- struct{}{} // nobody else takes any
			d.more.Add(int64(len(batch)) - 1)
			running.Go(func() {
				d.deliver(ctx, batch)
				d.more.Add(1 - int64(len(batch)))
				<-slots
				select { // the homeserver may have more to be told
				case freed <- struct{}{}:
				default:
				}
			})
		}
		t := time.NewTimer(d.opts.Interval)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-freed:
			t.Stop()
		case <-t.C:
		}
	}
}

// claim takes the deliveries that are due to one homeserver; none if nothing is due.
func (d *Deliveries) claim(ctx context.Context) []Delivery {
	now := d.opts.Now()
	most := min(maxEach, 1+max(0, maxMore-int(d.more.Load())))
	due, err := d.opts.Store.ClaimDeliveries(ctx, rand.Text(), now, now.Add(d.opts.Timeout+recordTime), most)
	if err != nil && ctx.Err() == nil {
		d.opts.Log.ErrorContext(ctx, "cannot find out which homeservers to tell about bindings", "err", err)
	}
	return due
}

// deliver makes one attempt at each delivery to a homeserver, all at once, and
// writes down what came of them.
func (d *Deliveries) deliver(ctx context.Context, batch []Delivery) {
	results := make([]DeliveryResult, len(batch))
	var attempts sync.WaitGroup
	for i, one := range batch {
		attempts.Go(func() { results[i] = d.result(ctx, one, d.attempt(ctx, one)) })
	}
	attempts.Wait()
	record, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTime)
	defer cancel()
	if err := d.opts.Store.SettleDeliveries(record, results, d.opts.Now()); err != nil {
		d.opts.Log.ErrorContext(ctx, "what a homeserver was told is not written down and will be repeated",
			"server", batch[0].Binding.Server(), "err", err)
	}
}

// result counts and logs what came of an attempt, and says what follows.
func (d *Deliveries) result(ctx context.Context, one Delivery, err error) DeliveryResult {
	now, refused := d.opts.Now(), (*RefusedError)(nil)
	log := d.opts.Log.With("server", one.Binding.Server(), "attempt", one.Attempt)
	if one.Invite != nil {
		log = log.With("invite", one.InviteID, "room", one.Invite.RoomID)
	}
	r := DeliveryResult{Delivery: one, Due: now}
	switch {
	case err == nil:
		d.opts.Metrics.told(nil)
		log.DebugContext(ctx, "told a homeserver about a binding")
		r.Told = true
	case errors.As(err, &refused):
		d.opts.Metrics.told(errRefused)
		log.WarnContext(ctx, "homeserver refused to hear about a binding", "err", err)
		r.Refused = refused.Reason
	case ctx.Err() != nil:
		d.opts.Metrics.told(errAborted)
	default:
		d.opts.Metrics.told(errLater)
		r.Due = now.Add(d.pause(one, err, now))
		log.InfoContext(ctx, "homeserver did not hear about a binding", "err", err, "next_attempt", r.Due)
	}
	return r
}

// pause returns how long to wait after an attempt that failed.
func (d *Deliveries) pause(one Delivery, err error, now time.Time) time.Duration {
	pause := maxRetry
	switch n := min(one.Attempt, 16); {
	case now.Sub(one.Binding.TS) >= DeliverFor:
		pause = lateRetry
	case n < 16:
		pause = min(d.opts.Retry<<(n-1), maxRetry)
	}
	// Up to a fifth longer, so that a homeserver that comes back is not met by all
	// at once.
	pause += mathrand.N(pause/5 + 1) //nolint:gosec // nothing depends on it being secret
	if later, ok := errors.AsType[*LaterError](err); ok {
		pause = max(pause, min(later.After, lateRetry))
	}
	return pause
}

// attempt tells the homeserver.
func (d *Deliveries) attempt(ctx context.Context, one Delivery) error {
	body, err := d.body(ctx, one)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, d.opts.Timeout, errors.New("homeserver took too long"))
	defer cancel()
	return d.opts.Homeservers.OnBind(ctx, one.Binding.Server(), body)
}

// body returns the signed notification (Server-Server API, PUT
// /_matrix/federation/v1/3pid/onbind).
func (d *Deliveries) body(ctx context.Context, one Delivery) ([]byte, error) {
	notification := one.Binding.association().object()
	invites := []any{}
	if one.Invite != nil {
		invite, err := d.invite(ctx, one.Binding.UserID, *one.Invite)
		if err != nil {
			return nil, err
		}
		invites = append(invites, invite)
	}
	notification["invites"] = invites
	key, err := d.opts.Keys.Active(ctx)
	if err != nil {
		return nil, err
	}
	if err := signing.Sign(notification, d.opts.ServerName, key); err != nil {
		return nil, fmt.Errorf("notification: %w", err)
	}
	return signing.Canonical(notification)
}

// invite returns an invite as it is told. The room knows the key that was
// active when the invite was made, so that one signs, even if it is retired;
// and just mxid and token, because some homeservers check a copy with nothing
// else in it.
func (d *Deliveries) invite(ctx context.Context, userID string, i Invite) (map[string]any, error) {
	key, err := d.opts.Keys.Key(ctx, i.KeyID)
	if errors.Is(err, ErrNoKey) {
		// The room would not believe any other key, and rightly not this one.
		return nil, &RefusedError{Reason: "the signing key is compromised"}
	}
	if err != nil {
		return nil, err
	}
	signed := map[string]any{"mxid": userID, "token": i.Token}
	if err := signing.Sign(signed, d.opts.ServerName, key); err != nil {
		return nil, fmt.Errorf("invite: %w", err)
	}
	return map[string]any{
		"medium": string(i.Address.Medium), "address": i.Address.Address, "mxid": userID,
		"room_id": i.RoomID, "sender": i.Sender, "token": i.Token, "signed": signed,
	}, nil
}
