package httpapi

import (
	"net/http"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/internal/mxhttp"
)

type hashDetailsResponse struct {
	Pepper     string   `json:"lookup_pepper"`
	Algorithms []string `json:"algorithms"`
}

// hashDetails handles GET /_matrix/identity/v2/hash_details.
func (a *api) hashDetails(w http.ResponseWriter, r *http.Request, _ identity.Account) error {
	d, err := a.Directory.HashDetails(r.Context())
	if err != nil {
		return err
	}
	return mxhttp.WriteJSON(w, http.StatusOK, hashDetailsResponse{Pepper: d.Pepper, Algorithms: d.Algorithms})
}

type lookupRequest struct {
	Algorithm *string    `json:"algorithm"`
	Pepper    *string    `json:"pepper"`
	Addresses stringList `json:"addresses"`
}

// stringList is a list of strings, or a note that the member was something else.
type stringList struct {
	items          []string
	present, wrong bool
}

// UnmarshalJSONFrom reads the next value. What is no list of strings is a fault
// of the parameter and not of the JSON: /lookup has another code for it.
func (l *stringList) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	*l = stringList{}
	switch dec.PeekKind() {
	case 'n':
		return dec.SkipValue()
	case '[':
		l.present = true
	default:
		l.present, l.wrong = true, true
		return dec.SkipValue()
	}
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	for dec.PeekKind() != ']' {
		if dec.PeekKind() != '"' {
			l.wrong = true
			if err := dec.SkipValue(); err != nil {
				return err
			}
			continue
		}
		token, err := dec.ReadToken()
		if err != nil {
			return err
		}
		l.items = append(l.items, token.String())
	}
	_, err := dec.ReadToken()
	return err
}

type lookupResponse struct {
	Mappings map[string]string `json:"mappings"`
}

// lookup handles POST /_matrix/identity/v2/lookup.
func (a *api) lookup(w http.ResponseWriter, r *http.Request, _ identity.Account) error {
	var req lookupRequest
	if err := mxhttp.ReadJSON(w, r, maxLookupBody, &req); err != nil {
		return err
	}
	err := require(
		param{"algorithm", req.Algorithm != nil},
		param{"pepper", req.Pepper != nil},
		param{"addresses", req.Addresses.present},
	)
	if err != nil {
		return err
	}
	if req.Addresses.wrong {
		return invalidParam("addresses: expected a list of strings")
	}
	users, err := a.Directory.Lookup(r.Context(), identity.LookupRequest{
		Algorithm: *req.Algorithm, Pepper: *req.Pepper, Addresses: req.Addresses.items,
	})
	if err != nil {
		return err
	}
	return mxhttp.WriteJSON(w, http.StatusOK, lookupResponse{users})
}
