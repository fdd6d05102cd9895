package mxhttp

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/matrix-herald/herald/internal/conf"
)

// proxyNotice tells the operator, once, of a proxy that is probably missing among
// the trusted ones: everybody behind it counts as one client.
type proxyNotice struct {
	log     *slog.Logger
	trusted []netip.Prefix
	given   atomic.Bool
}

// newProxyNotice takes addresses and ranges that gin has found to be such.
func newProxyNotice(log *slog.Logger, trusted []string) *proxyNotice {
	n := &proxyNotice{log: log}
	for _, text := range trusted {
		if network, err := conf.ParseNetwork(text); err == nil {
			n.trusted = append(n.trusted, network)
		}
	}
	return n
}

// look reports whether a request comes through such a proxy. Only a private address
// is taken for a proxy's: on the internet anybody may send the header.
func (n *proxyNotice) look(ctx context.Context, r *http.Request) bool {
	if len(r.Header["X-Forwarded-For"]) == 0 {
		return false
	}
	remote, err := netip.ParseAddrPort(r.RemoteAddr)
	addr := remote.Addr().Unmap()
	if err != nil || !addr.IsPrivate() && !addr.IsLoopback() ||
		slices.ContainsFunc(n.trusted, func(p netip.Prefix) bool { return p.Contains(addr) }) {
		return false
	}
	if n.given.Swap(true) {
		return true
	}
	n.log.LogAttrs(ctx, slog.LevelWarn, "requests come from a proxy that is not trusted, which hides the addresses of its clients: "+
		"name it in http.trusted_proxies", slog.String("proxy", addr.String()))
	return true
}
