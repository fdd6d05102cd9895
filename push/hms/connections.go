package hms

import (
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/internal/h2pool"
	"github.com/matrix-herald/herald/internal/outbound"
	"github.com/matrix-herald/herald/push/accesstoken"
)

const (
	dialTimeout = 10 * time.Second
	// pingAfter is the silence on a connection after which it is tried.
	pingAfter = 30 * time.Second
	// idleConnections are kept where Huawei's host does not speak HTTP/2, of which
	// its documents say nothing: hence no h2pool.Pool.
	idleConnections = 128
	maxHeader       = 64 << 10 // bytes of an answer
)

// Options are what all apps of a process share.
type Options = outbound.Options

// Connections are the connections to Huawei and the access tokens that all apps of a
// process share, across reloads of its configuration.
type Connections struct {
	shared    h2pool.Shared[tokens]
	opts      Options
	transport *http.Transport
	sender    http.RoundTripper // transport, perhaps wrapped
}

// tokens are the access tokens of one account for one project or app.
type tokens struct{ *accesstoken.Source }

// Stats implements h2pool.Sharable.
func (tokens) Stats() h2pool.Stats { return h2pool.Stats{} }

// NewConnections returns Connections that are not open to anything yet.
func NewConnections(opts Options) *Connections {
	opts = opts.WithDefaults()
	c := &Connections{opts: opts, transport: &http.Transport{
		TLSClientConfig: opts.TLS(), ForceAttemptHTTP2: true, HTTP2: &http.HTTP2Config{SendPingTimeout: pingAfter},
		DialContext: (&net.Dialer{Timeout: dialTimeout}).DialContext, TLSHandshakeTimeout: dialTimeout,
		MaxIdleConnsPerHost: idleConnections, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: maxHeader,
	}}
	if opts.Proxy != nil {
		c.transport.Proxy = http.ProxyURL(opts.Proxy)
	}
	c.sender = opts.Wrap(c.transport)
	return c
}

// Open returns the provider of the app with this name, which appears in errors and
// logs. Every fault of cfg is in the error. The provider begins to fetch an access
// token; it needs a Close.
func (c *Connections) Open(name string, cfg Config) (*Provider, error) {
	var problems conf.Problems
	s := cfg.resolve(fmt.Sprintf("apps[%q]", name), c.opts.Now, &problems)
	if err := problems.Err(); err != nil {
		return nil, err
	}
	if s.account == nil {
		return nil, fmt.Errorf("open app %q: the file of its credentials has not been read", name)
	}
	use, err := c.shared.Open(s.id, func() (tokens, error) { return tokens{accesstoken.New(s.account, c.opts, name)}, nil })
	if err != nil {
		return nil, fmt.Errorf("open app %q: %w", name, err)
	}
	return &Provider{settings: s, tokens: use, sender: c.sender, now: c.opts.Now, log: c.opts.Log.With("app", name)}, nil
}

// Close ends the requests for access tokens and the connections that are idle.
// Providers that are still open answer Temporary from then on.
func (c *Connections) Close() {
	c.shared.Close()
	c.transport.CloseIdleConnections()
}
