package h2pool

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// dial opens one connection for the waiters, after the pause that earlier
// failures impose. Requests that come during the pause wait for it (a second
// at most) and share the outcome of the dial.
func (p *Pool) dial() {
	if !p.pause() {
		return
	}
	c, err := p.connect()
	p.mu.Lock()
	p.dialing = false
	if err == nil && (c.ended || c.draining) {
		err = c.endErr
		if g := c.goAway.Load(); g != nil {
			err = g
		}
	}
	switch {
	case p.closed:
	case err != nil:
		p.dialFailed(err)
		p.failStranded(err)
	default:
		p.conns = append(p.conns, c)
		if len(p.conns) > 1 {
			p.idle.Reset(p.opts.IdleTimeout)
		}
	}
	p.serve()
	p.mu.Unlock()
}

// pause waits until a dial may be made and reports whether one is still wanted.
func (p *Pool) pause() bool {
	p.mu.Lock()
	wait := time.Until(p.retryAt)
	p.mu.Unlock()
	if wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-t.C:
		case <-p.ctx.Done():
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dialing = p.waiters.Len() > 0 && !p.closed
	if p.dialing {
		p.dials++
	}
	return p.dialing
}

// connect returns a connection whose server has told its limits.
func (p *Pool) connect() (*conn, error) {
	ctx, cancel := context.WithTimeoutCause(p.ctx, p.opts.DialTimeout,
		fmt.Errorf("no connection within %v", p.opts.DialTimeout))
	defer cancel()
	tc, err := p.dialTLS(ctx)
	if err != nil {
		return nil, err
	}
	c := newConn(p, tc)
	p.mu.Lock()
	p.all[c] = struct{}{}
	closed := p.closed
	p.mu.Unlock()
	if closed {
		c.Close()
		return nil, ErrClosed
	}
	// NewClientConn dials through a transport; this one hands it the connection.
	// To net/http it is not TLS, so it speaks HTTP/2 at once.
	var h2 http.Protocols
	h2.SetUnencryptedHTTP2(true)
	var headerTable int // 0 is net/http's default
	if p.opts.FullHeaders {
		headerTable = 1 // byte: an entry counts for 32 more than its text
	}
	tr := &http.Transport{
		DialContext:            func(context.Context, string, string) (net.Conn, error) { return c, nil },
		Protocols:              &h2,
		DisableCompression:     true,
		MaxResponseHeaderBytes: 64 << 10,
		HTTP2: &http.HTTP2Config{
			SendPingTimeout: p.opts.PingAfter,
			PingTimeout:     p.opts.PingTimeout,
			// Providers answer in a few hundred bytes; the default would let a
			// server make us hold 4 MiB per request.
			MaxReceiveBufferPerStream:     64 << 10,
			MaxReceiveBufferPerConnection: 1 << 20,
			MaxEncoderHeaderTableSize:     headerTable,
		},
	}
	if c.cc, err = tr.NewClientConn(ctx, "http", p.opts.Addr); err != nil {
		c.Close()
		return nil, fmt.Errorf("HTTP/2 with %s: %w", p.opts.Addr, err)
	}
	select {
	case <-c.ready:
		return c, nil
	case <-c.done:
		return nil, fmt.Errorf("HTTP/2 with %s ended before the server's SETTINGS: %w", p.opts.Addr, c.endErr)
	case <-ctx.Done():
		c.Close()
		return nil, fmt.Errorf("waiting for the SETTINGS of %s: %w", p.opts.Addr, context.Cause(ctx))
	}
}

// dialTLS returns a TLS connection to the provider that has agreed on HTTP/2.
func (p *Pool) dialTLS(ctx context.Context) (*tls.Conn, error) {
	var raw net.Conn
	var err error
	if p.opts.Proxy == nil {
		raw, err = dialTCP(ctx, p.opts.Addr)
	} else {
		raw, err = p.dialProxy(ctx)
	}
	if err != nil {
		return nil, err
	}
	tc, err := handshake(ctx, raw, p.opts.TLS, p.opts.Addr)
	if err != nil {
		return nil, err
	}
	if proto := tc.ConnectionState().NegotiatedProtocol; proto != "h2" {
		raw.Close()
		return nil, fmt.Errorf("%s does not speak HTTP/2 (negotiated protocol %q)", p.opts.Addr, proto)
	}
	return tc, nil
}

// dialProxy returns a tunnel to the provider through the proxy.
func (p *Pool) dialProxy(ctx context.Context) (net.Conn, error) {
	u := p.opts.Proxy
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	addr := net.JoinHostPort(u.Hostname(), port)
	conn, err := dialTCP(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	if u.Scheme == "https" {
		if conn, err = handshake(ctx, conn, p.proxyTLS, addr); err != nil {
			return nil, fmt.Errorf("proxy: %w", err)
		}
	}
	if err := tunnel(ctx, conn, u.User, p.opts.Addr); err != nil {
		conn.Close()
		return nil, fmt.Errorf("proxy %s: %w", addr, err)
	}
	return conn, nil
}

// tunnel asks the proxy at the other end of conn for a connection to addr.
func tunnel(ctx context.Context, conn net.Conn, user *url.Userinfo, addr string) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: addr}, Host: addr, Header: make(http.Header)}
	if user != nil {
		password, _ := user.Password()
		credentials := base64.StdEncoding.EncodeToString([]byte(user.Username() + ":" + password))
		req.Header.Set("Proxy-Authorization", "Basic "+credentials)
	}
	err := req.Write(conn)
	if err == nil {
		var resp *http.Response
		// A TLS server says nothing before it is spoken to, so the buffer holds
		// nothing that belongs to the tunnel.
		resp, err = http.ReadResponse(bufio.NewReader(io.LimitReader(conn, 64<<10)), req) //nolint:bodyclose // what follows is the tunnel, and the caller closes conn on errors
		if err == nil && resp.StatusCode/100 != 2 {
			return fmt.Errorf("CONNECT %s answered with status %d %s", addr, resp.StatusCode, http.StatusText(resp.StatusCode))
		}
	}
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("CONNECT %s: %w", addr, err)
	}
	return nil
}

func dialTCP(ctx context.Context, addr string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", addr, causeOr(ctx, err))
	}
	return conn, nil
}

// handshake makes conn a TLS client, or closes it.
func handshake(ctx context.Context, conn net.Conn, cfg *tls.Config, addr string) (*tls.Conn, error) {
	tc := tls.Client(conn, cfg)
	if err := tc.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, fmt.Errorf("TLS handshake with %s: %w", addr, causeOr(ctx, err))
	}
	return tc, nil
}

// causeOr returns why ctx has ended, or err if it has not. The pool's own
// timeout thus does not look like the caller's context.DeadlineExceeded.
func causeOr(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
