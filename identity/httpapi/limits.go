package httpapi

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/internal/mxhttp"
	"github.com/matrix-herald/herald/internal/ratelimit"
	"github.com/matrix-herald/herald/threepid"
	"github.com/matrix-herald/herald/threepid/validation"
)

// The names of the limits, in metrics and in the configuration.
const (
	requestTokenAddress   = "request_token_address"
	requestTokenNumber    = "request_token_number"
	requestTokenAccount   = "request_token_account"
	requestTokenIP        = "request_token_ip"
	smsCountry            = "sms_country"
	smsTotal              = "sms_total"
	submitTokenSession    = "submit_token_session"
	submitTokenAccount    = "submit_token_account"
	submitTokenIP         = "submit_token_ip"
	registerHomeserver    = "register_homeserver"
	registerIP            = "register_ip"
	bindAccount           = "bind_account"
	lookupAccount         = "lookup_account"
	lookupIP              = "lookup_ip"
	lookedUpByAccount     = "lookup_addresses_account"
	lookedUpByHomeserver  = "lookup_addresses_homeserver"
	storeInviteSender     = "store_invite_sender"
	storeInviteHomeserver = "store_invite_homeserver"
	storeInviteTarget     = "store_invite_target"

	// What follows from other limits, or from nothing that an operator could know
	// better, is no option.
	openIP        = "open_ip"
	lookedUpByIP  = "lookup_addresses_ip"
	storeInviteIP = "store_invite_ip"
	smsShare      = "sms_share"
)

// LimitNames returns the names of all limits.
func LimitNames() []string {
	return []string{
		requestTokenAddress, requestTokenNumber, requestTokenAccount, requestTokenIP, smsCountry, smsTotal,
		submitTokenSession, submitTokenAccount, submitTokenIP, registerHomeserver, registerIP, bindAccount,
		lookupAccount, lookupIP, lookedUpByAccount, lookedUpByHomeserver,
		storeInviteSender, storeInviteHomeserver, storeInviteTarget,
		openIP, lookedUpByIP, storeInviteIP, smsShare,
	}
}

// Limits are the rate limits of the API. The zero Limits let everything through. A
// homeserver stands for all names below a registered domain ([ratelimit.Site]).
type Limits struct {
	// OpenIP limits what needs no access token, and requests with one that is not
	// valid.
	OpenIP ratelimit.Limit `yaml:"-"`

	// RequestTokenAddress is how many messages an address or number gets.
	RequestTokenAddress ratelimit.Limit `yaml:"mail_per_address"`
	RequestTokenNumber  ratelimit.Limit `yaml:"test_request_token_number" conf:"hidden"`
	// RequestTokenAccount is how many messages an account may ask for, as may a
	// client.
	RequestTokenAccount ratelimit.Limit `yaml:"messages_per_client"`
	RequestTokenIP      ratelimit.Limit `yaml:"test_request_token_ip" conf:"hidden"`
	// SMSCountries caps the text messages to a country, and to each other one under
	// "*". Default {"*": 60/1h}.
	SMSCountries map[string]ratelimit.Limit `yaml:"sms_per_country"`
	SMSCountry   ratelimit.Limit            `yaml:"test_sms_country" conf:"hidden"`
	// SMSTotal caps all text messages together.
	SMSTotal ratelimit.Limit `yaml:"sms_total"`
	// LookupAddressesAccount is how many different addresses an account may look up
	// or invite.
	LookupAddressesAccount ratelimit.Limit `yaml:"lookups_per_account"`
	// LookupAddressesHomeservers is the same for all users of a homeserver, and of
	// each other one, and for a client, under "*". Default {"*": 100000/1d}.
	LookupAddressesHomeservers map[string]ratelimit.Limit `yaml:"lookups_per_homeserver"`
	LookupAddressesHomeserver  ratelimit.Limit            `yaml:"test_lookup_addresses_homeserver" conf:"hidden"`
	// StoreInviteSender is how many invites an account may send.
	StoreInviteSender ratelimit.Limit `yaml:"invites_per_account"`

	// What follows are no options: nobody knows a better value. Tests do.

	// SubmitToken… limit tries of a token.
	SubmitTokenSession ratelimit.Limit `yaml:"test_submit_token_session" conf:"hidden"`
	SubmitTokenAccount ratelimit.Limit `yaml:"test_submit_token_account" conf:"hidden"`
	SubmitTokenIP      ratelimit.Limit `yaml:"test_submit_token_ip" conf:"hidden"`
	// RegisterHomeserver limits the users whom one homeserver vouches for, and
	// RegisterIP all tries.
	RegisterHomeserver ratelimit.Limit `yaml:"test_register_homeserver" conf:"hidden"`
	RegisterIP         ratelimit.Limit `yaml:"test_register_ip" conf:"hidden"`
	BindAccount        ratelimit.Limit `yaml:"test_bind_account" conf:"hidden"`
	// LookupAccount and LookupIP limit lookups, however many addresses they have.
	LookupAccount ratelimit.Limit `yaml:"test_lookup_account" conf:"hidden"`
	LookupIP      ratelimit.Limit `yaml:"test_lookup_ip" conf:"hidden"`
	// StoreInvite… limit invites of addresses by homeserver of the sender, as by the
	// address of the client, and by invited address.
	StoreInviteHomeserver ratelimit.Limit `yaml:"test_store_invite_homeserver" conf:"hidden"`
	StoreInviteTarget     ratelimit.Limit `yaml:"test_store_invite_target" conf:"hidden"`
}

// DefaultLimits returns the defaults, for which docs/limits-and-brands.md has the
// reasons.
func DefaultLimits() Limits {
	const day = 24 * time.Hour
	per := func(n int, d time.Duration) ratelimit.Limit { return ratelimit.Limit{Count: n, Per: d} }
	return Limits{
		OpenIP:              per(600, 10*time.Minute),
		RequestTokenAddress: per(5, time.Hour), RequestTokenNumber: per(5, time.Hour),
		RequestTokenAccount: per(20, time.Hour), RequestTokenIP: per(60, time.Hour),
		SMSCountry: per(60, time.Hour), SMSTotal: per(200, time.Hour),
		SubmitTokenSession: per(20, 10*time.Minute), SubmitTokenAccount: per(60, time.Hour), SubmitTokenIP: per(240, time.Hour),
		RegisterHomeserver: per(1000, 10*time.Minute), RegisterIP: per(60, 10*time.Minute),
		BindAccount:   per(30, time.Hour),
		LookupAccount: per(600, time.Hour), LookupIP: per(3000, time.Hour),
		LookupAddressesAccount: per(10_000, day), LookupAddressesHomeserver: per(100_000, day),
		StoreInviteSender: per(30, time.Hour), StoreInviteHomeserver: per(1000, time.Hour), StoreInviteTarget: per(10, day),
	}
}

// client returns the address of the client, or the /64 of it, and false for those
// that stand for many people: those of Options.TrustedSources, and of the
// homeservers that version 1 knows by theirs.
func (a *api) client(ctx context.Context) (key string, limited bool) {
	ip := mxhttp.ClientAddr(ctx)
	if a.V1.Homeserver && len(a.V1.servers(ip)) > 0 {
		return "", false
	}
	return a.network(ctx)
}

// network is client without the homeservers of version 1. A proxy that hides its
// clients stands for many people too, but for anybody.
func (a *api) network(ctx context.Context) (key string, limited bool) {
	trusted := a.TrustedSources
	if mxhttp.Proxied(ctx) {
		trusted = nil
	}
	return ratelimit.Source(mxhttp.ClientAddr(ctx), trusted)
}

// perIP limits by the address of the client.
func (a *api) perIP(ctx context.Context, name string, limit ratelimit.Limit) ratelimit.Ask {
	key, limited := a.client(ctx)
	if !limited {
		return ratelimit.Ask{}
	}
	return ratelimit.Rate(name, limit, key)
}

// perAccount is no limit for requests that no account makes.
func perAccount(name string, limit ratelimit.Limit, by caller) ratelimit.Ask {
	if by.UserID == "" {
		return ratelimit.Ask{}
	}
	return ratelimit.Rate(name, limit, by.UserID)
}

// perAddress has the canonical form of an address as its key.
func perAddress(name string, limit ratelimit.Limit, id threepid.ID) ratelimit.Ask {
	return ratelimit.Rate(name, limit, pair(id))
}

// pair is an address as the lookup algorithm "none" has it.
func pair(id threepid.ID) string { return id.Address + " " + string(id.Medium) }

// lookedUp spends the budgets of an account, of its homeserver and of the client's
// address: whoever runs a homeserver makes as many accounts as they like, and
// whoever has an address as many homeservers.
func (a *api) lookedUp(ctx context.Context, by caller, addresses []string) []ratelimit.Ask {
	asks := []ratelimit.Ask{
		ratelimit.Distinct(lookedUpByAccount, a.Limits.LookupAddressesAccount, by.UserID, addresses),
		a.lookedUpBy(by.Homeserver, addresses),
	}
	if ip, limited := a.client(ctx); limited {
		asks = append(asks, ratelimit.Distinct(lookedUpByIP, a.Limits.LookupAddressesHomeserver, ip, addresses))
	}
	return asks
}

func (a *api) lookedUpBy(homeserver string, addresses []string) ratelimit.Ask {
	site := ratelimit.Site(homeserver)
	limit, own := a.budgets[site]
	if !own {
		limit = a.Limits.LookupAddressesHomeserver
	}
	return ratelimit.Distinct(lookedUpByHomeserver, limit, site, addresses)
}

// bySite returns the limits of some homeservers by what they are counted under.
func bySite(byName map[string]ratelimit.Limit) map[string]ratelimit.Limit {
	limits := make(map[string]ratelimit.Limit)
	for name, limit := range byName {
		limits[ratelimit.Site(name)] = limit
	}
	return limits
}

// lookupAsks are the limits of a lookup of these addresses.
func (a *api) lookupAsks(ctx context.Context, by caller, addresses []string) []ratelimit.Ask {
	return append(a.lookedUp(ctx, by, addresses),
		perAccount(lookupAccount, a.Limits.LookupAccount, by), a.perIP(ctx, lookupIP, a.Limits.LookupIP))
}

// associationAsks are the limits of a lookup by version 1. No token says which
// homeserver asks, so every homeserver that may be at the address pays.
func (a *api) associationAsks(ctx context.Context, ids []threepid.ID) []ratelimit.Ask {
	ip := mxhttp.ClientAddr(ctx)
	var asks []ratelimit.Ask
	if key, limited := a.network(ctx); limited {
		asks = append(asks, ratelimit.Rate(lookupIP, a.Limits.LookupIP, key))
	}
	if len(ids) == 0 {
		return asks // of what is no address nothing can be learnt
	}
	addresses := make([]string, len(ids))
	for i, id := range ids {
		addresses[i] = pair(id)
	}
	for _, server := range a.V1.servers(ip) {
		asks = append(asks, a.lookedUpBy(server, addresses))
	}
	return asks
}

// inviteAsks are the limits of an invite. Its answer may tell whose the address
// is, so it is a lookup of one address as well.
func (a *api) inviteAsks(ctx context.Context, by caller, medium, address string) []ratelimit.Ask {
	asks := []ratelimit.Ask{
		perAccount(storeInviteSender, a.Limits.StoreInviteSender, by),
		ratelimit.Rate(storeInviteHomeserver, a.Limits.StoreInviteHomeserver, ratelimit.Site(by.Homeserver)),
		a.perIP(ctx, storeInviteIP, a.Limits.StoreInviteHomeserver),
	}
	id, err := threepid.ParseAddress(medium, address)
	if err != nil {
		return asks
	}
	asks = append(asks, perAddress(storeInviteTarget, a.Limits.StoreInviteTarget, id))
	return append(asks, a.lookedUp(ctx, by, []string{pair(id)})...)
}

// tokenAsks are the limits of a request for a mail or a text message.
func (a *api) tokenAsks(ctx context.Context, by caller, req validation.Request) []ratelimit.Ask {
	asks := []ratelimit.Ask{
		perAccount(requestTokenAccount, a.Limits.RequestTokenAccount, by),
		a.perIP(ctx, requestTokenIP, a.Limits.RequestTokenIP),
	}
	if req.ID.Medium == threepid.MediumEmail {
		return append(asks, perAddress(requestTokenAddress, a.Limits.RequestTokenAddress, req.ID))
	}
	asks = append(asks,
		perAddress(requestTokenNumber, a.Limits.RequestTokenNumber, req.ID),
		ratelimit.Rate(smsCountry, a.smsTo(req.Region), req.Region),
		ratelimit.Rate(smsTotal, a.Limits.SMSTotal, ""),
	)
	return append(asks, a.shares(by.Owner, req.Region)...)
}

// smsTo is the cap of text messages to a country.
func (a *api) smsTo(region string) ratelimit.Limit {
	if own, there := a.Limits.SMSCountries[region]; there {
		return own
	}
	return a.Limits.SMSCountry
}

// shares limit each homeserver to a quarter of each cap, for messages whose codes
// have not been submitted. A code that is submitted gives its message back, so a
// homeserver whose users submit their codes is not limited.
func (a *api) shares(owner, region string) []ratelimit.Ask {
	server, ok := identity.UserServer(owner)
	if !ok {
		server = owner // of version 1
	}
	site := ratelimit.Site(server)
	share := func(l ratelimit.Limit, key string) ratelimit.Ask {
		if !l.Off() {
			l.Count = max(l.Count/4, 1)
		}
		return ratelimit.Rate(smsShare, l, key)
	}
	return []ratelimit.Ask{share(a.smsTo(region), site+" "+region), share(a.Limits.SMSTotal, site)}
}

// submitted gives back what the message of a session took of its homeserver's
// shares.
func (a *api) submitted(ctx context.Context, s validation.Session) {
	if s.Again || s.ID.Medium != threepid.MediumMSISDN {
		return
	}
	if phone, err := threepid.ParsePhone("", "+"+s.ID.Address); err == nil {
		a.Limiter.Return(ctx, a.shares(s.Owner, phone.Region())...)
	}
}

// capped says once in a while that text messages are no longer sent, which costs
// somebody money or people their codes.
type capped struct {
	mu   sync.Mutex
	last map[string]time.Time // by limit and country
}

// cappedPause lies between two lines of the log about one cap.
const cappedPause = time.Hour

func (c *capped) note(ctx context.Context, log *slog.Logger, r *ratelimit.Refused, homeserver, region string) {
	country := region
	switch r.Limit {
	case smsTotal, smsShare:
		country = ""
	case smsCountry:
	default:
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if last, before := c.last[r.Limit+country]; before && time.Since(last) < cappedPause {
		return
	}
	c.last[r.Limit+country] = time.Now()
	if r.Limit == smsShare {
		log.WarnContext(ctx, "the users of a homeserver have asked for a quarter of all text messages and do not submit their codes",
			"homeserver", homeserver, "country", region)
		return
	}
	log.WarnContext(ctx, "text messages have reached their cap", "limit", r.Limit, "country", country)
}

// limited is the answer to a request that a limit refuses. It names the limit, for
// whoever reads the log.
func limited(r *ratelimit.Refused) *mxhttp.Error {
	return &mxhttp.Error{
		Status: http.StatusTooManyRequests, Code: "M_LIMIT_EXCEEDED", Msg: "Too many requests (limit " + r.Limit + "); try again later", RetryAfter: r.RetryAfter,
	}
}
