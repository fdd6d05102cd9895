package main

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/internal/ratelimit"
	"github.com/matrix-herald/herald/internal/redisconn"
	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/httpapi"
)

// LimitsConfig bounds how many requests are taken.
type LimitsConfig struct {
	httpapi.Limits `yaml:",inline"`

	// Exempt are addresses and ranges of homeservers that no limit applies to.
	Exempt []string `yaml:"exempt"`
	// BytesInFlight is how many bytes all requests may hold in memory at once; one
	// client holds at most a quarter.
	BytesInFlight int64 `yaml:"bytes_in_flight"`
}

func (c LimitsConfig) validate(path string, p *conf.Problems) {
	if c.BytesInFlight < httpapi.LeastBytesInFlight {
		p.Add(path+".bytes_in_flight", c.BytesInFlight, fmt.Sprintf("use at least %d: a source may hold a quarter, and must have room for one request", httpapi.LeastBytesInFlight))
	}
	for i, s := range c.Exempt {
		if _, err := conf.ParseNetwork(s); err != nil {
			p.Add(fmt.Sprintf("%s.exempt[%d]", path, i), s, "use an address or a range such as 192.0.2.0/24")
		}
	}
}

// networks returns the trusted sources, which are validated.
func (c LimitsConfig) networks() []netip.Prefix {
	var networks []netip.Prefix
	for _, s := range c.Exempt {
		if n, err := conf.ParseNetwork(s); err == nil {
			networks = append(networks, n)
		}
	}
	return networks
}

// newHandler puts the API with its limits over the gateway. conn is where they are
// counted; nil is the process's own memory.
func newHandler(cfg *Config, gateway *push.Gateway, conn *redisconn.Conn, log *slog.Logger, reg prometheus.Registerer) (http.Handler, error) {
	limiter, err := ratelimit.New(ratelimit.Options{Names: httpapi.LimitNames(), Service: "push", Redis: conn, Log: log, Registerer: reg})
	if err != nil {
		return nil, err
	}
	return httpapi.New(httpapi.Options{
		Gateway: gateway, Log: log, Registerer: reg, TrustedProxies: cfg.HTTP.TrustedProxies,
		Timeout: cfg.HTTP.RequestTimeout.Std(), Discovery: func() bool { return cfg.Dev || gateway.UnifiedPush() },
		Limits: cfg.Limits.Limits, Limiter: limiter, TrustedSources: cfg.Limits.networks(), BytesInFlight: cfg.Limits.BytesInFlight,
	})
}
