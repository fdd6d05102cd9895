package homeserver

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/internal/outbound"
)

// maxErrcodeBytes is far more than any Matrix errcode has.
const maxErrcodeBytes = 64

// OnBind tells server that an address of one of its users was bound
// (Server-Server API, POST /_matrix/federation/v1/3pid/onbind). The
// specification says PUT; every homeserver takes POST, and not all take PUT.
// body is the JSON of the notification and carries its own signature, so there
// is no authorization.
//
// It returns nil when the answer has status 200; an [*identity.RefusedError] for a
// status 4xx with a Matrix errcode other than M_LIMIT_EXCEEDED and M_UNRECOGNIZED;
// and an [*identity.LaterError] for all else, the end of ctx included. No error quotes
// what was sent, or what the homeserver says beyond its errcode.
func (c *Client) OnBind(ctx context.Context, server ServerName, body []byte) error {
	r, err := c.exchange(ctx, server, request{
		purpose: forOnBind,
		method:  http.MethodPost,
		uri:     "/_matrix/federation/v1/3pid/onbind",
		body:    body,
		timeout: c.onBindTimeout,
	})
	if err != nil {
		return &identity.LaterError{Err: err}
	}
	if r.status == http.StatusOK {
		return nil
	}
	if code := r.errcode(); 400 <= r.status && r.status <= 499 && code != "" &&
		code != "M_LIMIT_EXCEEDED" && code != "M_UNRECOGNIZED" {
		return &identity.RefusedError{Reason: code}
	}
	return &identity.LaterError{
		After: outbound.RetryAfter(r.header.Get("Retry-After"), c.now()), Err: fmt.Errorf("homeserver answered %d", r.status),
	}
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
