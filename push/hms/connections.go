package hms

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/internal/outbound"
	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/accesstoken"
)

const (
	dialTimeout = 10 * time.Second
	// pingAfter is the silence on a connection after which it is tried.
	pingAfter = 30 * time.Second
	// idleConnections are kept where Huawei's host does not speak HTTP/2, of which
	// its documents say nothing.
	idleConnections = 128
	maxHeader       = 64 << 10 // bytes of an answer
)

// Options are what all apps of a process share.
type Options = outbound.Options

// Connections are the connections to Huawei that all apps of a process share, across
// reloads of its configuration.
type Connections struct {
	opts      Options
	transport *http.Transport
	sender    http.RoundTripper // transport, perhaps wrapped

	mu     sync.Mutex
	tokens map[*accesstoken.Source]struct{} // of the apps that are open
}

// NewConnections returns Connections that are not open to anything yet.
func NewConnections(opts Options) *Connections {
	c := &Connections{opts: opts.WithDefaults(), tokens: make(map[*accesstoken.Source]struct{})}
	c.transport = &http.Transport{
		TLSClientConfig: c.opts.TLS(), ForceAttemptHTTP2: true, HTTP2: &http.HTTP2Config{SendPingTimeout: pingAfter},
		DialContext: (&net.Dialer{Timeout: dialTimeout}).DialContext, TLSHandshakeTimeout: dialTimeout,
		MaxIdleConnsPerHost: idleConnections, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: maxHeader,
	}
	if c.opts.Proxy != nil {
		c.transport.Proxy = http.ProxyURL(c.opts.Proxy)
	}
	c.sender = c.opts.Wrap(c.transport)
	return c
}

// Open returns the provider of the app with this name, which appears in errors and
// logs. Every fault of cfg is in the error. The provider begins to fetch an access
// token; it needs a Close.
func (c *Connections) Open(name string, cfg Config) (*Provider, error) {
	var problems conf.Problems
	s := cfg.resolve(fmt.Sprintf("apps[%q]", name), &problems)
	if err := problems.Err(); err != nil {
		return nil, err
	}
	if s.credentials == nil || cfg.ClientID != "" && cfg.ClientSecret == "" {
		return nil, fmt.Errorf("open app %q: the file of its credentials has not been read", name)
	}
	p := &Provider{settings: s, connections: c, log: c.opts.Log.With("app", name)}
	p.tokens = accesstoken.New(accesstoken.Options{
		Fetch: func(ctx context.Context) (string, time.Duration, push.Outcome) {
			return s.credentials.token(ctx, c.opts, c.transport)
		},
		Timeout: c.opts.TokenTimeout, Retry: c.opts.TokenRetry, Log: p.log, Now: c.opts.Now,
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tokens[p.tokens] = struct{}{}
	return p, nil
}

// Close ends the requests for access tokens and the connections that are idle.
func (c *Connections) Close() {
	c.mu.Lock()
	open := c.tokens
	c.tokens = nil
	c.mu.Unlock()
	for tokens := range open {
		tokens.Close()
	}
	c.transport.CloseIdleConnections()
}
