package httpapi

import (
	"net/http"

	"github.com/matrix-herald/herald/internal/mxhttp"
)

type publicKeyResponse struct {
	PublicKey string `json:"public_key"`
}

// publicKey handles GET /_matrix/identity/v2/pubkey/{keyId}.
func (a *api) publicKey(w http.ResponseWriter, r *http.Request) error {
	key, err := a.Keys.Public(r.Context(), r.PathValue("keyId"))
	if err != nil {
		return err
	}
	return mxhttp.WriteJSON(w, http.StatusOK, publicKeyResponse{key})
}

type validResponse struct {
	Valid bool `json:"valid"`
}

// keyIsValid handles GET /_matrix/identity/v2/pubkey/isvalid.
func (a *api) keyIsValid(w http.ResponseWriter, r *http.Request) error {
	query := r.URL.Query()
	if err := require(param{"public_key", query.Has("public_key")}); err != nil {
		return err
	}
	valid := a.Keys.Valid(r.Context(), query.Get("public_key"))
	return mxhttp.WriteJSON(w, http.StatusOK, validResponse{valid})
}
