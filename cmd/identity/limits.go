package main

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"

	"github.com/nyaruka/phonenumbers"

	"github.com/matrix-herald/herald/identity/homeserver"
	"github.com/matrix-herald/herald/identity/httpapi"
	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/internal/ratelimit"
	"github.com/matrix-herald/herald/internal/redisconn"
)

// LimitsConfig says how often who may ask.
type LimitsConfig struct {
	httpapi.Limits `yaml:",inline"`

	// Exempt are addresses and ranges without limits by client, beside private ones:
	// homeservers.
	Exempt []string `yaml:"exempt"`
	// Private are those that are exempt in any case. It is no option.
	Private []string `yaml:"test_private" conf:"hidden"`
	// BytesInFlight is how many bytes all requests may hold in memory at once; one
	// client holds at most a quarter.
	BytesInFlight int64 `yaml:"bytes_in_flight"`
}

// defaultLimits trusts addresses that are nobody's on the internet: a homeserver
// next door asks for all of its users.
func defaultLimits() LimitsConfig {
	return LimitsConfig{
		Limits: httpapi.DefaultLimits(), BytesInFlight: 64 << 20,
		Private: []string{
			"127.0.0.0/8", "::1", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "fc00::/7", "fe80::/10",
		},
	}
}

// others stands for countries and homeservers that have no limit of their own.
const others = "*"

// resolve fills in what follows from other options.
func (c *LimitsConfig) resolve() {
	if c.RequestTokenNumber == (httpapi.DefaultLimits().RequestTokenNumber) {
		c.RequestTokenNumber = c.RequestTokenAddress
	}
	if limit, there := c.SMSCountries[others]; there {
		c.SMSCountry = limit
	}
	if limit, there := c.LookupAddressesHomeservers[others]; there {
		c.LookupAddressesHomeserver = limit
	}
}

// noRegion is the region of numbers that belong to no country.
const noRegion = "001"

func (c LimitsConfig) validate(path string, p *conf.Problems) {
	if c.BytesInFlight < httpapi.LeastBytesInFlight {
		p.Add(path+".bytes_in_flight", c.BytesInFlight, fmt.Sprintf("use at least %d: a source may hold a quarter, and must have room for one request", httpapi.LeastBytesInFlight))
	}
	for i, s := range c.Exempt {
		if _, err := conf.ParseNetwork(s); err != nil {
			p.Add(fmt.Sprintf("%s.exempt[%d]", path, i), s, "use an address or a range such as 192.0.2.0/24")
		}
	}
	regions := phonenumbers.GetSupportedRegions()
	for _, r := range sortedKeys(c.SMSCountries) {
		if !regions[r] && r != noRegion && r != others {
			p.Add(fmt.Sprintf("%s.sms_per_country[%q]", path, r), nil, "use the code of a country, such as GB, 001 for numbers of none, or * for all others")
		}
	}
	sites := make(map[string]string)
	for _, s := range sortedKeys(c.LookupAddressesHomeservers) {
		if s == others {
			continue
		}
		if other, twice := sites[ratelimit.Site(s)]; twice {
			p.Add(fmt.Sprintf("%s.lookups_per_homeserver[%q]", path, s), nil, "is below the same domain as "+other+", which is counted as one: name one of them")
		}
		sites[ratelimit.Site(s)] = s
		if _, err := homeserver.ParseServerName(s); err != nil {
			p.Add(fmt.Sprintf("%s.lookups_per_homeserver[%q]", path, s), nil, "use the name of a homeserver, such as example.org")
		}
	}
}

// networks returns the trusted sources, which are validated.
func (c LimitsConfig) networks() []netip.Prefix {
	var networks []netip.Prefix
	for _, s := range slices.Concat(c.Private, c.Exempt) {
		if n, err := conf.ParseNetwork(s); err == nil {
			networks = append(networks, n)
		}
	}
	return networks
}

// announceLimits says at start where limits are counted.
func announceLimits(ctx context.Context, cfg *Config, log *slog.Logger) {
	if cfg.Redis.Enabled() {
		log.InfoContext(ctx, "limits are counted in Redis")
		return
	}
	log.InfoContext(ctx, "limits are counted by this process alone: set redis when there are several, or for them to survive a restart")
}

// openLimiter makes what counts for the limits, and what closes it. Replicas share
// the code key, and so the fingerprints in Redis that stand for people and
// addresses.
func openLimiter(ctx context.Context, cfg *Config, codeKey []byte, env environment) (*ratelimit.Limiter, func() error, error) {
	secret, err := hkdf.Key(sha256.New, codeKey, nil, "herald limits", sha256.Size)
	if err != nil {
		return nil, nil, err
	}
	opts := ratelimit.Options{Names: httpapi.LimitNames(), Service: "identity", Secret: secret, Log: env.log, Registerer: env.reg}
	closeRedis := func() error { return nil }
	if cfg.Redis.Enabled() {
		if opts.Redis, err = redisconn.Connect(ctx, cfg.Redis, "identity", env.log, env.reg); err != nil {
			return nil, nil, err
		}
		closeRedis = opts.Redis.Close
	}
	limiter, err := ratelimit.New(opts)
	if err != nil {
		return nil, nil, errors.Join(err, closeRedis())
	}
	return limiter, closeRedis, nil
}
