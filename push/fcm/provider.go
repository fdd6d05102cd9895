// Package fcm delivers notifications to Android devices, and to whatever else
// a Firebase project reaches, through the HTTP v1 API of Firebase Cloud
// Messaging. It owns the message's form, the access tokens of service accounts
// and the meaning of FCM's answers. It does not own retries, remembered
// rejections or any other policy that spans several attempts; that is push's.
package fcm

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/matrix-herald/herald/internal/h2pool"
	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/eventdata"
)

// maxResponse bounds FCM's response to a message, in bytes.
const maxResponse = 64 << 10

// Provider delivers the notifications of one app through FCM. It implements
// push.Provider.
type Provider struct {
	link        *h2pool.Use[*link]
	now         func() time.Time
	url         string
	payload     Payload
	fingerprint string
	destination string
	close       sync.Once
	messages    eventdata.Window
}

func newProvider(l *h2pool.Use[*link], s settings, now func() time.Time) *Provider {
	return &Provider{
		link:    l,
		now:     now,
		url:     s.endpoint.String() + "/v1/projects/" + s.projectID + "/messages:send",
		payload: s.payload,
		fingerprint: push.Fingerprint(strings.Join([]string{
			"fcm", s.endpoint.String(), s.projectID, s.account.id,
		}, "\n")),
		destination: push.Fingerprint(strings.Join([]string{"fcm", s.endpoint.String(), s.projectID}, "\n")),
	}
}

// Fingerprint stands for what FCM's judgement of a pushkey depends on: host,
// project and service account. It shows none of them.
func (p *Provider) Fingerprint() string { return p.fingerprint }

// Destination stands for what all of the project's devices share: FCM's host and
// the project. It shows neither.
func (p *Provider) Destination(*push.Device) string { return p.destination }

// Address returns the registration token or installation ID that the pushkey
// stands for.
func (p *Provider) Address(d *push.Device) string {
	var m message
	if !p.payload.address(&m, d.PushKey) {
		return ""
	}
	return m.Token + m.FID
}

// AddressedBy says what a pushkey is sent to as, for people who look for faults.
func (p *Provider) AddressedBy(d *push.Device) string {
	var m message
	if p.payload.address(&m, d.PushKey); m.FID != "" {
		return "installation ID"
	}
	return "registration token"
}

// Close gives back the app's share of the connections and does not wait: they
// end when the last Send under way has. It may be called more than once.
func (p *Provider) Close() {
	p.close.Do(p.link.Release)
}

// Send makes one attempt to deliver d.
func (p *Provider) Send(ctx context.Context, d push.Delivery) push.Outcome {
	message, out := p.payload.Message(d, p.now())
	if message == nil {
		return out
	}
	if err := p.link.Hold(); err != nil {
		return failure(ctx, err)
	}
	defer p.link.Release()
	token, out := p.link.Of.tokens.Get(ctx)
	if token == "" {
		return out
	}
	r, err := p.post(ctx, token, message)
	if err != nil {
		return failure(ctx, err)
	}
	if r.refusesToken() {
		p.link.Of.tokens.Refused(token, true)
	}
	return p.outcome(r)
}

// post sends a message once. The SDK's client is not used for that: it repeats a
// message up to four times where it may have been taken, and hides the answers.
func (p *Provider) post(ctx context.Context, token string, message []byte) (response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, bytes.NewReader(message))
	if err != nil {
		return response{}, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Goog-Api-Format-Version", "2") // else FCM leaves its error codes out
	res, err := p.link.Of.sender.RoundTrip(req)
	if err != nil {
		return response{}, err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxResponse))
	if err != nil {
		return response{}, fmt.Errorf("read fcm's response: %w", err)
	}
	return parseResponse(res.StatusCode, res.Header, body, p.now()), nil
}

// outcome says what a response means for this app's push.
func (p *Provider) outcome(r response) push.Outcome {
	out := r.outcome()
	wrong := out.Reason == push.ReasonBadMessage
	if !wrong && out.Reason != push.ReasonSent {
		return out
	}
	if most := p.messages.Add(wrong); wrong && most { // then it is hardly the messages' fault
		return r.temporary(push.ReasonConfig, out.Evidence)
	}
	return out
}
