package ratelimit

import (
	"net"
	"net/netip"
	"strings"

	"golang.org/x/net/publicsuffix"
)

// Site returns the key that stands for whoever has a server name (host, or
// host:port): the domain that was registered, which is one label below a public
// suffix, or else the address as [Source] has it. Names of other hosts below that
// domain, other ports and letters in another case cost nothing, so they are one.
func Site(server string) string {
	host := strings.ToLower(server)
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimRight(host, ".")
	if ip, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return network(ip)
	}
	if strings.HasSuffix(host, ".localhost") {
		return "localhost" // they all are (RFC 6761, section 6.3)
	}
	if site, err := publicsuffix.EffectiveTLDPlusOne(host); err == nil {
		return site
	}
	return host
}

// Source returns the key that stands for the client at ip in limits by
// address: an IPv4 address, or the /64 of an IPv6 address. It returns "", false for a client in one of the trusted
// networks, and for the zero Addr, as behind a Unix socket: such requests are not
// limited by address.
func Source(ip netip.Addr, trusted []netip.Prefix) (key string, limited bool) {
	if !ip.IsValid() {
		return "", false
	}
	for _, p := range trusted {
		if p.Contains(ip.Unmap().WithZone("")) {
			return "", false
		}
	}
	return network(ip), true
}

// network is what one customer has at least.
func network(ip netip.Addr) string {
	ip = ip.Unmap().WithZone("")
	if ip.Is4() {
		return ip.String()
	}
	return netip.PrefixFrom(ip, 64).Masked().String()
}
