package fcm

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/matrix-herald/herald/internal/h2pool"
)

// link is one credential at one host: its connections and its access token.
type link struct {
	key    linkKey
	users  int // providers and deliveries; guarded by Connections.mu
	pool   *h2pool.Pool
	sender http.RoundTripper // pool, perhaps wrapped
	tokens *tokens

	cancel     context.CancelFunc
	background sync.WaitGroup
}

func (l *link) close() {
	l.cancel()
	l.background.Wait()
	l.pool.Close()
}

// exchange is one request and what came of it. It travels in the request's
// context, because the SDK's errors do not carry causes.
type exchange struct {
	reached bool  // the request was handed to the pool
	err     error // there is no answer
	status  int
	header  http.Header
	body    []byte
}

type exchangeKey struct{}

const (
	// statusNoAnswer stands for an exchange without an answer.
	statusNoAnswer = 599
	// maxAnswer bounds FCM's answer to a message, in bytes.
	maxAnswer = 64 << 10
)

// RoundTrip authorises the SDK's request and sends it once. It never fails, and
// shows the SDK every failure as a status that it neither retries nor follows:
// on network errors and 503 it would repeat the message up to four times, for
// seven seconds or whatever Retry-After says. What really happened is in the
// exchange.
func (l *link) RoundTrip(req *http.Request) (*http.Response, error) {
	ex := req.Context().Value(exchangeKey{}).(*exchange)
	ex.err = l.exchange(req, ex)
	switch ex.status {
	case 0: // there is no answer
		return newResponse(req, statusNoAnswer, nil), nil
	case http.StatusOK:
		return newResponse(req, http.StatusOK, ex.body), nil
	default:
		return newResponse(req, http.StatusInternalServerError, ex.body), nil
	}
}

func (l *link) exchange(req *http.Request, ex *exchange) error {
	ctx := req.Context()
	token, err := l.tokens.get(ctx)
	if err != nil {
		_ = req.Body.Close()
		return err
	}
	authorised := req.Clone(ctx)
	authorised.Header.Set("Authorization", "Bearer "+token)
	ex.reached = true
	resp, err := l.sender.RoundTrip(authorised)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	var body bytes.Buffer
	if _, err := io.Copy(&body, io.LimitReader(resp.Body, maxAnswer)); err != nil {
		return fmt.Errorf("read fcm's answer: %w", err)
	}
	ex.status, ex.header, ex.body = resp.StatusCode, resp.Header, body.Bytes()
	if ex.status == http.StatusUnauthorized {
		l.tokens.refused(token)
	}
	return nil
}
