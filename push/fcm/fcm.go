package fcm

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"firebase.google.com/go/v4/messaging"

	"github.com/matrix-herald/herald/push"
)

// maxPushKey is the longest pushkey, in bytes (Client-Server API, POST
// /pushers/set).
const maxPushKey = 512

// Provider delivers the notifications of one app through FCM. It implements
// push.Provider.
type Provider struct {
	connections    *Connections
	link           *link
	client         *messaging.Client
	payload        Payload
	rejectMismatch bool
	fingerprint    string
	quota          string
	close          sync.Once
}

func newProvider(c *Connections, l *link, s settings) (*Provider, error) {
	client, err := newClient(context.Background(), s.projectID, s.endpoint.String(), l)
	if err != nil {
		return nil, err
	}
	return &Provider{
		connections:    c,
		link:           l,
		client:         client,
		payload:        s.payload,
		rejectMismatch: s.rejectMismatch,
		fingerprint: push.Fingerprint(strings.Join([]string{
			"fcm", s.endpoint.String(), s.projectID, s.account.identity(), fmt.Sprint(s.rejectMismatch),
		}, "\n")),
		quota: push.Fingerprint(strings.Join([]string{"fcm", s.endpoint.String(), s.projectID}, "\n")),
	}, nil
}

// Fingerprint stands for what FCM's judgement of a pushkey depends on: host,
// project and service account. It shows none of them.
func (p *Provider) Fingerprint() string { return p.fingerprint }

// Quota stands for what FCM counts messages by: the project, at its host. It
// shows neither.
func (p *Provider) Quota() string { return p.quota }

// Destination is the same for all devices: the project, at its host.
func (p *Provider) Destination(*push.Device) string { return p.quota }

// Close gives back the app's share of the connections and does not wait: they
// end when the last Send under way has. It may be called more than once.
func (p *Provider) Close() {
	p.close.Do(func() { p.connections.release(p.link) })
}

// Send makes one attempt to deliver d.
func (p *Provider) Send(ctx context.Context, d push.Delivery) push.Outcome {
	if !validPushKey(d.Device.PushKey) {
		return push.Outcome{Kind: push.Rejected, Reason: push.ReasonMalformedPushKey}
	}
	msg, out := p.payload.Message(d.Notification, d.Device)
	if msg == nil {
		return out
	}
	if !p.connections.hold(p.link) {
		return push.Outcome{Kind: push.Temporary, Reason: push.ReasonConnection, Unprocessed: true, Err: errStopped}
	}
	defer p.connections.release(p.link)
	ex := new(exchange)
	name, err := p.client.Send(context.WithValue(ctx, exchangeKey{}, ex), msg)
	now := p.connections.opts.Now()
	switch {
	case ex.err != nil:
		return failure(ctx, ex.err, ex.reached, now)
	case ex.status == http.StatusOK && err == nil && name != "":
		return push.Outcome{Kind: push.Accepted, Reason: push.ReasonSent, Status: ex.status}
	case ex.status == 0:
		// The SDK did not get as far as sending. Its text may quote the message.
		return push.Outcome{Kind: push.Temporary, Reason: push.ReasonInternal,
			Err: fmt.Errorf("the firebase library refuses a message: %T", err)}
	}
	return parseAnswer(ex.status, ex.header, ex.body, now).outcome(p.rejectMismatch)
}

// validPushKey reports whether key can be a registration token, which is
// printable ASCII without spaces.
func validPushKey(key string) bool {
	return key != "" && len(key) <= maxPushKey &&
		!strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' })
}
