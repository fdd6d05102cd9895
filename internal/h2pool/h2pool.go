// Package h2pool owns the HTTP/2 connections to one push provider: as few as
// the requests in flight need, opened one at a time and shared by every request.
// It does not know what the requests mean and does not repeat one that the
// server may have acted on.
//
// net/http's own pool opens a connection for each request that meets a full
// one (a cold burst of 300 against a limit of 100 streams ends in hundreds of
// TLS handshakes), and its StrictMaxConcurrentRequests deadlocks. This pool
// keeps a first-come-first-served queue in front of single connections made by
// [http.Transport.NewClientConn].
package h2pool

import (
	"cmp"
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Options describes a pool. Only Addr is required; a zero value elsewhere
// means the default.
type Options struct {
	// Addr is the provider's "host:port". Requests to anything else are refused.
	Addr string
	// ServerName is the name in the provider's certificate; default: the host of Addr.
	ServerName string
	// TLS holds root and client certificates. It is cloned; the protocol is
	// always h2 and the version at least TLS 1.2.
	TLS *tls.Config
	// Proxy is an http:// or https:// proxy that answers CONNECT, with optional
	// basic authentication in its user information. Nil means none; the
	// environment's proxies are never used. An https proxy is verified against
	// TLS.RootCAs and never sees the client certificate.
	Proxy *url.URL
	// MaxStreamsPerConn bounds the requests on one connection, below whatever
	// the server allows; default 900.
	MaxStreamsPerConn int
	// DialTimeout bounds everything up to a usable connection: TCP, proxy, TLS
	// and the server's first SETTINGS; default 10 s.
	DialTimeout time.Duration
	// PingAfter is the silence after which a connection is pinged and
	// PingTimeout how long the answer may take; default 5 s each. A dead
	// connection fails its requests after their sum.
	PingAfter, PingTimeout time.Duration
	// IdleTimeout closes connections, all but the last, that had no request for
	// so long (at the latest after twice that time); default 5 min.
	IdleTimeout time.Duration
	// FullHeaders sends every header field as it is and keeps none in the
	// table of the connection's header compression (RFC 7541): where most
	// fields differ from request to request, as at APNs, they only drive one
	// another out of it.
	FullHeaders bool

	// maxConns bounds the connections that take requests, for tests alone: 0 is as
	// many as the requests need. Another is opened only while all are full, so that
	// whoever bounds the requests bounds the connections.
	maxConns int
}

const (
	// maxRetries is how often a request the server has certainly not processed
	// is sent again before the caller hears of it.
	maxRetries = 2
	// The pause after a failed dial doubles from minPause to maxPause.
	minPause = 100 * time.Millisecond
	maxPause = time.Second
)

// Pool is an [http.RoundTripper] for one provider host and one credential. It
// is safe for concurrent use. Callers must close response bodies: that is what
// gives a request's place to the next.
type Pool struct {
	opts      Options
	authority []string // the spellings of Addr accepted in a request's URL
	proxyTLS  *tls.Config

	ctx    context.Context // ends with Close; dials belong to the pool, not to one request
	cancel context.CancelFunc
	wg     sync.WaitGroup // dials and idle sweeps

	mu      sync.Mutex
	closed  bool
	conns   []*conn            // those that take requests
	all     map[*conn]struct{} // conns, and those being set up or drained
	waiters list.List          // of *waiter, oldest first
	dialing bool               // a dial, or the pause before one, is under way
	idle    *time.Timer

	inFlight     int
	dials        uint64
	dialFailures uint64
	failures     int       // failed dials since a connection last answered a request
	retryAt      time.Time // no dial before this
	lastErr      error     // why the last of failures failed
}

// Stats is a snapshot of a pool for metrics.
type Stats struct {
	Open         int    // connections that take requests
	Draining     int    // connections finishing their requests after GOAWAY
	InFlight     int    // requests on a connection
	Waiting      int    // requests waiting for a place
	Dials        uint64 // dials since New, failed ones included
	DialFailures uint64 // failed dials since New
}

// New checks the options and returns a pool, which connects at the first request.
func New(opts Options) (*Pool, error) {
	host, port, err := net.SplitHostPort(opts.Addr)
	if err != nil || host == "" || port == "" {
		return nil, fmt.Errorf("h2pool: address %q is not host:port", opts.Addr)
	}
	if u := opts.Proxy; u != nil && (u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https") {
		return nil, errors.New("h2pool: the proxy must be an http:// or https:// URL with a host")
	}
	if opts.MaxStreamsPerConn < 0 || min(opts.DialTimeout, opts.PingAfter, opts.PingTimeout, opts.IdleTimeout) < 0 {
		return nil, errors.New("h2pool: limits and durations must not be negative")
	}
	opts.MaxStreamsPerConn = cmp.Or(opts.MaxStreamsPerConn, 900)
	opts.DialTimeout = cmp.Or(opts.DialTimeout, 10*time.Second)
	opts.PingAfter = cmp.Or(opts.PingAfter, 5*time.Second)
	opts.PingTimeout = cmp.Or(opts.PingTimeout, 5*time.Second)
	opts.IdleTimeout = cmp.Or(opts.IdleTimeout, 5*time.Minute)

	if opts.TLS == nil {
		opts.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	opts.TLS = opts.TLS.Clone()
	opts.TLS.ServerName = cmp.Or(opts.ServerName, opts.TLS.ServerName, host)
	opts.TLS.NextProtos = []string{"h2"}
	opts.TLS.MinVersion = max(opts.TLS.MinVersion, tls.VersionTLS12)

	p := &Pool{opts: opts, authority: []string{opts.Addr}, all: make(map[*conn]struct{})}
	if port == "443" {
		p.authority = append(p.authority, strings.TrimSuffix(opts.Addr, ":443"))
	}
	if opts.Proxy != nil {
		p.proxyTLS = &tls.Config{
			RootCAs:    opts.TLS.RootCAs,
			ServerName: opts.Proxy.Hostname(),
			MinVersion: tls.VersionTLS12,
		}
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.idle = time.AfterFunc(opts.IdleTimeout, p.closeIdle)
	p.idle.Stop()
	return p, nil
}

// RoundTrip sends a request on the least busy connection, waiting in order of
// arrival for a place and opening a connection when all are full. When that
// fails and no other connection is open, all waiting requests fail at once;
// the next dial follows after a pause of 100 ms, growing to 1 s, and requests
// that come meanwhile wait for it. A request
// that the server reports as not processed is sent again, up to twice, if it
// has no body or has GetBody. [Unprocessed] tells whether a returned error
// leaves the request certainly undone.
func (p *Pool) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := p.check(req); err != nil {
		closeBody(req)
		return nil, err
	}
	var last *conn
	for attempt := 0; ; attempt++ {
		c, err := p.acquire(req.Context(), last)
		if err != nil {
			closeBody(req)
			return nil, err
		}
		resp, err := p.send(c, req)
		if err == nil {
			return resp, nil
		}
		if attempt == maxRetries || !Unprocessed(err) {
			return nil, err
		}
		again, ok := rewind(req)
		if !ok {
			return nil, err
		}
		req, last = again, c
	}
}

// check refuses requests meant for another host: they would carry this host's
// credential there, or this host would be asked in another's name.
func (p *Pool) check(req *http.Request) error {
	if req.URL == nil || req.URL.Scheme != "https" {
		return errors.New("h2pool: only https requests are sent")
	}
	for _, a := range p.authority {
		if strings.EqualFold(a, req.URL.Host) {
			return nil
		}
	}
	return fmt.Errorf("h2pool: request for %q on a pool for %q", req.URL.Host, p.opts.Addr)
}

// send performs the request on c, which holds a place for it. The place is
// given back when the request fails or panics, else by the response's body.
func (p *Pool) send(c *conn, req *http.Request) (resp *http.Response, err error) {
	kept := false
	defer func() {
		if !kept {
			p.release(c, resp != nil)
		}
	}()
	resp, err = c.cc.RoundTrip(req)
	if err != nil {
		return nil, c.explain(req.Context(), err)
	}
	if resp.Body != http.NoBody {
		kept = true
		resp.Body = &body{ReadCloser: resp.Body, pool: p, conn: c}
	}
	return resp, nil
}

// Close fails waiting requests with [ErrClosed], cuts the connections and with
// them the requests in flight, and stops dialling. It does not wait for requests.
func (p *Pool) Close() {
	p.cancel()
	p.mu.Lock()
	p.closed = true
	p.idle.Stop()
	p.failWaiters("waiting for a connection", ErrClosed)
	open := make([]*conn, 0, len(p.all))
	for c := range p.all {
		open = append(open, c)
	}
	p.mu.Unlock()
	for _, c := range open {
		c.Close()
	}
	p.wg.Wait()
}

// Stats returns the present numbers.
func (p *Pool) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := Stats{
		Open: len(p.conns), InFlight: p.inFlight, Waiting: p.waiters.Len(),
		Dials: p.dials, DialFailures: p.dialFailures,
	}
	for c := range p.all {
		if c.draining {
			s.Draining++
		}
	}
	return s
}

func closeBody(req *http.Request) {
	if req.Body != nil {
		req.Body.Close()
	}
}

// rewind returns the request with its body at the start again.
func rewind(req *http.Request) (*http.Request, bool) {
	if req.Body == nil || req.Body == http.NoBody {
		return req, true
	}
	if req.GetBody == nil {
		return nil, false
	}
	b, err := req.GetBody()
	if err != nil {
		return nil, false
	}
	again := *req
	again.Body = b
	return &again, true
}
