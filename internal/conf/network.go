package conf

import "net/netip"

// ParseNetwork reads a range such as 10.0.0.0/8, or an address as the range that
// has only it. The error is that of [netip.ParsePrefix].
func ParseNetwork(s string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(s); err == nil {
		addr = addr.Unmap().WithZone("")
		return addr.Prefix(addr.BitLen())
	}
	return netip.ParsePrefix(s)
}
