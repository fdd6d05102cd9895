// Package httpapi speaks the Matrix Identity Service API, version 2 and those
// parts of version 1 that are still used: the wire format, who may ask for what,
// and which answer tells a client what to do. It also shows the pages behind
// mailed links. It decides nothing about sessions, bindings or accounts.
package httpapi

import (
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/internal/mxhttp"
	"github.com/matrix-herald/herald/internal/ratelimit"
	"github.com/matrix-herald/herald/threepid"
	"github.com/matrix-herald/herald/threepid/validation"
)

// Limits of a request body in bytes. A lookup holds up to 10,000 addresses, and
// those of the algorithm "none" may have some 500 bytes each.
const (
	maxBody       = 64 << 10
	maxLookupBody = 6 << 20
)

// slowestBody is how many bytes of a body must arrive in a second: clients are
// phones.
const slowestBody = 4 << 10

// LeastBytesInFlight is the least that Options.BytesInFlight may be: a source may
// hold a quarter, which the largest lookup and what is decoded of it fill.
const LeastBytesInFlight = 8 * maxLookupBody

// Options configure the API. Accounts, Terms, Directory, Keys, Sessions, Invites,
// Pages, Homeservers, BaseURL, Limiter and Log are required.
type Options struct {
	Accounts  *identity.Accounts
	Terms     *identity.Terms
	Directory *identity.Directory
	Keys      *identity.Keyring
	Sessions  *validation.Sessions
	Invites   *identity.Invites
	Pages     *Pages
	// Homeservers checks who signed a request to unbind.
	Homeservers Homeservers
	// BaseURL is where homeservers, clients and browsers reach this service, such
	// as https://id.example.org.
	BaseURL string
	// Clients are those to accept an invite with.
	Clients []Client
	// ClientsOf are those of users of some homeservers, by server name, in place of
	// Clients.
	ClientsOf map[string][]Client
	// Allow are the homeservers whose users may use the service; none means all.
	Allow []string
	// ConfirmPage makes a mailed link show a button, which then proves the
	// address, because some mail scanners follow links.
	ConfirmPage bool
	// V1 is what there is of version 1; by default, nothing.
	V1 V1
	// Limits are how often who may ask, and Limiter counts it. Limits by the address
	// of the client do not apply in TrustedSources: there are homeservers, which
	// ask for many people.
	Limits         Limits
	Limiter        *ratelimit.Limiter
	TrustedSources []netip.Prefix
	// BytesInFlight bounds what requests hold in memory at once; 0 means not at all. A
	// source that is not trusted holds at most a quarter.
	BytesInFlight int64

	Log        *slog.Logger
	Registerer prometheus.Registerer
	// TrustedProxies are the addresses and ranges whose X-Forwarded-For is
	// believed.
	TrustedProxies []string
	// Timeout bounds a whole request. Sending a mail takes most of it.
	Timeout time.Duration
}

// Client is a Matrix client in a browser that knows the invite links of Element.
type Client struct {
	Name string // for people
	URL  string // where it begins, such as https://app.element.io
}

type api struct {
	Options

	budgets  map[string]ratelimit.Limit // Limits.LookupAddressesHomeservers by site
	capped   capped
	decoders mxhttp.Decoders
}

// handler answers a request or returns the error to be answered.
type handler = func(w http.ResponseWriter, r *http.Request) error

// New returns the API's handler. It fails if an option is missing, a trusted
// proxy is neither an address nor a range, or the metrics are already
// registered.
func New(opts Options) (http.Handler, error) {
	if opts.Accounts == nil || opts.Terms == nil || opts.Directory == nil || opts.Keys == nil ||
		opts.Sessions == nil || opts.Invites == nil || opts.Pages == nil || opts.Homeservers == nil ||
		opts.BaseURL == "" || opts.Limiter == nil || opts.Log == nil {
		return nil, errors.New("identity API: an option is missing")
	}
	engine, err := mxhttp.NewEngine(mxhttp.Options{
		Logger: opts.Log, Registerer: opts.Registerer, TrustedProxies: opts.TrustedProxies, Timeout: opts.Timeout,
		CORS: true, Classify: classify,
		BytesInFlight: opts.BytesInFlight, TrustedSources: opts.TrustedSources, SlowestBody: slowestBody,
	})
	if err != nil {
		return nil, err
	}
	a := &api{
		Options: opts, budgets: bySite(opts.Limits.LookupAddressesHomeservers), capped: capped{last: make(map[string]time.Time)},
		decoders: mxhttp.Decoders{MaxItems: identity.MaxLookup},
	}
	a.routes(engine.Group("/_matrix/identity"))
	if a.V1.Delegate != "" {
		engine.GET("/.well-known/matrix/server", mxhttp.Wrap(a.delegate))
	}
	return engine, nil
}

// routes is the whole API. What stands in static and open needs no access token, in
// account one, and in signed also that its user accepted the terms of service:
// MSC2140 lists which is which. Static answers need no database, and so cost less
// than a limit would.
func (a *api) routes(g *gin.RouterGroup) {
	static := mxhttp.Wrap
	open := func(h handler) gin.HandlerFunc { return mxhttp.Wrap(a.open(h)) }
	account := func(h accountHandler) gin.HandlerFunc { return mxhttp.Wrap(a.authenticated(bearer, h)) }
	signed := func(h accountHandler) gin.HandlerFunc { return account(a.requireTerms(h)) }

	g.GET("/versions", static(a.versions))
	g.GET("/v2", static(a.ping))
	v2 := g.Group("/v2")

	v2.POST("/account/register", static(a.register)) // which has limits of its own
	v2.POST("/account/logout", open(a.logout))
	v2.GET("/account", signed(a.whoami))
	v2.GET("/terms", static(a.policies))
	v2.POST("/terms", account(a.acceptTerms))

	a.keyRoutes(v2)
	a.linkRoutes(v2)

	// Synapse has not stopped sending the token in the query here.
	v2.GET("/hash_details", mxhttp.Wrap(a.authenticated(bearerOrQuery, a.requireTerms(a.hashDetails))))
	v2.POST("/lookup", signed(a.lookup))

	v2.POST("/validate/email/requestToken", signed(formToo(a.requestEmailToken)))
	v2.POST("/validate/msisdn/requestToken", signed(formToo(a.requestSMSToken)))
	for _, medium := range []threepid.Medium{threepid.MediumEmail, threepid.MediumMSISDN} {
		v2.POST("/validate/"+string(medium)+"/submitToken", signed(formToo(a.submitToken(medium))))
	}

	v2.GET("/3pid/getValidated3pid", signed(a.validated))
	v2.POST("/3pid/bind", signed(formToo(a.bind)))
	v2.POST("/3pid/unbind", open(a.unbind))

	v2.POST("/store-invite", signed(a.storeInvite))
	v2.POST("/sign-ed25519", open(a.signInvite)) // which asks for a token where it needs one

	// What the specification does not have.
	own := g.Group("/herald/v1")
	own.GET("/invite", mxhttp.Wrap(a.page(threepid.MediumEmail, openIP, a.Limits.OpenIP, a.showInvite)))
	own.HEAD("/invite", static(a.inspectLink))
	own.DELETE("/invites/:token", account(a.cancelInvite))

	a.legacyRoutes(g.Group("/api/v1"))
}

// keyRoutes are those about public keys, in both versions.
func (a *api) keyRoutes(g *gin.RouterGroup) {
	g.GET("/pubkey/:keyId", mxhttp.Wrap(a.open(a.publicKey)))
	g.GET("/pubkey/isvalid", mxhttp.Wrap(a.open(a.keyIsValid)))
	g.GET("/pubkey/ephemeral/isvalid", mxhttp.Wrap(a.open(a.ephemeralKeyIsValid)))
}

// linkRoutes are those of the pages that prove an address, in both versions.
func (a *api) linkRoutes(g *gin.RouterGroup) {
	for _, medium := range []threepid.Medium{threepid.MediumEmail, threepid.MediumMSISDN} {
		validate := g.Group("/validate/" + string(medium))
		proving := func(h handler) gin.HandlerFunc {
			return mxhttp.Wrap(a.page(medium, submitTokenIP, a.Limits.SubmitTokenIP, h))
		}
		validate.HEAD("/submitToken", mxhttp.Wrap(a.inspectLink))
		if a.ConfirmPage {
			validate.GET("/submitToken", mxhttp.Wrap(a.page(medium, openIP, a.Limits.OpenIP, a.followLink(medium))))
			validate.POST("/"+confirmAction, proving(a.confirmLink(medium)))
		} else {
			validate.GET("/submitToken", proving(a.followLink(medium)))
		}
	}
}

// empty is the answer {}.
type empty struct{}

type versionsResponse struct {
	Versions []string `json:"versions"`
}

// versions handles GET /_matrix/identity/versions. The versions are those of the
// specification whose version 2 of this API is implemented here.
func (a *api) versions(w http.ResponseWriter, _ *http.Request) error {
	return mxhttp.WriteJSON(w, http.StatusOK, versionsResponse{[]string{
		"v1.1", "v1.2", "v1.3", "v1.4", "v1.5", "v1.6", "v1.7", "v1.8", "v1.9", "v1.10",
		"v1.11", "v1.12", "v1.13", "v1.14", "v1.15", "v1.16", "v1.17", "v1.18", "v1.19",
	}})
}

// ping handles GET /_matrix/identity/v2.
func (a *api) ping(w http.ResponseWriter, _ *http.Request) error {
	return mxhttp.WriteJSON(w, http.StatusOK, empty{})
}
