package safehttp

import (
	"errors"
	"net"
	"net/netip"
	"testing"
)

// special4 is the IANA IPv4 Special-Purpose Address Registry, with the multicast
// and reserved blocks of the IPv4 Address Space Registry.
// https://www.iana.org/assignments/iana-ipv4-special-registry/
var special4 = map[string]string{
	"0.0.0.0/8":          "this network",
	"10.0.0.0/8":         "private use",
	"100.64.0.0/10":      "shared address space",
	"127.0.0.0/8":        "loopback",
	"169.254.0.0/16":     "link local",
	"172.16.0.0/12":      "private use",
	"192.0.0.0/24":       "IETF protocol assignments",
	"192.0.0.0/29":       "IPv4 service continuity",
	"192.0.0.8/32":       "dummy address",
	"192.0.0.9/32":       "port control protocol anycast",
	"192.0.0.10/32":      "TURN anycast",
	"192.0.0.170/31":     "NAT64/DNS64 discovery",
	"192.0.2.0/24":       "documentation",
	"192.31.196.0/24":    "AS112",
	"192.52.193.0/24":    "AMT",
	"192.88.99.0/24":     "6to4 relay anycast",
	"192.168.0.0/16":     "private use",
	"192.175.48.0/24":    "direct delegation AS112",
	"198.18.0.0/15":      "benchmarking",
	"198.51.100.0/24":    "documentation",
	"203.0.113.0/24":     "documentation",
	"224.0.0.0/4":        "multicast",
	"240.0.0.0/4":        "reserved",
	"255.255.255.255/32": "limited broadcast",
}

// special6 is the IANA IPv6 Special-Purpose Address Registry, with what the IPv6
// Address Space Registry reserves or never assigned, and the forms that embed an
// IPv4 address.
// https://www.iana.org/assignments/iana-ipv6-special-registry/
var special6 = map[string]string{
	"::1/128":              "loopback",
	"::/128":               "unspecified",
	"::/96":                "IPv4-compatible",
	"::ffff:0:0:0/96":      "IPv4-translated",
	"64:ff9b::/96":         "IPv4-IPv6 translation",
	"64:ff9b:1::/48":       "IPv4-IPv6 translation, local use",
	"100::/64":             "discard only",
	"100:0:0:1::/64":       "dummy prefix",
	"200::/7":              "OSI NSAP, returned",
	"2001::/23":            "IETF protocol assignments",
	"2001::/32":            "Teredo",
	"2001:1::1/128":        "port control protocol anycast",
	"2001:1::2/128":        "TURN anycast",
	"2001:1::3/128":        "DNS-SD SRP anycast",
	"2001:2::/48":          "benchmarking",
	"2001:3::/32":          "AMT",
	"2001:4:112::/48":      "AS112",
	"2001:10::/28":         "ORCHID, deprecated",
	"2001:20::/28":         "ORCHIDv2",
	"2001:30::/28":         "drone remote ID",
	"2001:db8::/32":        "documentation",
	"2002::/16":            "6to4",
	"2620:4f:8000::/48":    "direct delegation AS112",
	"3fff::/20":            "documentation",
	"4000::/3":             "not assigned",
	"5f00::/16":            "segment routing SIDs",
	"fc00::/7":             "unique local",
	"fe80::/10":            "link local",
	"fec0::/10":            "site local, returned",
	"ff00::/8":             "multicast",
	"::ffff:127.0.0.0/104": "IPv4-mapped loopback",
}

// Conformance (hostile input): addresses that others choose | public ones only, by one package only
// Conformance (attacks): naming a private, loopback, link-local, multicast, reserved or metadata address, in any notation | refused after the name is looked up, right before connecting
// Conformance (security): no request into private networks, after DNS, at each redirect, in every form of an address (CVE-2021-29431); the operator's list overrides, and the log names it (`allow_networks`) (also TestGuardRefusesEveryAddressThatEmbedsAnother, TestEveryRedirectIsChecked, TestDoChecksTheAddressOfEveryConnectionNotOfTheFirstLookup, TestPrivateNetworksAreReachedOnlyWhenListed, TestHomeserversCannotBeUsedToExploreNetworks)
func TestGuardRefusesTheRegistriesFromTheirFirstAddressToTheirLast(t *testing.T) {
	t.Parallel()
	g, err := newGuard(nil)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(name string, addr netip.Addr) {
		t.Helper()
		if err := g.control(network(addr.String()), net.JoinHostPort(addr.String(), "443"), nil); !errors.Is(err, ErrBlocked) {
			t.Errorf("%s: %s: got %v, want ErrBlocked", name, addr, err)
		}
	}
	for _, addr := range []string{"2606:4700:4700::1111%eth0", "fe80::1%eth0", "8000::1", "fdff::", "2a00::5efe:808:808"} {
		refused("a zone, or space that nobody has", netip.MustParseAddr(addr))
	}
	for _, registry := range []map[string]string{special4, special6} {
		for prefix, name := range registry {
			for _, addr := range ends(netip.MustParsePrefix(prefix)) {
				refused(name, addr)
				if !addr.Is4() {
					continue
				}
				for form, embedded := range embeddings(addr) {
					refused(name+" as "+form, embedded)
				}
			}
		}
	}
}

// TestGuardRefusesEveryAddressThatEmbedsAnother has public IPv4 addresses in the
// forms that only a tunnel or a translator resolves: what is at its other end
// cannot be known here.
//
// Conformance (attacks): an IPv4 address inside of an IPv6 one: mapped, compatible, translated, NAT64, 6to4, Teredo, ISATAP | the same
func TestGuardRefusesEveryAddressThatEmbedsAnother(t *testing.T) {
	t.Parallel()
	g, err := newGuard(nil)
	if err != nil {
		t.Fatal(err)
	}
	for form, addr := range embeddings(netip.MustParseAddr("8.8.8.8")) {
		err := g.control(network(addr.String()), net.JoinHostPort(addr.String(), "443"), nil)
		if mapped := form == "IPv4-mapped"; mapped != (err == nil) {
			t.Errorf("%s %s: %v", form, addr, err)
		}
	}
}

// TestGuardRefusesNoMoreThanTheRegistries looks at the neighbours of each block,
// so that the tests above are not met by refusing everything.
func TestGuardRefusesNoMoreThanTheRegistries(t *testing.T) {
	t.Parallel()
	g, err := newGuard(nil)
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for prefix := range special4 {
		end := ends(netip.MustParsePrefix(prefix))
		for _, addr := range []netip.Addr{end[0].Prev(), end[1].Next()} {
			if !addr.IsValid() || isSpecial(addr) {
				continue
			}
			checked++
			if err := g.check(addr); err != nil {
				t.Errorf("%s, beside %s: %v", addr, prefix, err)
			}
		}
	}
	if checked < 20 {
		t.Errorf("only %d neighbours were looked at", checked)
	}
}

func isSpecial(addr netip.Addr) bool {
	for prefix := range special4 {
		if netip.MustParsePrefix(prefix).Contains(addr) {
			return true
		}
	}
	return false
}

// ends returns the first and the last address of p.
func ends(p netip.Prefix) [2]netip.Addr {
	last := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(last)*8; bit++ {
		last[bit/8] |= 0x80 >> (bit % 8)
	}
	addr, _ := netip.AddrFromSlice(last)
	return [2]netip.Addr{p.Masked().Addr(), addr}
}

// embeddings returns the IPv6 addresses that lead to v4 or name it.
func embeddings(v4 netip.Addr) map[string]netip.Addr {
	put := func(prefix string, at int) netip.Addr {
		b := netip.MustParseAddr(prefix).As16()
		copy(b[at:], v4.AsSlice())
		return netip.AddrFrom16(b)
	}
	teredo := netip.MustParseAddr("2001:0:4136:e378:8000:63bf::").As16()
	for i, octet := range v4.AsSlice() {
		teredo[12+i] = ^octet // RFC 4380, section 4: the client's address, inverted
	}
	return map[string]netip.Addr{
		"IPv4-mapped":             put("::ffff:0:0", 12),
		"IPv4-compatible":         put("::", 12),
		"IPv4-translated":         put("::ffff:0:0:0", 12),
		"NAT64":                   put("64:ff9b::", 12),
		"NAT64 for local use":     put("64:ff9b:1::", 12),
		"6to4":                    put("2002::1", 2),
		"Teredo server":           put("2001::", 4),
		"Teredo client":           netip.AddrFrom16(teredo),
		"ISATAP":                  put("2a00:1450:4001:81b:0:5efe::", 12),
		"ISATAP, globally unique": put("2a00:1450:4001:81b:200:5efe::", 12),
	}
}
