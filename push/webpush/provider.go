// Package webpush delivers notifications to browsers by Web Push (RFC 8030), and
// to UnifiedPush, whose push servers speak the same. It owns the encryption (RFC
// 8291), the proof of who sends (RFC 8292), the messages and the meaning of the
// services' answers. It does not own retries, remembered rejections or any other
// policy that spans several attempts; that is push's.
//
// The owner of a pusher chooses the host that is contacted. So every request goes
// through safehttp, logs show only known status codes of an answer, and nothing is
// remembered about a host that the operator does not list.
package webpush

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/matrix-herald/herald/push"
)

const (
	// share is what part of an app's places an origin takes at most that the
	// operator does not name, and allShare what all of those take together:
	// whoever has a domain has as many origins as he likes.
	share, allShare = 20, 2
	// busyRetryAfter is what is told beyond it.
	busyRetryAfter = 2 * time.Second
	// A push server that never took a notification may be a proxy that lost its
	// way and answers 404 to all: it is believed the second time, not sooner than
	// missingAfter and not later than missingFor.
	missingAfter = time.Hour
	missingFor   = 24 * time.Hour
)

// Provider delivers the notifications of one app. It implements push.Provider.
type Provider struct {
	settings

	connections *Connections
	sender      http.RoundTripper
	places      int

	tokens  bounded[token]
	keyOf   bounded[int]       // which key a subscription was made with, unless the first
	takers  bounded[struct{}]  // origins that have taken a notification
	missing bounded[time.Time] // when an endpoint was not found

	mu     sync.Mutex
	strays map[string]int // deliveries under way to origins that nobody names
	stray  int            // the sum
}

// Fingerprint stands for what it depends on whether a pushkey is one of the
// app's. It shows nothing of that.
func (p *Provider) Fingerprint() string { return p.fingerprint }

// Destination stands for the push service where it has a name, "" for a host of
// somebody's choice.
func (p *Provider) Destination(d *push.Device) string {
	e := p.endpoint(d)
	if e == nil || !p.hosts.named[e.host] {
		return ""
	}
	return destination(e.host)
}

// Destinations are the hosts that the operator names, and those that everybody knows.
func (p *Provider) Destinations() []string {
	all := make([]string, 0, len(p.hosts.named))
	for host := range p.hosts.named {
		all = append(all, destination(host))
	}
	return all
}

func destination(host string) string { return push.Fingerprint("webpush\nhttps://" + host) }

// Address is the endpoint with the keys: that of somebody else who has the same
// key says nothing about the device's own.
func (p *Provider) Address(d *push.Device) string {
	t, _ := p.target(d)
	switch {
	case t == nil:
		return ""
	case t.keys.public == nil:
		return t.url
	}
	return t.url + "\n" + string(t.keys.public.Bytes()) + string(t.keys.auth)
}

// endpoint returns where a device's notifications go, nil if that cannot be.
func (s *settings) endpoint(d *push.Device) *endpoint {
	text := d.PushKey
	if !s.unified {
		text, _ = d.Data["endpoint"].(string)
	}
	e := parseEndpoint(text)
	if e == nil || e.isIP && !s.hosts.named[e.host] {
		return nil
	}
	return e
}

// notifyPath is where push gateways are posted to. A notification that is sent to
// one would come back.
const notifyPath = "/_matrix/push/"

// target is a device as it is reached.
type target struct {
	*endpoint

	keys  keys // without a public key it gets plain text
	limit int  // of the text, in bytes
}

// target returns how a device is reached. Without one the outcome says why.
func (s *settings) target(d *push.Device) (*target, push.Outcome) {
	e := s.endpoint(d)
	switch {
	case e == nil && s.unified:
		return nil, push.Outcome{Kind: push.Rejected, Reason: push.ReasonMalformedPushKey}
	case e == nil:
		return nil, push.Outcome{Kind: push.Rejected, Reason: push.ReasonMalformedData}
	}
	t := &target{endpoint: e, limit: maxPlain}
	if e.name == mozillaHost {
		t.limit = smallPlain
	}
	p256dh, wrong := d.PushKey, push.ReasonMalformedPushKey
	auth, hasAuth := d.Data["auth"].(string)
	if s.unified {
		var has bool
		p256dh, has = d.Data["p256dh"].(string)
		wrong = push.ReasonMalformedData
		if !has && !hasAuth {
			return t, push.Outcome{}
		}
	}
	var err error
	if t.keys.public, err = parsePublicKey(p256dh); err != nil {
		return nil, push.Outcome{Kind: push.Rejected, Reason: wrong, Err: err}
	}
	if t.keys.auth, err = parseAuth(auth); err != nil {
		return nil, push.Outcome{Kind: push.Rejected, Reason: push.ReasonMalformedData, Err: err}
	}
	return t, push.Outcome{}
}

// Send makes one attempt to deliver d. What a service refuses without having
// taken it may be sent again, changed: that repeats nothing.
func (p *Provider) Send(ctx context.Context, d push.Delivery) push.Outcome {
	t, out := p.target(d.Device)
	switch {
	case t == nil:
		return out
	case !p.hosts.allow(t.endpoint) || strings.HasPrefix(t.path, notifyPath):
		return push.Outcome{Kind: push.Dropped, Reason: push.ReasonNotAllowed}
	}
	now := p.connections.opts.Now()
	m, out := p.message(d, t.endpoint, t.limit, false, now)
	if m == nil {
		return out
	}
	if !p.enter(t.host) {
		return push.Outcome{Kind: push.Temporary, Reason: push.ReasonBusy, RetryAfter: busyRetryAfter}
	}
	defer p.leave(t.host)
	id := push.Fingerprint(t.url)
	key, _ := p.keyOf.get(id)
	key = min(key, max(len(p.keys)-1, 0))
	for changed, otherKeys := 0, 1; ; changed++ {
		r, err := p.post(ctx, t, m, key)
		if err != nil {
			return r.failure(ctx, err)
		}
		again := changed < 2+len(p.keys)
		switch {
		case again && r.keyMismatch() && otherKeys < len(p.keys):
			key, otherKeys = (key+1)%len(p.keys), otherKeys+1
			continue
		case again && r.refusesTopic() && m.topic != "":
			m.topic = ""
			continue
		case again && r.status == http.StatusRequestEntityTooLarge:
			small, _ := p.message(d.WithoutFurther(), t.endpoint, t.limit, true, now)
			if small != nil && len(small.plain) < len(m.plain) {
				small.topic, m = m.topic, small
				continue
			}
		case r.taken() && (key > 0 || otherKeys > 1):
			p.keyOf.put(id, key)
		}
		return p.outcome(t, id, r)
	}
}

// outcome says what the answer means for the app's push.
func (p *Provider) outcome(t *target, id string, r *response) push.Outcome {
	out := r.outcome(p.unified)
	switch {
	case !p.unified || p.hosts.named[t.host]:
	case r.taken():
		p.takers.put(push.Fingerprint(t.host), struct{}{})
	case r.status == http.StatusNotFound:
		if _, took := p.takers.get(push.Fingerprint(t.host)); took {
			break
		}
		now := p.connections.opts.Now()
		before, ok := p.missing.get(id)
		if age := now.Sub(before); !ok || age > missingFor {
			p.missing.put(id, now)
		} else if age >= missingAfter {
			break
		}
		return r.temporary(push.ReasonConfig, push.EvidenceNone)
	}
	return out
}

// enter takes one of the places that an origin has which nobody knows.
func (p *Provider) enter(host string) bool {
	if p.hosts.known(host) {
		return true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.strays == nil {
		p.strays = make(map[string]int)
	}
	if p.strays[host] >= max(1, p.places/share) || p.stray >= max(1, p.places/allShare) {
		return false
	}
	p.strays[host]++
	p.stray++
	return true
}

func (p *Provider) leave(host string) {
	if p.hosts.known(host) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stray--
	if p.strays[host]--; p.strays[host] == 0 {
		delete(p.strays, host)
	}
}

// post sends a message once.
func (p *Provider) post(ctx context.Context, t *target, m *message, key int) (*response, error) {
	r := &response{host: t.name, path: t.path}
	body := m.plain
	if t.keys.public != nil {
		var err error
		if body, err = t.keys.encrypt(m.plain); err != nil {
			return r, err
		}
	}
	var written atomic.Bool
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: func() { written.Store(true) }})
	req, err := http.NewRequestWithContext(traced, http.MethodPost, t.url, bytes.NewReader(body))
	if err != nil {
		return r, errEndpoint // the error quotes the URL
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	// Without it some UnifiedPush servers change a plain text, and the app's
	// library hands over what it cannot decrypt.
	req.Header.Set("Content-Encoding", "aes128gcm")
	req.Header.Set("Ttl", strconv.Itoa(m.ttl))
	req.Header.Set("Urgency", m.urgency)
	if m.topic != "" {
		req.Header.Set("Topic", m.topic)
	}
	if len(p.keys) > 0 {
		authorization, err := p.authorization(key, t.origin())
		if err != nil {
			return r, err
		}
		req.Header.Set("Authorization", authorization)
	}
	res, err := p.sender.RoundTrip(req)
	r.written = written.Load()
	if err != nil {
		return r, err
	}
	defer func() { _ = res.Body.Close() }()
	r.read(res, p.connections.opts.Now())
	return r, nil
}
