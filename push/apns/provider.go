package apns

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/sideshow/apns2"

	"github.com/matrix-herald/herald/internal/h2pool"
	"github.com/matrix-herald/herald/push"
)

// Provider delivers to the devices of one app through APNs. Its methods are
// safe for concurrent use.
type Provider struct {
	pool        *h2pool.Use[*h2pool.Pool]
	url         string            // of a device token, without it
	transport   http.RoundTripper // over pool
	tokens      *tokenSource      // nil with a certificate
	cfg         Config            // with the topic and the push type that follow from it
	payload     PayloadOptions
	fingerprint string
	destination string
	notAfter    time.Time
	now         func() time.Time
	closing     sync.Once
}

var _ push.Provider = (*Provider)(nil)

// Close gives up the provider's share of the connections. Pushes on their way
// keep theirs, and Close does not wait for them.
func (p *Provider) Close() { p.closing.Do(p.pool.Release) }

// NotAfter returns when the provider's certificate expires, the zero time when
// it uses a token.
func (p *Provider) NotAfter() time.Time { return p.notAfter }

// Fingerprint stands for the settings that decide which device tokens are
// valid: host, credentials and topic. It shows none of them.
func (p *Provider) Fingerprint() string { return p.fingerprint }

// Destination stands for Apple's host and the credentials, which the apps of a
// team share. It shows neither.
func (p *Provider) Destination(*push.Device) string { return p.destination }

// Address returns the device token that the pushkey stands for.
func (p *Provider) Address(d *push.Device) string {
	return DeviceToken(d.PushKey)
}

// Send implements push.Provider. It makes one request; a second one only when
// Apple refused the first for an expired provider token and there is a newer.
func (p *Provider) Send(ctx context.Context, d push.Delivery) push.Outcome {
	token := p.Address(d.Device)
	if token == "" {
		return push.Outcome{Kind: push.Rejected, Reason: push.ReasonMalformedPushKey}
	}
	payload, out := NewPayload(d, p.payload, p.now())
	if payload.JSON == nil {
		return out
	}
	if err := p.pool.Hold(); err != nil {
		return failure(ctx, err)
	}
	defer p.pool.Release()
	r := request{token: token, header: p.header(d, payload, p.now()), body: payload.JSON}
	out, bearer := p.attempt(ctx, r, d.Device)
	if out.Status != http.StatusForbidden || out.Detail != apns2.ReasonExpiredProviderToken || p.tokens == nil {
		return out
	}
	switch again, err := p.tokens.renew(bearer); {
	case err != nil:
		return push.Outcome{Kind: push.Temporary, Reason: push.ReasonInternal, Err: err}
	case again:
		out, _ = p.attempt(ctx, r, d.Device)
	}
	return out
}

// request is a push as it goes to Apple, but for the provider token.
type request struct {
	token  string // the device's
	header http.Header
	body   []byte
}

// attempt makes one request. It returns the outcome and the provider token
// that was used.
func (p *Provider) attempt(ctx context.Context, r request, d *push.Device) (out push.Outcome, bearer string) {
	internal := push.Outcome{Kind: push.Temporary, Reason: push.ReasonInternal, Unprocessed: true}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url+r.token, bytes.NewReader(r.body))
	if err != nil {
		internal.Err = errors.New("make a request to APNs") // the cause would show the device token
		return internal, ""
	}
	req.Header = r.header
	if p.tokens != nil {
		if bearer, err = p.tokens.token(); err != nil {
			internal.Err = err
			return internal, ""
		}
		req.Header = r.header.Clone()
		req.Header.Set("Authorization", "bearer "+bearer)
	}
	res, err := p.transport.RoundTrip(req)
	if err != nil {
		return failure(ctx, err), bearer
	}
	defer res.Body.Close()
	response := readResponse(res)
	if response.own && response.reason == apns2.ReasonTooManyProviderTokenUpdates && p.tokens != nil {
		p.tokens.hold()
	}
	return response.outcome(d, p.now()), bearer
}

// header returns the header of a push at now, without the provider token
// ("Sending notification requests to APNs").
func (p *Provider) header(d push.Delivery, payload Payload, now time.Time) http.Header {
	pushType := apns2.EPushType(p.cfg.PushType)
	switch {
	case pushType != "":
	case payload.Background:
		pushType = apns2.PushTypeBackground
	default:
		pushType = apns2.PushTypeAlert
	}
	priority := apns2.PriorityHigh
	if d.Notification.Low && !payload.Call.Rings() || payload.BadgeOnly && pushType == apns2.PushTypeAlert {
		priority = apns2.PriorityLow
	}
	// Apple refuses background pushes of high priority, whatever they are
	// called.
	background := pushType == apns2.PushTypeBackground || payload.Background && pushType == apns2.PushTypeAlert
	if background && priority == apns2.PriorityHigh {
		priority = apns2.PriorityLow
	}
	h := http.Header{
		"Content-Type":   {"application/json; charset=utf-8"},
		"Apns-Topic":     {p.cfg.Topic},
		"Apns-Push-Type": {string(pushType)},
		"Apns-Priority":  {strconv.Itoa(priority)},
	}
	for name, value := range map[string]string{
		"Apns-Id": d.ID, "Apns-Collapse-Id": p.collapseID(d, payload.Call), "Apns-Expiration": p.expirationHeader(payload, now),
	} {
		if value != "" {
			h[name] = []string{value}
		}
	}
	return h
}

// collapseID returns the apns-collapse-id, "" for none. It is a hash, because
// ids of rooms and events may be longer than the 64 bytes that Apple takes,
// and it covers the pusher's data, because two accounts on one device must not
// replace each other's notifications.
func (p *Provider) collapseID(d push.Delivery, call push.Call) string {
	var of any
	switch {
	case p.cfg.Collapse == CollapseRoom && !call.Rings():
		of = id(d.Notification.RoomID)
	case p.cfg.Collapse == CollapseEvent:
		of = id(d.Notification.EventID)
	}
	if of == nil {
		return ""
	}
	data, err := push.EncodeJSON([]any{p.cfg.Collapse, of, d.Device.Data})
	if err != nil {
		return "" // not to collapse is harmless
	}
	sum := sha256.Sum256(data)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// expirationHeader returns the apns-expiration of a push at now: "0" is to try
// once, "" to leave it to Apple.
func (p *Provider) expirationHeader(payload Payload, now time.Time) string {
	until := payload.Call.RingsUntil
	if p.cfg.KeepFor != nil {
		latest := now.Add(p.cfg.KeepFor.Std())
		switch {
		case !latest.After(now):
			return "0"
		case until.IsZero() || latest.Before(until):
			until = latest
		}
	}
	if until.IsZero() {
		return ""
	}
	return strconv.FormatInt(until.Unix(), 10)
}
