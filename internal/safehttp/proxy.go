package safehttp

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// proxy opens tunnels with CONNECT (RFC 9110, section 9.3.6). Transport.Proxy
// would ask for the host in the URL; here the address may be another one.
type proxy struct {
	addr   string
	tls    *tls.Config // nil for a plain http proxy
	auth   string      // Proxy-Authorization, or empty
	dialer *net.Dialer // not guarded: the operator chose the proxy
	guard  *guard
}

func newProxy(u *url.URL, dialer *net.Dialer, g *guard, roots *x509.CertPool) (*proxy, error) {
	if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return nil, errors.New("safehttp: the proxy must be an http or https URL with a host")
	}
	p := &proxy{addr: hostPort(u), dialer: dialer, guard: g}
	if u.Scheme == "https" {
		p.tls = &tls.Config{RootCAs: roots, ServerName: u.Hostname(), MinVersion: tls.VersionTLS12}
	}
	if u.User != nil {
		password, _ := u.User.Password()
		p.auth = "Basic " + base64.StdEncoding.EncodeToString([]byte(u.User.Username()+":"+password))
	}
	return p, nil
}

func (p *proxy) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("connect through the proxy: %w", err)
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		if err := p.guard.check(ip); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, p.dialer.Timeout)
	defer cancel()
	conn, err := p.dialer.DialContext(ctx, network, p.addr)
	if err != nil {
		return nil, fmt.Errorf("connect to the proxy: %w", err)
	}
	if p.tls != nil {
		conn = tls.Client(conn, p.tls)
	}
	if err := p.connect(ctx, conn, net.JoinHostPort(strings.TrimSuffix(host, "."), port)); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// connect asks for a tunnel to addr on conn.
func (p *proxy) connect(ctx context.Context, conn net.Conn, addr string) error {
	// A deadline in the past wakes up whatever waits on conn.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: addr}, Host: addr, Header: http.Header{}}
	if p.auth != "" {
		req.Header.Set("Proxy-Authorization", p.auth)
	}
	if err := req.Write(conn); err != nil {
		return fmt.Errorf("ask the proxy for a tunnel: %w", err)
	}
	// The peer speaks only after our first bytes, so nothing beyond the
	// proxy's answer can be in the buffer.
	r := bufio.NewReader(io.LimitReader(conn, maxHeaderBytes))
	resp, err := http.ReadResponse(r, req) //nolint:bodyclose // closing it would read the tunnel to its end
	if err != nil {
		return fmt.Errorf("read the proxy's answer: %w", err)
	}
	if resp.StatusCode/100 != 2 || r.Buffered() > 0 {
		return ErrProxy
	}
	if !stop() {
		return context.Cause(ctx)
	}
	return nil
}
