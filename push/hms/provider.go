// Package hms delivers notifications to Huawei's devices through Push Kit. It owns
// the messages, the access tokens and the meaning of Huawei's answers. It does not
// own retries, remembered rejections or any other policy that spans several attempts;
// that is push's.
package hms

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"

	"github.com/matrix-herald/herald/internal/h2pool"
	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/eventdata"
)

const (
	// maxResponse bounds Huawei's answer to a message, in bytes.
	maxResponse = 64 << 10
	// calmFor is for how long messages are not urgent after Huawei said that the app
	// has no right to that.
	calmFor = time.Hour
)

// Provider delivers the notifications of one app. It implements push.Provider.
type Provider struct {
	settings

	tokens   *h2pool.Use[tokens]
	sender   http.RoundTripper
	now      func() time.Time
	log      *slog.Logger
	close    sync.Once
	calm     atomic.Int64 // messages are not urgent until then, in seconds since the epoch
	messages eventdata.Window
}

// Fingerprint stands for what Huawei's judgement of a pushkey depends on: project or
// app, and credentials. It shows none of them.
func (p *Provider) Fingerprint() string { return p.id }

// Destination stands for what all devices of the project share. It shows nothing of
// it.
func (p *Provider) Destination(*push.Device) string { return push.Fingerprint("hms\n" + p.url) }

// Address returns the push token that the pushkey stands for.
func (*Provider) Address(d *push.Device) string { return push.Token(d.PushKey) }

// Close gives back the app's share of the access tokens and does not wait. It may be
// called more than once.
func (p *Provider) Close() { p.close.Do(p.tokens.Release) }

// Send makes one attempt to deliver d. What Huawei refuses without having taken it
// may be sent again, changed: that repeats nothing.
func (p *Provider) Send(ctx context.Context, d push.Delivery) push.Outcome {
	payload, now := p.payload, p.now()
	payload.Calm = now.Unix() < p.calm.Load()
	message, out := payload.Message(d, now)
	if message == nil {
		return out
	}
	token, out := p.tokens.Of.Get(ctx)
	for token != "" && message != nil {
		r, unprocessed, err := p.post(ctx, token, message)
		switch {
		case err != nil:
			return push.NoAnswer(ctx, err, unprocessed)
		case r.code == codeNotUrgent && !payload.Calm && !payload.HarmonyOS:
			payload.Calm = true
			if until := now.Add(calmFor).Unix(); p.calm.Swap(until) <= now.Unix() {
				p.log.WarnContext(ctx, "Huawei gives the app no right to urgent messages: they go out as normal ones, which a phone at rest delays", "code", r.code)
			}
		case r.code == codeTooLarge && !payload.Small:
			payload.Small = true
		default:
			return p.judge(token, r)
		}
		message, out = payload.Message(d, now)
	}
	return out
}

// judge says what an answer means for the app's push.
func (p *Provider) judge(token string, r response) push.Outcome {
	out := r.outcome(p.payload.HarmonyOS)
	switch {
	case out.Reason == push.ReasonCredentials && p.tokens.Of.Refused(token, out.Evidence == push.EvidenceRefused):
		out.Unprocessed = true // and the next one has another token
	case out.Reason == push.ReasonSent, out.Reason == push.ReasonBadMessage && r.code != codeSensitive:
		wrong := out.Reason == push.ReasonBadMessage
		if most := p.messages.Add(wrong); wrong && most { // then it is hardly the messages' fault
			out = r.as(config)
		}
	}
	return out
}

// post sends a message once. Without an answer, unprocessed says that Huawei cannot
// have taken it.
func (p *Provider) post(ctx context.Context, token string, message []byte) (r response, unprocessed bool, err error) {
	var written atomic.Bool
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: func() { written.Store(true) }}),
		http.MethodPost, p.url, bytes.NewReader(message))
	if err != nil {
		return r, true, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json; charset=UTF-8")
	if p.payload.HarmonyOS {
		req.Header.Set("Push-Type", "0") // of what is shown
	}
	res, err := p.sender.RoundTrip(req)
	if err != nil {
		return r, !written.Load(), err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxResponse))
	if err != nil {
		return r, false, fmt.Errorf("read huawei's answer: %w", err)
	}
	return parseResponse(res.StatusCode, res.Header, body, p.now()), false, nil
}
