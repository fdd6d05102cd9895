package fcm

import (
	"cmp"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/internal/h2pool"
	"github.com/matrix-herald/herald/internal/outbound"
	"github.com/matrix-herald/herald/push/accesstoken"
)

// pingAfter is the silence after which Google's own clients ping.
const pingAfter = 30 * time.Second

// Options are what all FCM apps of a process share. Its proxy leads to the token
// endpoint too.
type Options = outbound.Options

// Connections are the connections to FCM and the access tokens that all FCM
// apps of a process share, across reloads of its configuration. Requests for
// access tokens have connections of their own, which its Stats do not count.
// Its Close waits for them.
type Connections struct {
	h2pool.Shared[*link]

	opts Options
}

// link is one credential at one host: its connections and its access token.
type link struct {
	*h2pool.Pool

	sender http.RoundTripper // the pool, perhaps wrapped
	tokens *accesstoken.Source
}

// Close implements h2pool.Sharable.
func (l *link) Close() {
	l.tokens.Close()
	l.Pool.Close()
}

// NewConnections returns Connections that are not open to anything yet.
func NewConnections(opts Options) *Connections { return &Connections{opts: opts.WithDefaults()} }

// Open returns the provider of the app with this name, which appears in errors
// and logs. Every fault of cfg is in the error. The provider begins to fetch an
// access token, so that wrong credentials show before the first push; it needs
// a Close.
func (c *Connections) Open(name string, cfg Config) (*Provider, error) {
	var problems conf.Problems
	s := cfg.resolve(fmt.Sprintf("apps[%q]", name), &problems)
	if err := problems.Err(); err != nil {
		return nil, err
	}
	if s.account.id == "" {
		return nil, fmt.Errorf("open app %q: service_account_file has not been read", name)
	}
	l, err := c.Shared.Open(s.endpoint.String()+" "+s.account.id, func() (*link, error) { return c.connect(name, s) })
	if err != nil {
		return nil, fmt.Errorf("open app %q: %w", name, err)
	}
	return newProvider(l, s, c.opts.Now), nil
}

func (c *Connections) connect(name string, s settings) (*link, error) {
	pool, err := h2pool.New(h2pool.Options{
		Addr: net.JoinHostPort(s.endpoint.Hostname(), cmp.Or(s.endpoint.Port(), "443")), TLS: c.opts.TLS(), Proxy: c.opts.Proxy, PingAfter: pingAfter,
	})
	if err != nil {
		return nil, err
	}
	return &link{pool, c.opts.Wrap(pool), accesstoken.New(s.account, c.opts, name)}, nil
}
