package mxhttp

import (
	"maps"
	"net/http"
	"strconv"
	"time"
)

// Error codes that this package answers by itself.
// https://spec.matrix.org/v1.19/client-server-api/#common-error-codes
const (
	codeUnknown      = "M_UNKNOWN"
	codeUnrecognized = "M_UNRECOGNIZED"
	codeNotJSON      = "M_NOT_JSON"
	codeBadJSON      = "M_BAD_JSON"
	codeTooLarge     = "M_TOO_LARGE"
	codeLimited      = "M_LIMIT_EXCEEDED"
)

// statusClientGone marks requests whose client hung up before the answer. It
// is nginx's convention; nobody is left to read it, but logs and metrics do.
const statusClientGone = 499

// Error is an answer in the shape of a Matrix standard error response. Handlers
// return it, or a domain error that [Options.Classify] turns into one. All of
// its text goes to the client.
type Error struct {
	// Status is the HTTP status code.
	Status int
	// Code is the errcode member, such as M_FORBIDDEN.
	Code string
	// Msg is the error member: what happened and what to do, for a human. It also
	// stands in the log, so it must not hold what the client sent.
	Msg string
	// RetryAfter, if positive, is when to come back. It is sent as the header
	// Retry-After in whole seconds, rounded up, and with M_LIMIT_EXCEEDED also
	// as the member retry_after_ms.
	RetryAfter time.Duration
	// Extra holds further members of the answer, such as mxid. It cannot
	// replace the members named above.
	Extra map[string]any
}

// Error returns the error code and message.
func (e *Error) Error() string { return e.Code + ": " + e.Msg }

// WriteError answers with e. It returns an error only if e.Extra cannot be
// encoded, in which case nothing has been written, or if the client cannot be
// written to.
func WriteError(w http.ResponseWriter, e *Error) error {
	body := make(map[string]any, len(e.Extra)+3)
	maps.Copy(body, e.Extra)
	body["errcode"] = e.Code
	body["error"] = e.Msg
	if e.RetryAfter > 0 {
		SetRetryAfter(w.Header(), e.RetryAfter)
		if e.Code == codeLimited {
			body["retry_after_ms"] = ceil(e.RetryAfter, time.Millisecond)
		}
	}
	return WriteJSON(w, e.Status, body)
}

// SetRetryAfter sets the header Retry-After to d in whole seconds, rounded up, for
// answers that are no Error.
func SetRetryAfter(h http.Header, d time.Duration) {
	h.Set("Retry-After", strconv.FormatInt(ceil(d, time.Second), 10))
}

// ceil returns how many units d is, rounded up.
func ceil(d, unit time.Duration) int64 {
	n := int64(d / unit)
	if d%unit > 0 {
		n++
	}
	return n
}
