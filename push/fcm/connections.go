package fcm

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/internal/h2pool"
	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/accesstoken"
)

// pingAfter is the silence after which Google's own clients ping.
const pingAfter = 30 * time.Second

// Options configure Connections. The zero value works.
type Options struct {
	// Proxy is an HTTP CONNECT proxy for FCM and the token endpoint, nil for
	// none; proxy variables of the environment are ignored.
	Proxy *url.URL
	// RootCAs are the authorities to trust, nil for the system's.
	RootCAs *x509.CertPool
	// Wrap, unless nil, is put around what sends messages, to trace them.
	Wrap func(http.RoundTripper) http.RoundTripper
	Log  *slog.Logger     // default: discard
	Now  func() time.Time // default: time.Now
	// TokenTimeout bounds one request for an access token, default 10 s.
	TokenTimeout time.Duration
	// TokenRetry is the pause after a first failed request for an access token,
	// default 1 s. It doubles with each further failure up to 5 min, and is 30
	// times as long when Google refuses the account.
	TokenRetry time.Duration
}

// Connections are the connections to FCM and the access tokens that all FCM
// apps of a process share, across reloads of its configuration.
type Connections struct {
	opts      Options
	transport *http.Transport // to token endpoints

	mu     sync.Mutex
	links  map[linkKey]*link
	past   h2pool.Stats // the counters of links that are closed
	closed bool
}

// linkKey says which apps share a link.
type linkKey struct{ endpoint, account string }

// link is one credential at one host: its connections and its access token.
type link struct {
	key    linkKey
	users  int // providers, and pushes under way
	pool   *h2pool.Pool
	sender http.RoundTripper // pool, perhaps wrapped
	tokens *accesstoken.Source
}

func (l *link) close() {
	l.tokens.Close()
	l.pool.Close()
}

// NewConnections returns Connections that are not open to anything yet.
func NewConnections(opts Options) *Connections {
	if opts.Wrap == nil {
		opts.Wrap = func(next http.RoundTripper) http.RoundTripper { return next }
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	opts.Log = cmp.Or(opts.Log, slog.New(slog.DiscardHandler))
	c := &Connections{opts: opts, links: make(map[linkKey]*link), transport: &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: opts.RootCAs, MinVersion: tls.VersionTLS12},
		DisableKeepAlives: true, // a token lasts an hour
	}}
	if opts.Proxy != nil {
		c.transport.Proxy = http.ProxyURL(opts.Proxy)
	}
	return c
}

// Stats returns the numbers of all connections together, for metrics. Requests
// for access tokens have connections of their own and do not count.
func (c *Connections) Stats() h2pool.Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	sum := c.past
	for _, l := range c.links {
		sum = sum.Plus(l.pool.Stats())
	}
	return sum
}

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
	key := linkKey{s.endpoint.String(), s.account.id}
	l, err := c.acquire(name, key, s)
	if err != nil {
		return nil, fmt.Errorf("open app %q: %w", name, err)
	}
	return newProvider(c, l, s), nil
}

// Close ends all connections and token requests, and waits for them. Providers
// that are still open answer Temporary from then on.
func (c *Connections) Close() {
	c.mu.Lock()
	links := c.links
	c.links, c.closed = nil, true
	c.mu.Unlock()
	for _, l := range links {
		l.close()
	}
}

func (c *Connections) acquire(name string, key linkKey, s settings) (*link, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, accesstoken.ErrClosed
	}
	if l := c.links[key]; l != nil {
		l.users++
		return l, nil
	}
	pool, err := h2pool.New(h2pool.Options{
		Addr:      net.JoinHostPort(s.endpoint.Hostname(), cmp.Or(s.endpoint.Port(), "443")),
		TLS:       &tls.Config{RootCAs: c.opts.RootCAs, MinVersion: tls.VersionTLS12},
		Proxy:     c.opts.Proxy,
		PingAfter: pingAfter,
	})
	if err != nil {
		return nil, err
	}
	l := &link{key: key, users: 1, pool: pool, sender: c.opts.Wrap(pool), tokens: accesstoken.New(accesstoken.Options{
		Fetch: func(ctx context.Context) (string, time.Duration, push.Outcome) {
			return s.account.fetchToken(ctx, c.transport, c.opts.Now)
		},
		Timeout: c.opts.TokenTimeout, Retry: c.opts.TokenRetry, Log: c.opts.Log.With("app", name), Now: c.opts.Now,
	})}
	c.links[key] = l
	return l, nil
}

// hold keeps l open for one push; false when it is closed already.
func (c *Connections) hold(l *link) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l.users > 0 {
		l.users++
	}
	return l.users > 0
}

// release gives l back; the last user closes it.
func (c *Connections) release(l *link) {
	c.mu.Lock()
	l.users--
	last := l.users == 0 && c.links[l.key] == l
	if last {
		delete(c.links, l.key)
		c.past = c.past.Plus(l.pool.Stats().Counters())
	}
	c.mu.Unlock()
	if last {
		l.close()
	}
}
