package httpapi

import (
	"bytes"
	"context"
	"io"
	"net/http"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/internal/mxhttp"
	"github.com/matrix-herald/herald/threepid/validation"
)

// SignedRequest is a request that a homeserver is said to have signed
// (Server-Server API, "Request Authentication").
type SignedRequest struct {
	Method        string
	URI           string   // path and query as they were sent
	Authorization []string // the headers of this name
	Content       []byte   // the body
}

// Homeservers knows the signatures of homeservers.
type Homeservers interface {
	// Signer returns the name of the homeserver that signed r. It returns
	// identity.ErrWrongDestination, identity.ErrNotSigned, and identity.ErrUnreachable
	// or identity.ErrBusy while that cannot be found out.
	Signer(ctx context.Context, r SignedRequest) (origin string, err error)
}

type unbindRequest struct {
	MXID         *string `json:"mxid"`
	SID          string  `json:"sid"`
	ClientSecret string  `json:"client_secret"`
	Threepid     struct {
		Medium  *string `json:"medium"`
		Address *string `json:"address"`
	} `json:"threepid"`
}

// unbind handles POST /_matrix/identity/v2/3pid/unbind. The proof is a session or
// a homeserver's signature and not an access token, so it works for those who
// lost their account and did not accept the terms (MSC2140). A refusal is a 403:
// Synapse takes 400, 404 and 501 to mean that nothing can be unbound here at all.
func (a *api) unbind(w http.ResponseWriter, r *http.Request) error {
	// The signature is about the very bytes. What is too long is noticed by
	// ReadJSON, because there is one byte too many.
	content, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		return invalidParam("The request body could not be read to its end")
	}
	r.Body = io.NopCloser(bytes.NewReader(content))
	var req unbindRequest
	if err := mxhttp.ReadJSON(w, r, maxBody, &req); err != nil {
		return err
	}
	err = require(
		param{"mxid", req.MXID != nil},
		param{"threepid.medium", req.Threepid.Medium != nil},
		param{"threepid.address", req.Threepid.Address != nil},
	)
	if err != nil {
		return err
	}
	if req.SID != "" && req.ClientSecret != "" {
		err = a.unbindBySession(r.Context(), req)
	} else {
		err = a.unbindByHomeserver(r, content, req)
	}
	if err != nil {
		return err
	}
	return mxhttp.WriteJSON(w, http.StatusOK, empty{})
}

func (a *api) unbindBySession(ctx context.Context, req unbindRequest) error {
	if validation.CheckSID(req.SID) != nil || validation.CheckClientSecret(req.ClientSecret) != nil {
		return identity.ErrForbidden
	}
	return a.Directory.UnbindBySession(ctx, identity.UnbindRequest{
		UserID: *req.MXID, Medium: *req.Threepid.Medium, Address: *req.Threepid.Address,
		SID: req.SID, ClientSecret: req.ClientSecret,
	})
}

func (a *api) unbindByHomeserver(r *http.Request, content []byte, req unbindRequest) error {
	origin, err := a.Homeservers.Signer(r.Context(), SignedRequest{
		Method: r.Method, URI: r.RequestURI, Authorization: r.Header.Values("Authorization"), Content: content,
	})
	if err != nil {
		return err
	}
	noteHomeserver(r, origin)
	return a.Directory.UnbindByHomeserver(r.Context(), origin, *req.MXID, *req.Threepid.Medium, *req.Threepid.Address)
}
