package apns

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
)

// maxAnswer bounds what is read of an answer; Apple's have about 50 bytes.
const maxAnswer = 4 << 10

// exchange is one request and its answer, as far as apns2 does not know them:
// it can neither send the header "apns-expiration: 0" nor show the header
// Retry-After, and it loses the status of an answer that is not JSON.
type exchange struct {
	bearer     string // sent unless empty
	expiration string // sent unless empty

	asked      bool // the request was made
	status     int  // 0 without an answer
	retryAfter string
	body       []byte
}

type exchangeKey struct{}

func withExchange(ctx context.Context, x *exchange) context.Context {
	return context.WithValue(ctx, exchangeKey{}, x)
}

var errNoExchange = errors.New("request without an exchange")

// transport makes the request that apns2 prepares what the exchange in its
// context wants, and notes the answer there.
type transport struct{ pool http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (t transport) RoundTrip(req *http.Request) (*http.Response, error) {
	x, ok := req.Context().Value(exchangeKey{}).(*exchange)
	if !ok {
		return nil, errNoExchange
	}
	request := *req
	request.Header = maps.Clone(req.Header)
	if x.bearer != "" {
		request.Header["Authorization"] = []string{"bearer " + x.bearer}
	}
	if x.expiration != "" {
		request.Header["Apns-Expiration"] = []string{x.expiration}
	}
	x.asked = true
	response, err := t.pool.RoundTrip(&request)
	if err != nil {
		return nil, err
	}
	x.status, x.retryAfter = response.StatusCode, response.Header.Get("Retry-After")
	if response.Body == http.NoBody {
		return response, nil
	}
	defer response.Body.Close()
	// An answer that breaks off still has a status.
	x.body, _ = io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	response.Body = io.NopCloser(bytes.NewReader(x.body))
	return response, nil
}
