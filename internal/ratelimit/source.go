package ratelimit

import "net/netip"

// Source returns the key that stands for the client at ip in limits by
// address: an IPv4 address, or the /64 of an IPv6 address, which is what one
// customer has at least. It returns "", false for a client in one of the trusted
// networks, and for the zero Addr, as behind a Unix socket: such requests are not
// limited by address.
func Source(ip netip.Addr, trusted []netip.Prefix) (key string, limited bool) {
	if !ip.IsValid() {
		return "", false
	}
	ip = ip.Unmap().WithZone("")
	for _, p := range trusted {
		if p.Contains(ip) {
			return "", false
		}
	}
	if ip.Is4() {
		return ip.String(), true
	}
	return netip.PrefixFrom(ip, 64).Masked().String(), true
}
