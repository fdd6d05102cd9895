package httpapi

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/internal/mxhttp"
	"github.com/matrix-herald/herald/internal/ratelimit"
	"github.com/matrix-herald/herald/threepid"
)

// errTermsNotSigned means the account has to accept terms first.
var errTermsNotSigned = errors.New("terms of service not accepted")

// errNotAllowed means the service is for users of other homeservers.
var errNotAllowed = errors.New("not a homeserver that may use the service")

// caller is on whose behalf a request is made.
type caller struct {
	// UserID is the user whose access token it has. It is empty where a homeserver
	// asks by version 1 and names no user.
	UserID string
	// Homeserver is the server name of the user, or of the homeserver. It is empty
	// if it may be one of several.
	Homeserver string
	// Owner is whose the sessions are that this caller begins: the user's, or by
	// version 1 those of the homeservers at its address.
	Owner string
}

// accountHandler is a handler for requests with a valid access token.
type accountHandler func(w http.ResponseWriter, r *http.Request, by caller) error

// authenticated looks up the account of the access token before h sees the request,
// so that a caller without one learns nothing about the parameters.
func (a *api) authenticated(token func(*http.Request) string, h accountHandler) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		account, err := a.Accounts.Account(r.Context(), token(r))
		if errors.Is(err, identity.ErrUnauthorized) { // or anybody could ask the database without end
			err = cmp.Or(a.mayAsk(r.Context()), err)
		}
		if err != nil {
			return err
		}
		server, _ := identity.UserServer(account.UserID)
		noteHomeserver(r, server)
		// A homeserver may have been allowed when the token was made.
		if !a.allowed(server) {
			return errNotAllowed
		}
		return h(w, r, caller{UserID: account.UserID, Homeserver: server, Owner: account.UserID})
	}
}

// noteHomeserver tells the access log whose user or homeserver asks, or claims to.
// What does not look like a server name may be anything and stays out of it.
func noteHomeserver(r *http.Request, name string) {
	if len(name) <= 255 && strings.Trim(name, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:[]") == "" {
		mxhttp.AddLogAttrs(r.Context(), slog.String("homeserver", name))
	}
}

// mayAsk returns an error if too much was asked without an access token from the
// address of the client.
func (a *api) mayAsk(ctx context.Context) error {
	_, err := a.Limiter.Take(ctx, a.perIP(ctx, openIP, a.Limits.OpenIP))
	return err
}

// open makes a handler of one that needs no access token.
func (a *api) open(h handler) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if err := a.mayAsk(r.Context()); err != nil {
			return err
		}
		return h(w, r)
	}
}

// page limits by the address of the client what is answered with pages.
func (a *api) page(medium threepid.Medium, name string, limit ratelimit.Limit, h handler) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		_, err := a.Limiter.Take(r.Context(), a.perIP(r.Context(), name, limit))
		if refused, ok := errors.AsType[*ratelimit.Refused](err); ok {
			return a.pages(r).limited(w, medium, refused.RetryAfter)
		}
		if err != nil {
			return err
		}
		return h(w, r)
	}
}

// allowed reports whether the users of a homeserver may use the service.
func (a *api) allowed(homeserver string) bool {
	return len(a.Allow) == 0 || slices.Contains(a.Allow, homeserver)
}

// requireTerms lets only those through to h who accepted the terms of service.
func (a *api) requireTerms(h accountHandler) accountHandler {
	return func(w http.ResponseWriter, r *http.Request, by caller) error {
		accepted, err := a.Terms.Accepted(r.Context(), by.UserID)
		if err != nil {
			return err
		}
		if !accepted {
			return errTermsNotSigned
		}
		return h(w, r, by)
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
