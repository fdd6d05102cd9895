package httpapi

import (
	"cmp"
	"log/slog"
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
func (a *api) hashDetails(w http.ResponseWriter, r *http.Request, _ caller) error {
	d, err := a.Directory.HashDetails(r.Context())
	if err != nil {
		return err
	}
	return mxhttp.WriteJSON(w, http.StatusOK, hashDetailsResponse{Pepper: d.Pepper, Algorithms: d.Algorithms})
}

type lookupRequest struct {
	algorithm, pepper *string
	addresses         stringList
}

// readLookup reads the body of a lookup value by value: it may be a hundred times
// as long as other requests, and reading it is most of what a lookup costs beside
// its query.
func (a *api) readLookup(w http.ResponseWriter, r *http.Request) (req lookupRequest, err error) {
	var wrong error // of JSON that has been read to its end
	err = a.decoders.ReadBody(w, r, maxLookupBody, func(dec mxhttp.Decoder) error {
		text := func(name string, to **string) error {
			if dec.PeekKind() == 'n' {
				*to = nil
				return dec.SkipValue()
			}
			s, ok, err := dec.Text()
			if err == nil && !ok {
				wrong = &mxhttp.Error{Status: http.StatusBadRequest, Code: "M_BAD_JSON", Msg: name + ": expected a string"}
			}
			*to = &s
			return err
		}
		isObject, err := dec.Members(func(name []byte) error {
			switch string(name) {
			case `"algorithm"`:
				return text("algorithm", &req.algorithm)
			case `"pepper"`:
				return text("pepper", &req.pepper)
			case `"addresses"`:
				return req.addresses.read(dec)
			default:
				return dec.SkipValue()
			}
		})
		if !isObject {
			wrong = mxhttp.ErrNotObject()
		}
		return err
	})
	return req, cmp.Or(err, wrong)
}

// stringList is a list of strings, or a note that the member was something else.
type stringList struct {
	items          []string
	present, wrong bool
}

// read reads the next value. What is no list of strings is a fault of the
// parameter and not of the JSON: /lookup has another code for it.
func (l *stringList) read(dec mxhttp.Decoder) error {
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
		item, ok, err := dec.Text()
		if err != nil {
			return err
		}
		if !ok {
			l.wrong = true
			continue
		}
		l.items = append(l.items, item)
	}
	_, err := dec.ReadToken()
	return err
}

// lookup handles POST /_matrix/identity/v2/lookup.
func (a *api) lookup(w http.ResponseWriter, r *http.Request, by caller) error {
	req, err := a.readLookup(w, r)
	if err != nil {
		return err
	}
	err = require(
		param{"algorithm", req.algorithm != nil},
		param{"pepper", req.pepper != nil},
		param{"addresses", req.addresses.present},
	)
	if err != nil {
		return err
	}
	if req.addresses.wrong {
		return invalidParam("addresses: expected a list of strings")
	}
	taken, err := a.Limiter.Take(r.Context(), a.lookupAsks(r.Context(), by, req.addresses.items)...)
	if err != nil {
		return err
	}
	users, err := a.Directory.Lookup(r.Context(), identity.LookupRequest{
		Algorithm: *req.algorithm, Pepper: *req.pepper, Addresses: req.addresses.items,
	})
	if err != nil {
		// Nothing was learnt. A client whose pepper is out of date asks again for all.
		taken.Return(r.Context(), lookedUpByAccount, lookedUpByHomeserver, lookedUpByIP)
		return err
	}
	noteLookup(r, len(req.addresses.items), len(users))
	body, err := appendMappings(make([]byte, 0, usualMapping*(1+len(users))), users)
	if err != nil {
		return err
	}
	return mxhttp.WriteBody(w, http.StatusOK, body)
}

// noteLookup tells the access log how many addresses were looked up, and how many
// of them belong to somebody; never which.
func noteLookup(r *http.Request, addresses, found int) {
	mxhttp.AddLogAttrs(r.Context(), slog.Int("addresses", addresses), slog.Int("found", found))
}

// usualMapping is the length of a hash and its user in an answer, for all but
// long user IDs.
const usualMapping = 96

// appendMappings appends the answer to a lookup.
func appendMappings(to []byte, users map[string]string) (_ []byte, err error) {
	to = append(to, `{"mappings":{`...)
	first := true
	for address, user := range users {
		if !first {
			to = append(to, ',')
		}
		first = false
		if to, err = jsontext.AppendQuote(to, address); err != nil {
			return nil, err
		}
		if to, err = jsontext.AppendQuote(append(to, ':'), user); err != nil {
			return nil, err
		}
	}
	return append(to, "}}"...), nil
}
