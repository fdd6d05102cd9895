package httpapi

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/gin-gonic/gin"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/internal/mxhttp"
	"github.com/matrix-herald/herald/threepid"
)

// V1 says what there is of version 1 of the API, which the specification has
// not had since v1.1 (MSC2713). What is off is answered with 404.
type V1 struct {
	// Keys are the public keys and whether they are valid. Rooms hold their
	// addresses for good, and Dendrite writes them into new ones.
	Keys bool
	// Links are what mails lead to, and the clients that they open: submitToken
	// by GET, and sign-ed25519.
	Links bool
	// Homeserver is what homeservers ask for without an access token: validation,
	// bindings, lookups and invites. Only Sources are answered.
	Homeserver bool
	// Lookup answers lookups, which are in clear. Else they are refused with 403,
	// while all else of Homeserver is as it was (MSC2134).
	Lookup bool
	// Sources say who is behind an address. All that fit count.
	Sources []Source
	// Delegate is where homeservers find the service that look for it as for one of
	// their own: host:port, which /.well-known/matrix/server answers; empty for no
	// answer.
	Delegate string
}

// Source is where homeservers ask from.
type Source struct {
	Network netip.Prefix
	// Servers are the names of those that may be there. They are taken at their
	// word about their own users.
	Servers []string
}

// servers returns the names of the homeservers that may be at an address.
func (v V1) servers(at netip.Addr) []string {
	var servers []string
	for _, s := range v.Sources {
		if s.Network.Contains(at) {
			servers = append(servers, s.Servers...)
		}
	}
	return servers
}

var (
	// errNoSource means that no homeserver is known to be at the client's address.
	errNoSource = errors.New("not the address of a homeserver")
	// errForeignUser means that the homeserver spoke for another one's user.
	errForeignUser = errors.New("not a user of the homeserver at this address")
	// errNoLookup means that lookups by version 1 are switched off.
	errNoLookup = errors.New("lookups by version 1 are off")
)

// legacyRoutes are the routes of version 1. Only the lookups have handlers of their
// own; the others differ in where the parameters are and in who may ask.
func (a *api) legacyRoutes(v1 *gin.RouterGroup) {
	keys := v1.Group("", unlessOff(a.V1.Keys, "v1.keys"))
	keys.GET("", mxhttp.Wrap(a.ping)) // with which clients look whether there is a service
	a.keyRoutes(keys)

	links := v1.Group("", unlessOff(a.V1.Links, "v1.links"))
	a.linkRoutes(links)
	// Token and private key prove enough, wherever the request has them.
	links.POST("/sign-ed25519", mxhttp.Wrap(a.open(gathered(caller{}, a.signInviteJSON))))

	homeserver := v1.Group("", unlessOff(a.V1.Homeserver, "trusted_homeservers"))
	source := func(h sourceHandler) gin.HandlerFunc { return mxhttp.Wrap(a.fromSource(h)) }
	homeserver.POST("/validate/email/requestToken", source(withoutUser(a.requestEmailToken)))
	homeserver.POST("/validate/msisdn/requestToken", source(withoutUser(a.requestSMSToken)))
	for _, medium := range []threepid.Medium{threepid.MediumEmail, threepid.MediumMSISDN} {
		homeserver.POST("/validate/"+string(medium)+"/submitToken", source(withoutUser(a.submitToken(medium))))
	}
	homeserver.GET("/3pid/getValidated3pid", source(withoutUser(a.validated)))
	homeserver.POST("/3pid/bind", source(requireOwnUser("mxid", a.bind)))
	homeserver.POST("/3pid/unbind", source(func(w http.ResponseWriter, r *http.Request, _ []string) error {
		return a.unbind(w, r) // which needs a proof of its own, and the very body
	}))
	homeserver.POST("/store-invite", source(requireOwnUser("sender", a.storeInvite)))
	homeserver.GET("/lookup", source(withoutUser(a.association)))
	homeserver.POST("/bulk_lookup", source(withoutUser(a.bulkLookup)))
}

// unlessOff answers for a group that is off as if it were not there. The log says
// which option it takes to switch it on.
func unlessOff(on bool, option string) gin.HandlerFunc {
	return func(c *gin.Context) {
		if !on {
			mxhttp.AddLogAttrs(c.Request.Context(), slog.String("err", option+" is off"))
			_ = c.Error(&mxhttp.Error{Status: http.StatusNotFound, Code: "M_UNRECOGNIZED", Msg: "Unrecognized request: there is no such endpoint"})
			c.Abort()
		}
	}
}

type delegateResponse struct {
	Server string `json:"m.server"`
}

// delegate handles GET /.well-known/matrix/server. Dendrite looks for an identity
// service as for a homeserver (Server-Server API, "Resolving server names"), and
// without an answer goes to port 8448.
func (a *api) delegate(w http.ResponseWriter, _ *http.Request) error {
	return mxhttp.WriteJSON(w, http.StatusOK, delegateResponse{a.V1.Delegate})
}

// sourceHandler is a handler for requests of homeservers that are known by their
// address.
type sourceHandler func(w http.ResponseWriter, r *http.Request, servers []string) error

// fromSource lets only those requests through to h that come from a source.
func (a *api) fromSource(h sourceHandler) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		servers := slices.DeleteFunc(a.V1.servers(mxhttp.ClientAddr(r.Context())), func(name string) bool { return !a.allowed(name) })
		if len(servers) == 0 {
			mxhttp.AddLogAttrs(r.Context(), slog.String("err", "trusted_homeservers has no homeserver at this address"))
			return errNoSource
		}
		return h(w, r, servers)
	}
}

// ownerAt is whose sessions homeservers at one address begin. None of them is told
// apart from the others there, and no user ID looks like that.
func ownerAt(servers []string) string {
	return strings.Join(slices.Sorted(slices.Values(servers)), " ")
}

// gathered makes a handler of one for version 2, on behalf of a caller that is
// known without an access token.
func gathered(by caller, h accountHandler) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if _, err := readV1Params(w, r); err != nil {
			return err
		}
		return h(w, r, by)
	}
}

// withoutUser makes a handler for homeservers of one that needs no user.
func withoutUser(h accountHandler) sourceHandler {
	return func(w http.ResponseWriter, r *http.Request, servers []string) error {
		by := caller{Owner: ownerAt(servers)}
		if len(servers) == 1 {
			by.Homeserver = servers[0]
			noteHomeserver(r, by.Homeserver)
		}
		return gathered(by, h)(w, r)
	}
}

// requireOwnUser makes a handler for homeservers of one that needs the account of the
// user whom the parameter name has. The homeserver stands for its own users.
func requireOwnUser(name string, h accountHandler) sourceHandler {
	return func(w http.ResponseWriter, r *http.Request, servers []string) error {
		params, err := readV1Params(w, r)
		if err != nil {
			return err
		}
		by := caller{Owner: ownerAt(servers)}
		// What is no string, or not there, h refuses by itself.
		if p := params[name]; len(p) > 0 && p.Kind() == '"' {
			if err := json.Unmarshal(p, &by.UserID); err != nil {
				return err
			}
			var ok bool
			by.Homeserver, ok = identity.UserServer(by.UserID)
			noteHomeserver(r, by.Homeserver)
			if !ok || !slices.Contains(servers, by.Homeserver) {
				mxhttp.AddLogAttrs(r.Context(), slog.String("err", fmt.Sprintf("trusted_homeservers has only %q at this address", servers)))
				return errForeignUser
			}
		}
		return h(w, r, by)
	}
}

// readV1Params finds the parameters of a request of version 1, which may be in a JSON
// object, in a form and in the query; those in the body count before others. It
// makes them the request's body as version 2 has it, so that one handler does
// for both.
func readV1Params(w http.ResponseWriter, r *http.Request) (map[string]jsontext.Value, error) {
	form, err := readForm(w, r)
	if err != nil {
		return nil, err
	}
	params := make(map[string]jsontext.Value)
	if form == nil {
		body := bufio.NewReader(r.Body)
		_, err := body.Peek(1)
		r.Body = io.NopCloser(body)
		if !errors.Is(err, io.EOF) { // else a query alone, as clients post to a signurl
			if err := mxhttp.ReadJSON(w, r, maxBody, &params); err != nil {
				return nil, err
			}
		}
	}
	for _, values := range []url.Values{form, r.URL.Query()} {
		if err := addParams(params, values); err != nil {
			return nil, err
		}
	}
	return params, setBody(r, params)
}

// mayLookUp refuses lookups that are switched off, or one limit too many.
func (a *api) mayLookUp(ctx context.Context, ids []threepid.ID) error {
	if !a.V1.Lookup {
		return errNoLookup
	}
	_, err := a.Limiter.Take(ctx, a.associationAsks(ctx, ids)...)
	return err
}

// association handles GET /_matrix/identity/api/v1/lookup, of which version 2 has
// nothing: it is for one address, in clear, and answers with its signed
// association, or with {}.
func (a *api) association(w http.ResponseWriter, r *http.Request, _ caller) error {
	query := r.URL.Query()
	if err := require(param{"medium", query.Has("medium")}, param{"address", query.Has("address")}); err != nil {
		return err
	}
	medium, address := query.Get("medium"), query.Get("address")
	var ids []threepid.ID
	if id, err := threepid.ParseAddress(medium, address); err == nil {
		ids = append(ids, id)
	}
	if err := a.mayLookUp(r.Context(), ids); err != nil {
		return err
	}
	found, err := a.Directory.Association(r.Context(), medium, address)
	if errors.Is(err, identity.ErrNotFound) {
		noteLookup(r, 1, 0)
		return mxhttp.WriteJSON(w, http.StatusOK, empty{})
	}
	if err != nil {
		return err
	}
	noteLookup(r, 1, 1)
	return mxhttp.WriteJSON(w, http.StatusOK, found.Signed)
}

type bulkLookup struct {
	// Threepids are [medium, address] in the request, and [medium, address, user]
	// in the answer.
	Threepids [][]string `json:"threepids"`
}

// bulkLookup handles POST /_matrix/identity/api/v1/bulk_lookup, which answers with
// those of the addresses that are bound.
func (a *api) bulkLookup(w http.ResponseWriter, r *http.Request, _ caller) error {
	var asked bulkLookup
	if err := mxhttp.ReadJSON(w, r, maxBody, &asked); err != nil {
		return err
	}
	if err := require(param{"threepids", asked.Threepids != nil}); err != nil {
		return err
	}
	var ids []threepid.ID
	pairs := make([]string, len(asked.Threepids))
	for i, t := range asked.Threepids {
		if len(t) != 2 {
			return invalidParam("threepids: expected lists of a medium and an address")
		}
		if id, err := threepid.ParseAddress(t[0], t[1]); err == nil {
			ids, pairs[i] = append(ids, id), pair(id)
		}
	}
	if err := a.mayLookUp(r.Context(), ids); err != nil {
		return err
	}
	users, err := a.Directory.Users(r.Context(), pairs)
	if err != nil {
		return err
	}
	noteLookup(r, len(pairs), len(users))
	found := bulkLookup{Threepids: [][]string{}}
	for i, t := range asked.Threepids {
		if user, ok := users[pairs[i]]; ok {
			found.Threepids = append(found.Threepids, append(t, user))
		}
	}
	return mxhttp.WriteJSON(w, http.StatusOK, found)
}
