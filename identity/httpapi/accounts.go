package httpapi

import (
	"log/slog"
	"net/http"

	"github.com/matrix-herald/herald/internal/mxhttp"
	"github.com/matrix-herald/herald/internal/ratelimit"
)

// registerRequest is what a homeserver's openid/request_token answered, of
// which only these two members matter. Some callers send no others.
type registerRequest struct {
	AccessToken      *string `json:"access_token"`
	MatrixServerName *string `json:"matrix_server_name"`
}

// registerResponse has the token twice: it is called token by the specification
// and access_token by clients from before.
type registerResponse struct {
	Token       string `json:"token"`
	AccessToken string `json:"access_token"`
}

// register handles POST /_matrix/identity/v2/account/register.
func (a *api) register(w http.ResponseWriter, r *http.Request) error {
	var req registerRequest
	if err := mxhttp.ReadJSON(w, r, maxBody, &req); err != nil {
		return err
	}
	err := require(
		param{"access_token", req.AccessToken != nil},
		param{"matrix_server_name", req.MatrixServerName != nil},
	)
	if err != nil {
		return err
	}
	noteHomeserver(r, *req.MatrixServerName)
	if !a.allowed(*req.MatrixServerName) {
		return errNotAllowed
	}
	taken, err := a.Limiter.Take(r.Context(),
		a.perIP(r.Context(), registerIP, a.Limits.RegisterIP),
		ratelimit.Rate(registerHomeserver, a.Limits.RegisterHomeserver, ratelimit.Site(*req.MatrixServerName)))
	if err != nil {
		return err
	}
	token, err := a.Accounts.Register(r.Context(), *req.MatrixServerName, *req.AccessToken)
	if err != nil {
		// Only whom it vouches for counts against a homeserver: strangers could keep
		// its users away else.
		taken.Return(r.Context(), registerHomeserver)
		mxhttp.AddLogAttrs(r.Context(), slog.Any("err", err))
		return err
	}
	return mxhttp.WriteJSON(w, http.StatusOK, registerResponse{Token: token, AccessToken: token})
}

// logout handles POST /_matrix/identity/v2/account/logout, which needs no body
// and works for those who did not accept the terms, too.
func (a *api) logout(w http.ResponseWriter, r *http.Request) error {
	if err := a.Accounts.Logout(r.Context(), bearer(r)); err != nil {
		return err
	}
	return mxhttp.WriteJSON(w, http.StatusOK, empty{})
}

type accountResponse struct {
	UserID string `json:"user_id"`
}

// whoami handles GET /_matrix/identity/v2/account.
func (a *api) whoami(w http.ResponseWriter, _ *http.Request, by caller) error {
	return mxhttp.WriteJSON(w, http.StatusOK, accountResponse{by.UserID})
}
