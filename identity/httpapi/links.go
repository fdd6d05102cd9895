package httpapi

import (
	"errors"
	"net/http"
	"net/url"

	"github.com/matrix-herald/herald/internal/mxhttp"
	"github.com/matrix-herald/herald/threepid"
	"github.com/matrix-herald/herald/threepid/validation"
)

// confirmAction is where the button on the confirm page leads to, relative to
// submitToken. submitToken itself takes JSON and an access token.
const confirmAction = "confirm"

// link is what the link in a message holds.
type link struct {
	sid, clientSecret, token string
}

// pages are those of the brand that a link names.
func (a *api) pages(r *http.Request) *Pages { return a.Pages.of(r.URL.Query().Get("brand")) }

// parseLink takes the parameters out of a query or a form.
func parseLink(values url.Values) (link, error) {
	l := link{values.Get("sid"), values.Get("client_secret"), values.Get("token")}
	err := require(
		param{"sid", values.Has("sid")},
		param{"client_secret", values.Has("client_secret")},
		param{"token", values.Has("token")},
	)
	return l, errors.Join(err, validation.CheckSID(l.sid), validation.CheckClientSecret(l.clientSecret))
}

// followLink handles GET /_matrix/identity/v2/validate/{medium}/submitToken,
// which people open in a browser: no access token, and pages for answers.
func (a *api) followLink(medium threepid.Medium) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		l, err := parseLink(r.URL.Query())
		switch {
		case err != nil:
			return a.pages(r).failure(w, http.StatusBadRequest, medium, reasonBroken)
		case a.ConfirmPage:
			return a.pages(r).confirm(w, medium, l)
		default:
			return a.prove(w, r, medium, l, http.StatusFound)
		}
	}
}

// inspectLink handles HEAD of a link, as link checkers send it. It tells that
// there is a page and changes nothing.
func (a *api) inspectLink(w http.ResponseWriter, _ *http.Request) error {
	pageHeader(w.Header(), "")
	w.WriteHeader(http.StatusOK)
	return nil
}

// confirmLink handles the button of the confirm page.
func (a *api) confirmLink(medium threepid.Medium) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		if err := r.ParseForm(); err != nil {
			if refused, ok := errors.AsType[*mxhttp.Error](err); ok {
				return refused
			}
			return a.pages(r).failure(w, http.StatusBadRequest, medium, reasonBroken)
		}
		l, err := parseLink(r.PostForm)
		if err != nil {
			return a.pages(r).failure(w, http.StatusBadRequest, medium, reasonBroken)
		}
		return a.prove(w, r, medium, l, http.StatusSeeOther)
	}
}

// prove submits the token of a link and shows what came of it, or redirects to
// the next_link that was stored with the session. A link never says itself where
// it leads: that would make this service vouch for anybody's site.
func (a *api) prove(w http.ResponseWriter, r *http.Request, medium threepid.Medium, l link, redirect int) error {
	s, err := a.Sessions.Submit(r.Context(), medium, l.sid, l.clientSecret, l.token)
	switch {
	case errors.Is(err, threepid.ErrSessionExpired):
		return a.pages(r).failure(w, http.StatusBadRequest, medium, reasonExpired)
	case errors.Is(err, validation.ErrTokenIncorrect) || errors.Is(err, threepid.ErrNoSession):
		return a.pages(r).failure(w, http.StatusBadRequest, medium, reasonVoid)
	case err != nil && r.Context().Err() != nil:
		return err // nobody is there any more to look at a page
	case err != nil:
		// The person gets a page, so the error goes no further than here.
		a.Log.ErrorContext(r.Context(), "link not followed", "err", err)
		return a.pages(r).failure(w, http.StatusInternalServerError, medium, reasonUnavailable)
	}
	a.submitted(r.Context(), s)
	if s.NextLink == "" {
		return a.pages(r).success(w, medium)
	}
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer") // this request's URL holds the token
	h.Set("Location", s.NextLink)
	w.WriteHeader(redirect)
	return nil
}
