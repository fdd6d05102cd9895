package homeserver

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/internal/safehttp"
)

// maxUserInfoBytes is the largest answer that a user ID comes in.
const maxUserInfoBytes = 5 << 10

// UserInfo asks server who the OpenID token belongs to (Server-Server API,
// "OpenID", GET /_matrix/federation/v1/openid/userinfo) and returns a user ID
// that is on that server, byte for byte.
//
// It returns [identity.ErrOpenIDRefused], [identity.ErrOpenIDMismatch], [identity.ErrBusy] or [identity.ErrUnreachable].
// No error holds the token.
func (c *Client) UserInfo(ctx context.Context, server ServerName, token string) (string, error) {
	if token == "" {
		return "", identity.ErrOpenIDRefused
	}
	query := url.Values{"access_token": {token}}
	r, err := c.exchange(ctx, server, request{
		purpose: forUserInfo,
		method:  http.MethodGet,
		uri:     "/_matrix/federation/v1/openid/userinfo?" + query.Encode(),
		timeout: c.timeout,
	})
	if err != nil {
		return "", err
	}
	if len(r.body) > maxUserInfoBytes {
		return "", &unreachableError{cause: safehttp.ErrTooLarge}
	}
	o, err := decodeObject(r.body)
	if err != nil {
		return "", &unreachableError{cause: fmt.Errorf("status %d: %w", r.status, err)}
	}
	if r.status != http.StatusOK {
		code, err := o.text("errcode")
		if err == nil && refusal(r.status, code) {
			return "", identity.ErrOpenIDRefused
		}
		return "", &unreachableError{cause: fmt.Errorf("status %d", r.status)}
	}
	sub, err := o.text("sub")
	if err != nil {
		return "", &unreachableError{cause: err}
	}
	if id, err := ParseUserID(sub); err != nil || id.Server() != server {
		return "", identity.ErrOpenIDMismatch
	}
	return sub, nil
}

// refusal reports whether a Matrix error is about the token. The specification
// has only 401 M_UNKNOWN_TOKEN; homeservers also complain about the parameter,
// or deny federation.
func refusal(status int, code string) bool {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return true
	case http.StatusBadRequest:
		switch code {
		case "M_UNKNOWN_TOKEN", "M_MISSING_TOKEN", "M_MISSING_PARAM", "M_INVALID_PARAM", "M_UNAUTHORIZED", "M_FORBIDDEN":
			return true
		}
	}
	return false
}
