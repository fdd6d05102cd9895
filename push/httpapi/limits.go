package httpapi

import (
	"context"
	"errors"
	"net/http"

	"github.com/matrix-herald/herald/internal/mxhttp"
	"github.com/matrix-herald/herald/internal/ratelimit"
)

// The names of the limits, in metrics and in the configuration.
const (
	limitApp = "app"
	limitIP  = "ip"
)

// LimitNames returns the names of all limits.
func LimitNames() []string { return []string{limitApp, limitIP} }

// Limits are how many requests are taken. The zero Limits let everything through.
type Limits struct {
	// App is how often an app may be posted for, such as 100/1s.
	App ratelimit.Limit `yaml:"app"`
	// IP is how often a client may post: an IPv4 address, or a /64 of IPv6.
	IP ratelimit.Limit `yaml:"ip"`
}

// Off reports whether there is no limit.
func (l Limits) Off() bool { return l == Limits{} }

// limit refuses a request as a whole, before anything of it is delivered. A
// trusted source is not limited, and does not use up what others have: those who
// flood an app must not keep a homeserver that is known from it.
func (a *api) limit(ctx context.Context, req *request) error {
	if a.Limits.Off() {
		return nil
	}
	ip := mxhttp.ClientAddr(ctx)
	source, limited := ratelimit.Source(ip, a.TrustedSources)
	if !limited && ip.IsValid() {
		return nil
	}
	var asks []ratelimit.Ask
	if limited {
		asks = append(asks, ratelimit.Rate(limitIP, a.Limits.IP, source))
	}
	for i := range req.devices {
		if name := a.Gateway.AppName(req.devices[i].AppID); name != "" {
			asks = append(asks, ratelimit.Rate(limitApp, a.Limits.App, name))
		}
	}
	_, err := a.Limiter.Take(ctx, asks...)
	if refused, ok := errors.AsType[*ratelimit.Refused](err); ok {
		return &mxhttp.Error{
			Status: http.StatusTooManyRequests, Code: "M_LIMIT_EXCEEDED", Msg: "Too many requests (limit " + refused.Limit + "); nothing was delivered, try again later",
			RetryAfter: refused.RetryAfter,
		}
	}
	return err
}
