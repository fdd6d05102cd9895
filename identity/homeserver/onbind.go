package homeserver

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"
)

const (
	// maxErrcodeBytes is far more than any Matrix errcode has.
	maxErrcodeBytes = 64
	maxRetryAfter   = 24 * time.Hour
)

// FinalError means a homeserver refused a notification for good.
type FinalError struct {
	// Status is the HTTP status, 400 to 499.
	Status int
	// Errcode is the Matrix error code: at most 64 letters, digits, dots, dashes
	// and underscores.
	Errcode string
}

// Error names status and code.
func (e *FinalError) Error() string {
	return fmt.Sprintf("homeserver refused the notification: status %d, %s", e.Status, e.Errcode)
}

// RetryError means a notification was not taken, but may be later.
type RetryError struct {
	// Status is the HTTP status of the answer, 0 if there was none.
	Status int
	// After is how long the homeserver asks to be left alone, at most 24 hours;
	// 0 if it does not say.
	After time.Duration

	cause error // with Status 0
}

// Error names the status. What kept an answer from coming stands behind it.
func (e *RetryError) Error() string {
	if e.cause != nil {
		return "homeserver did not take the notification: " + e.cause.Error()
	}
	return fmt.Sprintf("homeserver did not take the notification: status %d", e.Status)
}

// Unwrap returns ErrUnreachable or ErrBusy when there was no answer.
func (e *RetryError) Unwrap() error { return e.cause }

// OnBind tells server that an address of one of its users was bound
// (Server-Server API, POST /_matrix/federation/v1/3pid/onbind). The
// specification says PUT; every homeserver takes POST, and not all take PUT.
// body is the JSON of the notification and carries its own signature, so there
// is no authorization.
//
// It returns nil when the answer has status 200; a [*FinalError] for a status
// 4xx with a Matrix errcode other than M_LIMIT_EXCEEDED and M_UNRECOGNIZED; and
// a [*RetryError] for all else, the end of ctx included. No error quotes what was
// sent, or what the homeserver says beyond its errcode.
func (c *Client) OnBind(ctx context.Context, server ServerName, body []byte) error {
	r, err := c.exchange(ctx, server, request{
		purpose: forOnBind,
		method:  http.MethodPost,
		uri:     "/_matrix/federation/v1/3pid/onbind",
		body:    body,
		timeout: c.onBindTimeout,
	})
	if err != nil {
		return &RetryError{cause: err}
	}
	if r.status == http.StatusOK {
		return nil
	}
	if code := r.errcode(); 400 <= r.status && r.status <= 499 && code != "" &&
		code != "M_LIMIT_EXCEEDED" && code != "M_UNRECOGNIZED" {
		return &FinalError{Status: r.status, Errcode: code}
	}
	return &RetryError{Status: r.status, After: retryAfter(r.header, c.now())}
}

// errcode returns the errcode of a Matrix error, and "" for any other answer.
func (r reply) errcode() string {
	o, err := decodeObject(r.body)
	if err != nil {
		return ""
	}
	code, err := o.text("errcode")
	if err != nil || len(code) > maxErrcodeBytes || strings.ContainsFunc(code, notErrcode) {
		return ""
	}
	return code
}

func notErrcode(r rune) bool { return notDNS(r) && r != '_' && r != '.' }

// retryAfter reads Retry-After (RFC 9110, section 10.2.3).
func retryAfter(h http.Header, now time.Time) time.Duration {
	value := h.Get("Retry-After")
	after := seconds(value)
	if date, err := http.ParseTime(value); err == nil {
		after = date.Sub(now)
	}
	return min(max(after, 0), maxRetryAfter)
}
