// Package safehttp is the only way out to addresses that others choose: a
// homeserver named in a registration, a push endpoint, a web hook. It bounds
// the time, the redirects and the bytes of an exchange, and it refuses to
// connect to anything but the public internet, whatever DNS says.
//
// It does not decide what an answer means, and it never retries.
package safehttp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"
	"time"
)

const (
	defaultTimeout = 10 * time.Second
	defaultMaxBody = 64 << 10

	// maxHeaderBytes bounds the status line and headers of one answer; interim
	// (1xx) answers count against it too.
	maxHeaderBytes = 64 << 10

	// Idle connections kept for reuse. The hosts are chosen by others, so the
	// total is small.
	maxIdleConns    = 64
	idleConnTimeout = time.Minute
)

// Options are the settings of a [Client]. The zero value is usable.
type Options struct {
	// Timeout bounds a whole exchange: name lookup, connection, redirects and
	// reading the body to its end. It lies within the deadline of the request's
	// own context. Zero means 10 s.
	Timeout time.Duration
	// MaxBody is the largest answer in bytes, after decompression. Reading
	// beyond it fails with [ErrTooLarge]. Zero means 64 KiB.
	MaxBody int64
	// MaxRedirects is how many redirects a GET or HEAD follows. With zero, and
	// for every other method, the redirect itself is the answer.
	MaxRedirects int
	// RequireHTTPS refuses http URLs, in redirects as well.
	RequireHTTPS bool
	// AllowNets are networks of the operator's choice that may be reached
	// although they are not public. Listing 64:ff9b::/96 (NAT64) allows public
	// IPv4 addresses through it, not private ones.
	AllowNets []netip.Prefix
	// RootCAs are the accepted certificate authorities; nil means the system's.
	// See [LoadRootCAs].
	RootCAs *x509.CertPool
	// Proxy is an http or https URL of a proxy that opens tunnels (CONNECT) for
	// every request. Names are then looked up by the proxy, so the proxy has to
	// refuse private addresses; only address literals are still checked here.
	// The proxy variables of the environment are never read.
	Proxy *url.URL
	// Resolver looks up names; nil means net.DefaultResolver.
	Resolver *net.Resolver
	// UserAgent is sent with requests that have no User-Agent of their own.
	UserAgent string
	// Connecting, unless nil, is asked right before each connection, with the context
	// of the request that it is for and the address, which the guard let through. Its
	// error is that of the connection. It is not asked about what a proxy connects to.
	Connecting func(ctx context.Context, addr netip.Addr) error
	// Log receives the warning about Proxy; nil discards it.
	Log *slog.Logger
}

// Client makes guarded HTTP requests. It is safe for concurrent use.
type Client struct {
	http         *http.Client
	dial         dialFunc
	tls          *tls.Config
	maxBody      int64
	maxRedirects int
	requireHTTPS bool
	userAgent    string
}

// New checks opts and returns a client made from them.
func New(opts Options) (*Client, error) {
	if opts.Timeout < 0 || opts.MaxBody < 0 || opts.MaxRedirects < 0 {
		return nil, errors.New("safehttp: timeout, body limit and redirects cannot be negative")
	}
	if opts.Timeout == 0 {
		opts.Timeout = defaultTimeout
	}
	if opts.MaxBody == 0 {
		opts.MaxBody = defaultMaxBody
	}
	dial, err := newDial(opts)
	if err != nil {
		return nil, err
	}
	c := &Client{
		dial: dial, tls: &tls.Config{RootCAs: opts.RootCAs, MinVersion: tls.VersionTLS12},
		maxBody:      opts.MaxBody,
		maxRedirects: opts.MaxRedirects,
		requireHTTPS: opts.RequireHTTPS,
		userAgent:    opts.UserAgent,
	}
	c.http = &http.Client{
		Timeout:       opts.Timeout,
		CheckRedirect: c.checkRedirect,
		Transport: &http.Transport{
			DialContext:            redirectDial(dial),
			TLSClientConfig:        c.tls.Clone(),
			TLSHandshakeTimeout:    opts.Timeout,
			ForceAttemptHTTP2:      true,
			MaxIdleConns:           maxIdleConns,
			IdleConnTimeout:        idleConnTimeout,
			MaxResponseHeaderBytes: maxHeaderBytes,
		},
	}
	return c, nil
}

// dialFunc opens a TCP connection, or a tunnel, to host:port.
type dialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// newDial returns the guarded dialer, or the one through the proxy.
func newDial(opts Options) (dialFunc, error) {
	guard, err := newGuard(opts.AllowNets)
	if err != nil {
		return nil, err
	}
	// The transport lets a dial outlive its request, so it has its own timeout.
	dialer := &net.Dialer{Timeout: opts.Timeout, Resolver: opts.Resolver}
	if opts.Proxy != nil {
		p, err := newProxy(opts.Proxy, dialer, guard, opts.RootCAs)
		if err != nil {
			return nil, err
		}
		if opts.Log != nil {
			opts.Log.Warn("outbound requests go through a proxy, which must refuse private addresses itself",
				"proxy", opts.Proxy.Host)
		}
		return p.dial, nil
	}
	dialer.ControlContext = func(ctx context.Context, network, address string, c syscall.RawConn) error {
		if err := guard.control(network, address, c); err != nil || opts.Connecting == nil {
			return err
		}
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		return opts.Connecting(ctx, to.Addr())
	}
	return dialer.DialContext, nil
}

// Do sends req and returns the answer, whose body the caller must close.
//
// The error says what happened without the path or query of the URL. It wraps
// [ErrBlocked], [ErrScheme], [ErrRedirect] or [ErrProxy] where they apply, and
// context.DeadlineExceeded when time ran out. Reading the body may fail with
// [ErrTooLarge].
func (c *Client) Do(req *http.Request) (*http.Response, error) {
	return c.do(req.Context(), req)
}

// Connect opens a connection to the host of u as [Client.Do] does, and closes it
// without a request. Its errors are those of Do.
func (c *Client) Connect(ctx context.Context, u *url.URL) error {
	if err := c.checkScheme(u); err != nil {
		return &requestError{host: u.Host, cause: err}
	}
	conn, err := c.dial(ctx, "tcp", hostPort(u))
	if err != nil {
		return newRequestError(u.Host, err)
	}
	defer conn.Close()
	if u.Scheme == "https" {
		config := c.tls.Clone()
		config.ServerName = u.Hostname()
		if err := tls.Client(conn, config).HandshakeContext(ctx); err != nil {
			return newRequestError(u.Host, err)
		}
	}
	return nil
}

// DoAt is [Client.Do] for callers that find out themselves where a host is to
// be reached. It connects to addr (host:port) in place of the host and port of
// req.URL; the guard checks addr like any other address. The host of req.URL
// stays the name the certificate must hold, and req.Host, if set, is the Host
// header. Redirects to other hosts connect to those.
//
// An idle connection made for the same host and port of req.URL may be reused,
// whichever address it goes to: its certificate proved the same name.
func (c *Client) DoAt(req *http.Request, addr string) (*http.Response, error) {
	d := detour{from: hostPort(req.URL), to: addr}
	return c.do(context.WithValue(req.Context(), detourKey{}, d), req)
}

func (c *Client) do(ctx context.Context, req *http.Request) (*http.Response, error) {
	if err := c.checkScheme(req.URL); err != nil {
		if req.Body != nil {
			_ = req.Body.Close() // as a RoundTripper would
		}
		return nil, &requestError{host: req.URL.Host, cause: err}
	}
	req = req.Clone(ctx)
	if c.userAgent != "" && req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", c.userAgent)
	}
	resp, err := c.http.Do(req) //nolint:gosec // G704: going where others choose, guarded, is the purpose of this package
	if err != nil {
		return nil, newRequestError(req.URL.Host, err)
	}
	resp.Body = &body{
		Reader: http.MaxBytesReader(nil, resp.Body, c.maxBody),
		Closer: resp.Body,
		host:   req.URL.Host,
	}
	return resp, nil
}

// CloseIdleConnections closes connections that are not in use.
func (c *Client) CloseIdleConnections() {
	c.http.CloseIdleConnections()
}

func (c *Client) checkScheme(u *url.URL) error {
	if u.Scheme == "https" || u.Scheme == "http" && !c.requireHTTPS {
		return nil
	}
	return ErrScheme
}

func (c *Client) checkRedirect(req *http.Request, via []*http.Request) error {
	if c.maxRedirects == 0 || via[0].Method != http.MethodGet && via[0].Method != http.MethodHead {
		return http.ErrUseLastResponse
	}
	if len(via) > c.maxRedirects {
		return ErrRedirect
	}
	if err := c.checkScheme(req.URL); err != nil {
		return err
	}
	if via[len(via)-1].URL.Scheme == "https" && req.URL.Scheme != "https" {
		return fmt.Errorf("redirect from https: %w", ErrScheme)
	}
	// http.Client puts the whole former URL here, and its query may hold a token.
	req.Header.Del("Referer")
	return nil
}

// detour tells the dialer to connect to one address when asked for another. It
// names the one it replaces so that a redirect elsewhere is not caught up in it.
type detour struct{ from, to string }

type detourKey struct{}

func redirectDial(dial dialFunc) dialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		if d, ok := ctx.Value(detourKey{}).(detour); ok && d.from == addr {
			addr = d.to
		}
		return dial(ctx, network, addr)
	}
}

// hostPort is the address the transport asks its dialer for.
func hostPort(u *url.URL) string {
	port := u.Port()
	switch {
	case port != "":
	case u.Scheme == "http":
		port = "80"
	default:
		port = "443"
	}
	return net.JoinHostPort(u.Hostname(), port)
}
