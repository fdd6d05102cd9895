package apns

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"log/slog"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/sideshow/apns2"

	"github.com/matrix-herald/herald/push"
)

// sendTimeout bounds an attempt whose context has no deadline.
const sendTimeout = 30 * time.Second

var errSendTimeout = errors.New("APNs did not answer in time")

// Provider delivers to the devices of one app through APNs. Its methods are
// safe for concurrent use.
type Provider struct {
	client      apns2.Client
	tokens      *tokenSource // nil with a certificate
	settings    settings
	fingerprint string
	quota       string
	notAfter    time.Time
	log         *slog.Logger
	now         func() time.Time
	release     func() // gives up the shares
	closing     sync.Once

	mu    sync.Mutex
	users int // one until Close, and one for each push on its way
}

var _ push.Provider = (*Provider)(nil)

// settings are the parts of a Config that each push needs.
type settings struct {
	topic       string
	pushType    apns2.EPushType // "" follows from the payload
	priority    int             // 0 follows from the notification
	format      PushKeyFormat
	payload     PayloadOptions
	expiration  *time.Duration
	collapse    string
	rejectTopic bool
}

// Close gives up the provider's share of connections and tokens, as soon as
// the pushes on their way have ended. It does not wait for them.
func (p *Provider) Close() { p.closing.Do(p.end) }

// begin counts one more user. It reports whether the provider is still open.
func (p *Provider) begin() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.users == 0 {
		return false
	}
	p.users++
	return true
}

// end counts one user less. The last gives up the shares.
func (p *Provider) end() {
	p.mu.Lock()
	p.users--
	last := p.users == 0
	p.mu.Unlock()
	if last {
		p.release()
	}
}

// NotAfter returns when the provider's certificate expires, the zero time when
// it uses a token.
func (p *Provider) NotAfter() time.Time { return p.notAfter }

// Fingerprint stands for the settings that decide which device tokens are
// valid: host, credentials and topic. It shows none of them.
func (p *Provider) Fingerprint() string { return p.fingerprint }

// Quota stands for what Apple counts pushes by: the credentials, at a host. It
// shows neither.
func (p *Provider) Quota() string { return p.quota }

// Destination is the same for all devices: the credentials, at a host.
func (p *Provider) Destination(*push.Device) string { return p.quota }

// Send implements push.Provider. It makes one request; a second one only when
// Apple refused the first for an expired provider token and there is a newer.
func (p *Provider) Send(ctx context.Context, d push.Delivery) push.Outcome {
	token, err := DeviceToken(d.Device.PushKey, p.settings.format)
	if err != nil {
		return push.Outcome{Kind: push.Rejected, Reason: push.ReasonMalformedPushKey}
	}
	payload, err := NewPayload(d.Notification, d.Device, p.settings.payload)
	switch {
	case errors.Is(err, ErrMalformedData):
		p.log.InfoContext(ctx, "pusher data rejected", "device", d.Device, "err", err)
		return push.Outcome{Kind: push.Rejected, Reason: push.ReasonMalformedData}
	case errors.Is(err, ErrTooLarge):
		return push.Outcome{Kind: push.Dropped, Reason: push.ReasonTooLarge}
	case err != nil:
		return push.Outcome{Kind: push.Temporary, Reason: push.ReasonInternal, Err: err}
	case payload.JSON == nil:
		return push.Outcome{Kind: push.Accepted, Reason: push.ReasonNothingToSend}
	}
	if !p.begin() {
		return push.Outcome{Kind: push.Temporary, Reason: push.ReasonConnection, Unprocessed: true, Err: errClosed}
	}
	defer p.end()
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, sendTimeout, errSendTimeout)
		defer cancel()
	}
	n := p.settings.notification(d, payload)
	n.DeviceToken = token
	out, bearer := p.attempt(ctx, n, d.Device)
	if out.Status != 403 || out.Detail != apns2.ReasonExpiredProviderToken || p.tokens == nil {
		return out
	}
	switch again, err := p.tokens.renew(bearer); {
	case err != nil:
		return push.Outcome{Kind: push.Temporary, Reason: push.ReasonInternal, Err: err}
	case again:
		out, _ = p.attempt(ctx, n, d.Device)
	}
	return out
}

// attempt makes one request. It returns the outcome and the provider token
// that was used.
func (p *Provider) attempt(ctx context.Context, n *apns2.Notification, d *push.Device) (push.Outcome, string) {
	x := &exchange{expiration: p.settings.expirationHeader(p.now())}
	if p.tokens != nil {
		var err error
		if x.bearer, err = p.tokens.token(); err != nil {
			return push.Outcome{Kind: push.Temporary, Reason: push.ReasonInternal, Err: err}, ""
		}
	}
	_, err := p.client.PushWithContext(withExchange(ctx, x), n)
	switch {
	case x.status != 0: // whatever apns2 makes of the body
		out := x.outcome(d, p.now(), p.settings.rejectTopic)
		if out.Detail == apns2.ReasonTooManyProviderTokenUpdates && p.tokens != nil {
			p.tokens.hold()
		}
		return out, x.bearer
	case !x.asked:
		return push.Outcome{Kind: push.Temporary, Reason: push.ReasonInternal, Unprocessed: true, Err: withoutURL(err)}, x.bearer
	}
	return failure(withoutURL(err), ctx.Err()), x.bearer
}

// withoutURL takes the URL, which holds the device token, out of an error of
// net/http.
func withoutURL(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

// notification prepares everything of a request but the device token.
func (s *settings) notification(d push.Delivery, payload Payload) *apns2.Notification {
	n := &apns2.Notification{
		ApnsID:   d.ID,
		Topic:    s.topic,
		Payload:  payload.JSON,
		PushType: s.pushType,
		Priority: s.priority,
	}
	if n.PushType == "" {
		n.PushType = apns2.PushTypeAlert
		if payload.Background {
			n.PushType = apns2.PushTypeBackground
		}
	}
	if n.Priority == 0 {
		n.Priority = apns2.PriorityHigh
		if d.Notification.Low || payload.BadgeOnly && n.PushType == apns2.PushTypeAlert {
			n.Priority = apns2.PriorityLow
		}
	}
	// Apple refuses background pushes of high priority, whatever they are
	// called.
	background := n.PushType == apns2.PushTypeBackground || payload.Background && n.PushType == apns2.PushTypeAlert
	if background && n.Priority == apns2.PriorityHigh {
		n.Priority = apns2.PriorityLow
	}
	n.CollapseID = s.collapseID(d)
	return n
}

// collapseID returns the apns-collapse-id, "" for none. It is a hash, because
// ids of rooms and events may be longer than the 64 bytes that Apple takes,
// and it covers the pusher's data, because two accounts on one device must not
// replace each other's notifications.
func (s *settings) collapseID(d push.Delivery) string {
	var id string
	switch s.collapse {
	case CollapseRoom:
		id = d.Notification.RoomID.String()
	case CollapseEvent:
		id = d.Notification.EventID.String()
	}
	if id == "" {
		return ""
	}
	data, err := push.EncodeJSON([]any{s.collapse, id, d.Device.Data})
	if err != nil {
		return "" // not to collapse is harmless
	}
	sum := sha256.Sum256(data)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// expirationHeader returns the apns-expiration of a push at now: "0" is to try
// once, "" to leave it to Apple.
func (s *settings) expirationHeader(now time.Time) string {
	switch {
	case s.expiration == nil:
		return ""
	case *s.expiration == 0:
		return "0"
	}
	return strconv.FormatInt(now.Add(*s.expiration).Unix(), 10)
}
