// Package homeserver talks to Matrix homeservers over federation: it finds out
// where a server name leads, asks the server there who an OpenID token belongs
// to, tells it about bindings, and verifies the requests that it signs. Every
// address it connects to was chosen by somebody else, so everything goes
// through safehttp.
//
// It does not know accounts, bindings or our own signing keys.
package homeserver

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/internal/safehttp"
)

const (
	defaultTimeout       = 10 * time.Second
	defaultOnBindTimeout = 30 * time.Second
	defaultMaxInFlight   = 128

	maxReplyBytes = 64 << 10
)

// Options are the settings of a [Client] and a [Resolver]. The zero value is
// usable.
type Options struct {
	// Timeout bounds a whole exchange, finding the server included. Zero means
	// 10 s.
	Timeout time.Duration
	// OnBindTimeout is Timeout for [Client.OnBind], which waits for a homeserver
	// to join rooms. Zero means 30 s.
	OnBindTimeout time.Duration
	// MaxInFlight is how many exchanges may run at once for registrations, for keys
	// and for deliveries each; more are refused with [identity.ErrBusy], and so are earlier
	// those with servers that have not answered lately. Zero means 128.
	MaxInFlight int
	// AllowNets are networks that may be reached although they are not public.
	AllowNets []netip.Prefix
	// RootCAs are the accepted certificate authorities; nil means the system's.
	// See [safehttp.LoadRootCAs].
	RootCAs *x509.CertPool
	// Proxy is a proxy for all requests; see [safehttp.Options]. SRV records
	// are still looked up with Resolver.
	Proxy *url.URL
	// Resolver looks up names; nil means net.DefaultResolver.
	Resolver *net.Resolver
	// UserAgent is sent with every request.
	UserAgent string
	// Now tells the time for the caches of .well-known answers and of keys; nil
	// means time.Now.
	Now func() time.Time
	// Log receives the warning about Proxy; nil discards it.
	Log *slog.Logger

	wellKnownPort uint16 // 443 outside tests, which may not listen there
}

func (o Options) withDefaults() (Options, error) {
	if o.Timeout < 0 || o.OnBindTimeout < 0 || o.MaxInFlight < 0 {
		return o, errors.New("homeserver: timeouts and requests in flight cannot be negative")
	}
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	if o.OnBindTimeout == 0 {
		o.OnBindTimeout = defaultOnBindTimeout
	}
	if o.MaxInFlight == 0 {
		o.MaxInFlight = defaultMaxInFlight
	}
	if o.Resolver == nil {
		o.Resolver = net.DefaultResolver
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.wellKnownPort == 0 {
		o.wellKnownPort = 443
	}
	return o, nil
}

// Client makes requests to homeservers, and verifies theirs. It is safe for
// concurrent use.
type Client struct {
	resolver      *Resolver
	http          *safehttp.Client
	timeout       time.Duration
	onBindTimeout time.Duration
	places        *places
	now           func() time.Time
	keys          cache[serverKeys]
	keyFlights    flights[serverKeys]
}

// New checks opts and returns a client made from them.
func New(opts Options) (*Client, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	resolver, err := NewResolver(opts)
	if err != nil {
		return nil, err
	}
	client, err := safehttp.New(safehttp.Options{
		Timeout:      max(opts.Timeout, opts.OnBindTimeout), // exchange has the exact one
		MaxBody:      maxReplyBytes,
		RequireHTTPS: true,
		AllowNets:    opts.AllowNets,
		RootCAs:      opts.RootCAs,
		Proxy:        opts.Proxy, // the resolver's client has warned already
		Resolver:     opts.Resolver,
		UserAgent:    opts.UserAgent,
		Connecting:   connecting,
	})
	if err != nil {
		return nil, err
	}
	return &Client{
		resolver:      resolver,
		http:          client,
		timeout:       opts.Timeout,
		onBindTimeout: opts.OnBindTimeout,
		places:        newPlaces(opts.MaxInFlight, opts.Now),
		now:           opts.Now,
		keys:          newCache[serverKeys](maxKeyServers),
	}, nil
}

// CloseIdleConnections closes connections that are not in use.
func (c *Client) CloseIdleConnections() {
	c.resolver.CloseIdleConnections()
	c.http.CloseIdleConnections()
}

// request is what a homeserver is asked.
type request struct {
	purpose purpose
	method  string
	uri     string        // path and query
	body    []byte        // JSON, nil for none
	timeout time.Duration // finding the server included
}

// reply is a homeserver's answer, whatever its status.
type reply struct {
	status int
	header http.Header
	body   []byte
}

// exchange finds server and makes req there. It returns identity.ErrBusy, or an
// unreachableError when there is no HTTP answer. A body may arrive twice: at a
// target that breaks off, and at the next one.
func (c *Client) exchange(ctx context.Context, server ServerName, req request) (r reply, err error) {
	place, err := c.places.take(req.purpose, server)
	if err != nil {
		return reply{}, err
	}
	defer func() {
		answered := err == nil
		if errors.Is(err, identity.ErrBusy) || !answered && ctx.Err() != nil {
			place.leave(nil)
		} else {
			place.leave(&answered)
		}
	}()
	return c.exchangeAt(place.context(ctx), server, req)
}

// exchangeAt is exchange with a place.
func (c *Client) exchangeAt(ctx context.Context, server ServerName, req request) (reply, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, req.timeout, errTimeout)
	defer cancel()
	dest, err := c.resolver.Resolve(ctx, server)
	if err != nil {
		return reply{}, notReached(err)
	}
	for i, addr := range dest.Addrs {
		var r reply
		if r, err = c.attempt(ctx, dest, addr, req, len(dest.Addrs)-i); err == nil {
			return r, nil
		}
		if ctx.Err() != nil {
			return reply{}, &unreachableError{cause: errors.Join(context.Cause(ctx), err)}
		}
	}
	c.resolver.unreachable(server)
	return reply{}, notReached(err)
}

// notReached returns the error of an exchange without an answer.
func notReached(err error) error {
	if errors.Is(err, identity.ErrBusy) {
		return identity.ErrBusy
	}
	return &unreachableError{cause: err}
}

// attempt makes r at addr, the first of left addresses still to be tried. It
// takes no more than its share of the time, so that one that hangs does not
// keep the others from being tried.
func (c *Client) attempt(ctx context.Context, dest Destination, addr string, r request, left int) (reply, error) {
	if deadline, ok := ctx.Deadline(); ok && left > 1 {
		share := time.Until(deadline) / time.Duration(left)
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, share, errTimeout)
		defer cancel()
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return reply{}, err
	}
	req, err := http.NewRequestWithContext(ctx, r.method, "https://"+net.JoinHostPort(dest.CertName, port)+r.uri, bytes.NewReader(r.body))
	if err != nil {
		return reply{}, errors.New("no valid URL") // err quotes it, token and all
	}
	req.Host = dest.Host
	req.Header.Set("Accept", "application/json")
	if r.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.DoAt(req, addr)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return reply{status: resp.StatusCode, header: resp.Header, body: body}, err
}
