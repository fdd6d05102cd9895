package httpapi

import (
	"errors"
	"net/http"
	"strings"

	"github.com/matrix-herald/herald/identity"
)

// errTermsNotSigned means the account has to accept terms first.
var errTermsNotSigned = errors.New("terms of service not accepted")

// accountHandler is a handler for requests with a valid access token.
type accountHandler func(w http.ResponseWriter, r *http.Request, account identity.Account) error

// authenticated looks up whose access token the request has before h sees the
// request: who may not ask learns nothing about the parameters.
func (a *api) authenticated(token func(*http.Request) string, h accountHandler) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		account, err := a.Accounts.Account(r.Context(), token(r))
		if err != nil {
			return err
		}
		return h(w, r, account)
	}
}

// agreed lets only those through to h who accepted the terms of service.
func (a *api) agreed(h accountHandler) accountHandler {
	return func(w http.ResponseWriter, r *http.Request, account identity.Account) error {
		accepted, err := a.Terms.Accepted(r.Context(), account.UserID)
		if err != nil {
			return err
		}
		if !accepted {
			return errTermsNotSigned
		}
		return h(w, r, account)
	}
}

// bearer returns the access token in the Authorization header, or "". The name
// of the scheme is case-insensitive (RFC 9110, section 11.1).
func bearer(r *http.Request) string {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.Trim(token, " ")
}

// bearerOrQuery also accepts the access token in the query string, for which
// the specification no longer has a place since v1.20.
func bearerOrQuery(r *http.Request) string {
	if r.Header.Get("Authorization") != "" {
		return bearer(r)
	}
	return r.URL.Query().Get("access_token")
}
