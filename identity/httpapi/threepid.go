package httpapi

import (
	"net/http"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/internal/mxhttp"
	"github.com/matrix-herald/herald/threepid/validation"
)

type validatedResponse struct {
	Medium      string `json:"medium"`
	Address     string `json:"address"`
	ValidatedAt int64  `json:"validated_at"` // milliseconds
}

// validated handles GET /_matrix/identity/v2/3pid/getValidated3pid. Whoever
// began the session may ask.
func (a *api) validated(w http.ResponseWriter, r *http.Request, by caller) error {
	query := r.URL.Query()
	if err := require(param{"sid", query.Has("sid")}, param{"client_secret", query.Has("client_secret")}); err != nil {
		return err
	}
	s, err := a.Sessions.Validated(r.Context(), by.Owner, query.Get("sid"), query.Get("client_secret"))
	if err != nil {
		return err
	}
	return mxhttp.WriteJSON(w, http.StatusOK, validatedResponse{
		Medium: string(s.ID.Medium), Address: s.ID.Address, ValidatedAt: s.ValidatedAt.UnixMilli(),
	})
}

type bindRequest struct {
	SID          *string `json:"sid"`
	ClientSecret *string `json:"client_secret"`
	MXID         *string `json:"mxid"`
}

// bind handles POST /_matrix/identity/v2/3pid/bind.
func (a *api) bind(w http.ResponseWriter, r *http.Request, by caller) error {
	var req bindRequest
	if err := mxhttp.ReadJSON(w, r, maxBody, &req); err != nil {
		return err
	}
	err := require(
		param{"sid", req.SID != nil},
		param{"client_secret", req.ClientSecret != nil},
		param{"mxid", req.MXID != nil},
	)
	if err != nil {
		return err
	}
	if err := validation.CheckSID(*req.SID); err != nil {
		return err
	}
	if err := validation.CheckClientSecret(*req.ClientSecret); err != nil {
		return err
	}
	if _, err := a.Limiter.Take(r.Context(), perAccount(bindAccount, a.Limits.BindAccount, by)); err != nil {
		return err
	}
	association, err := a.Directory.Bind(r.Context(), identity.BindRequest{
		Account: by.UserID, UserID: *req.MXID, Owner: by.Owner, SID: *req.SID, ClientSecret: *req.ClientSecret,
	})
	if err != nil {
		return err
	}
	return mxhttp.WriteJSON(w, http.StatusOK, association.Signed)
}
