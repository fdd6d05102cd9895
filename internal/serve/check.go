package serve

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// checkTimeout bounds CheckHealth within its caller's deadline.
const checkTimeout = 5 * time.Second

// CheckHealth asks a service on this machine how it is and returns nil if it is
// well. The target is an http or https URL, host:port, or unix:/path, as in
// Config.Listen: an address that stands for all of the machine's becomes the
// loopback. A URL without a path means /health.
//
// Certificates of a loopback address are not verified: they name the public
// host.
func CheckHealth(ctx context.Context, target string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, checkTimeout, errors.New("the health check took longer than 5 s"))
	defer cancel()
	transport := &http.Transport{DisableKeepAlives: true}
	u, err := healthURL(target, transport)
	if err != nil {
		return fmt.Errorf("health check: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return fmt.Errorf("health check: %w", err)
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return fmt.Errorf("health check: %w", err)
	}
	if err := resp.Body.Close(); err != nil {
		return fmt.Errorf("health check: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("health check: the service answers %s", resp.Status)
	}
	return nil
}

// healthURL returns the URL to ask and makes the transport reach it.
func healthURL(target string, transport *http.Transport) (string, error) {
	if path, ok := unixPath(target); ok {
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}
		return "http://unix/health", nil
	}
	if !strings.Contains(target, "://") {
		target = "http://" + target
	}
	u, err := url.Parse(target)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") {
		return "", errors.New("the address is neither an http or https URL, host:port, nor unix:/path")
	}
	switch u.Hostname() {
	case "", "0.0.0.0":
		u.Host = strings.TrimSuffix(net.JoinHostPort("127.0.0.1", u.Port()), ":")
	case "::":
		u.Host = strings.TrimSuffix(net.JoinHostPort("::1", u.Port()), ":")
	}
	addr, err := netip.ParseAddr(u.Hostname())
	if u.Hostname() == "localhost" || (err == nil && addr.IsLoopback()) {
		transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // this machine, see CheckHealth
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/health"
	}
	return u.String(), nil
}
