package safehttp

import (
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"code.dny.dev/ssrf"
)

// guard decides which addresses may be connected to. It is asked by the
// dialer after name lookup and right before connecting, so an answer that
// changes between two lookups gains nothing.
type guard struct {
	allow  []netip.Prefix
	public *ssrf.Guardian
}

// newGuard returns a guard that lets public addresses through, and those in
// allow.
func newGuard(allow []netip.Prefix) (*guard, error) {
	for _, p := range allow {
		if !p.IsValid() {
			return nil, fmt.Errorf("safehttp: allowed network %s is not valid", p)
		}
		if p.Addr().Is4In6() {
			return nil, fmt.Errorf("safehttp: write the allowed network %s as an IPv4 network", p)
		}
	}
	return &guard{
		allow:  slices.Clone(allow),
		public: ssrf.New(ssrf.WithAnyPort()),
	}, nil
}

// control is a net.Dialer.Control hook.
func (g *guard) control(network, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil || network != "tcp4" && network != "tcp6" {
		return ErrBlocked
	}
	return g.check(ap.Addr())
}

// check returns ErrBlocked unless addr is public or allowed.
func (g *guard) check(addr netip.Addr) error {
	addr = addr.Unmap() // ::ffff:127.0.0.1 connects to 127.0.0.1
	if v4, ok := nat64(addr); ok {
		// The translator connects to v4, so allowing the translator's prefix
		// does not allow the private networks behind it.
		if err := g.check(v4); err != nil {
			return err
		}
	}
	if slices.ContainsFunc(g.allow, func(p netip.Prefix) bool { return p.Contains(addr) }) {
		return nil
	}
	if isISATAP(addr) || g.public.SafeAddr(addr) != nil {
		return ErrBlocked
	}
	return nil
}

// nat64 returns the IPv4 address inside an address of the well-known NAT64
// prefix (RFC 6052, section 2.1).
func nat64(addr netip.Addr) (netip.Addr, bool) {
	if !ssrf.IPv6NAT64Prefix.Contains(addr) {
		return netip.Addr{}, false
	}
	b := addr.As16()
	return netip.AddrFrom4([4]byte(b[12:])), true
}

// isISATAP reports whether the interface identifier of addr tunnels to an IPv4
// address (RFC 5214, section 6.1). Any prefix may carry one, so no table of
// prefixes finds them.
func isISATAP(addr netip.Addr) bool {
	if !addr.Is6() {
		return false
	}
	b := addr.As16()
	return (b[8] == 0 || b[8] == 2) && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe
}
