package httpapi

import (
	"context"
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
	return answerValid(w, r, func(ctx context.Context, key string) (bool, error) {
		return a.Keys.Valid(ctx, key), nil
	})
}

// ephemeralKeyIsValid handles GET /_matrix/identity/v2/pubkey/ephemeral/isvalid.
func (a *api) ephemeralKeyIsValid(w http.ResponseWriter, r *http.Request) error {
	return answerValid(w, r, a.Invites.KeyValid)
}

// answerValid answers whether the key in the query is valid.
func answerValid(w http.ResponseWriter, r *http.Request, valid func(context.Context, string) (bool, error)) error {
	query := r.URL.Query()
	if err := require(param{"public_key", query.Has("public_key")}); err != nil {
		return err
	}
	v, err := valid(r.Context(), query.Get("public_key"))
	if err != nil {
		return err
	}
	return mxhttp.WriteJSON(w, http.StatusOK, validResponse{v})
}
