package httpapi

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"time"

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
)

// LimitNames returns the names of all limits.
func LimitNames() []string {
	return []string{
		requestTokenAddress, requestTokenNumber, requestTokenAccount, requestTokenIP, smsCountry, smsTotal,
		submitTokenSession, submitTokenAccount, submitTokenIP, registerHomeserver, registerIP, bindAccount,
		lookupAccount, lookupIP, lookedUpByAccount, lookedUpByHomeserver,
		storeInviteSender, storeInviteHomeserver, storeInviteTarget,
	}
}

// Limits are how often who may ask for what. The zero Limits let everything
// through.
type Limits struct {
	// RequestToken… limit requests for a mail or a text message: by email address,
	// telephone number, account, and address of the client.
	RequestTokenAddress ratelimit.Limit `yaml:"request_token_address"`
	RequestTokenNumber  ratelimit.Limit `yaml:"request_token_number"`
	RequestTokenAccount ratelimit.Limit `yaml:"request_token_account"`
	RequestTokenIP      ratelimit.Limit `yaml:"request_token_ip"`
	// SMSCountry caps the text messages to each country, by the number itself,
	// SMSCountries those to some countries instead, and SMSTotal those to all.
	SMSCountry   ratelimit.Limit            `yaml:"sms_country"`
	SMSCountries map[string]ratelimit.Limit `yaml:"sms_countries"`
	SMSTotal     ratelimit.Limit            `yaml:"sms_total"`
	// SubmitToken… limit tries of a token.
	SubmitTokenSession ratelimit.Limit `yaml:"submit_token_session"`
	SubmitTokenAccount ratelimit.Limit `yaml:"submit_token_account"`
	SubmitTokenIP      ratelimit.Limit `yaml:"submit_token_ip"`
	// RegisterHomeserver limits the users whom one homeserver vouches for, and
	// RegisterIP all tries.
	RegisterHomeserver ratelimit.Limit `yaml:"register_homeserver"`
	RegisterIP         ratelimit.Limit `yaml:"register_ip"`
	BindAccount        ratelimit.Limit `yaml:"bind_account"`
	// LookupAccount and LookupIP limit lookups, however many addresses they have.
	LookupAccount ratelimit.Limit `yaml:"lookup_account"`
	LookupIP      ratelimit.Limit `yaml:"lookup_ip"`
	// LookupAddresses… are how many different addresses may be looked up or
	// invited; LookupAddressesHomeservers are those of some homeservers, by name,
	// in place of LookupAddressesHomeserver.
	LookupAddressesAccount     ratelimit.Limit            `yaml:"lookup_addresses_account"`
	LookupAddressesHomeserver  ratelimit.Limit            `yaml:"lookup_addresses_homeserver"`
	LookupAddressesHomeservers map[string]ratelimit.Limit `yaml:"lookup_addresses_homeservers"`
	// StoreInvite… limit invites of addresses: by sender, homeserver of the sender,
	// and invited address.
	StoreInviteSender     ratelimit.Limit `yaml:"store_invite_sender"`
	StoreInviteHomeserver ratelimit.Limit `yaml:"store_invite_homeserver"`
	StoreInviteTarget     ratelimit.Limit `yaml:"store_invite_target"`
}

// DefaultLimits returns the defaults, for which docs/configuration.md has the
// reasons.
func DefaultLimits() Limits {
	const day = 24 * time.Hour
	per := func(n int, d time.Duration) ratelimit.Limit { return ratelimit.Limit{Count: n, Per: d} }
	return Limits{
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

// perIP limits by the address of the client, or the /64 of it. It is no limit for
// addresses that stand for many people: those of Options.TrustedSources, and of
// the homeservers that version 1 knows by theirs.
func (a *api) perIP(ctx context.Context, name string, limit ratelimit.Limit) ratelimit.Ask {
	ip := mxhttp.ClientAddr(ctx)
	if a.V1.Homeserver && len(a.V1.servers(ip)) > 0 {
		return ratelimit.Ask{}
	}
	return a.perNetwork(ip, name, limit)
}

func (a *api) perNetwork(ip netip.Addr, name string, limit ratelimit.Limit) ratelimit.Ask {
	key, limited := ratelimit.Source(ip, a.TrustedSources)
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

// lookedUp spends the budgets of an account and of its homeserver: whoever runs a
// homeserver makes as many accounts as they like.
func (a *api) lookedUp(by caller, addresses []string) []ratelimit.Ask {
	return []ratelimit.Ask{
		ratelimit.Distinct(lookedUpByAccount, a.Limits.LookupAddressesAccount, by.UserID, addresses),
		a.lookedUpBy(by.Homeserver, addresses),
	}
}

func (a *api) lookedUpBy(homeserver string, addresses []string) ratelimit.Ask {
	limit, own := a.Limits.LookupAddressesHomeservers[homeserver]
	if !own {
		limit = a.Limits.LookupAddressesHomeserver
	}
	return ratelimit.Distinct(lookedUpByHomeserver, limit, homeserver, addresses)
}

// lookupAsks are the limits of a lookup of these addresses.
func (a *api) lookupAsks(ctx context.Context, by caller, addresses []string) []ratelimit.Ask {
	return append(a.lookedUp(by, addresses),
		perAccount(lookupAccount, a.Limits.LookupAccount, by), a.perIP(ctx, lookupIP, a.Limits.LookupIP))
}

// associationAsks are the limits of a lookup by version 1. Its homeserver has no
// token that says who asks, so each that may be at its address pays.
func (a *api) associationAsks(ctx context.Context, ids []threepid.ID) []ratelimit.Ask {
	ip := mxhttp.ClientAddr(ctx)
	asks := []ratelimit.Ask{a.perNetwork(ip, lookupIP, a.Limits.LookupIP)}
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
func (a *api) inviteAsks(by caller, medium, address string) []ratelimit.Ask {
	asks := []ratelimit.Ask{
		perAccount(storeInviteSender, a.Limits.StoreInviteSender, by),
		ratelimit.Rate(storeInviteHomeserver, a.Limits.StoreInviteHomeserver, by.Homeserver),
	}
	id, err := threepid.ParseAddress(medium, address)
	if err != nil {
		return asks
	}
	asks = append(asks, perAddress(storeInviteTarget, a.Limits.StoreInviteTarget, id))
	return append(asks, a.lookedUp(by, []string{pair(id)})...)
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
	country, own := a.Limits.SMSCountries[req.Region]
	if !own {
		country = a.Limits.SMSCountry
	}
	return append(asks,
		perAddress(requestTokenNumber, a.Limits.RequestTokenNumber, req.ID),
		ratelimit.Rate(smsCountry, country, req.Region),
		ratelimit.Rate(smsTotal, a.Limits.SMSTotal, ""),
	)
}

// capped says once in a while that text messages are no longer sent, which costs
// somebody money or people their codes.
type capped struct {
	mu   sync.Mutex
	last map[string]time.Time // by limit and country
}

// cappedPause lies between two lines of the log about one cap.
const cappedPause = time.Hour

func (c *capped) note(ctx context.Context, log *slog.Logger, r *ratelimit.Refused, region string) {
	country := region
	switch r.Limit {
	case smsTotal:
		country = ""
	case smsCountry:
	default:
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if last, before := c.last[country]; before && time.Since(last) < cappedPause {
		return
	}
	c.last[country] = time.Now()
	log.WarnContext(ctx, "text messages have reached their cap", "limit", r.Limit, "country", country)
}

// limited is the answer to a request that a limit refuses.
func limited(r *ratelimit.Refused) *mxhttp.Error {
	return &mxhttp.Error{
		Status: http.StatusTooManyRequests, Code: "M_LIMIT_EXCEEDED", Msg: "Too many requests; try again later", RetryAfter: r.RetryAfter,
	}
}
