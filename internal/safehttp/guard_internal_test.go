package safehttp

import (
	"errors"
	"net"
	"net/netip"
	"testing"
)

// The table asks the dialer's hook itself: going through the exported API
// would need IPv6 on the machine and would connect to strangers.
//
// Conformance (security): no request into private networks, after DNS, at each redirect, in every form of an address (CVE-2021-29431); the operator's list overrides, and the log names it (`homeservers.allow_networks`) (also TestGuardRefusesEveryAddressThatEmbedsAnother, TestEveryRedirectIsChecked, TestDoChecksTheAddressOfEveryConnectionNotOfTheFirstLookup, TestPrivateNetworksAreReachedOnlyWhenListed, TestHomeserversCannotBeUsedToExploreNetworks)
func TestGuardRefusesEverySpecialPurposeAddress(t *testing.T) {
	t.Parallel()
	tests := map[string][]string{
		"this network":               {"0.0.0.0", "0.1.2.3", "0.255.255.255"},
		"private":                    {"10.0.0.0", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1", "192.168.255.255"},
		"shared (CGNAT)":             {"100.64.0.0", "100.127.255.255"},
		"loopback":                   {"127.0.0.1", "127.255.255.255", "::1"},
		"link-local":                 {"169.254.0.1", "169.254.169.254", "fe80::1", "febf::1", "fe80::1%eth0"},
		"IETF protocol assignments":  {"192.0.0.0", "192.0.0.8", "192.0.0.170", "192.0.0.255", "2001::1", "2001:1::1", "2001:1ff:ffff::1"},
		"documentation":              {"192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1", "3fff:fff:ffff::1"},
		"AS112 and AMT":              {"192.31.196.1", "192.175.48.1", "192.52.193.1", "2620:4f:8000::1", "2001:3::1", "2001:4:112::1"},
		"6to4 relay anycast":         {"192.88.99.1"},
		"benchmarking":               {"198.18.0.1", "198.19.255.255", "2001:2::1"},
		"multicast":                  {"224.0.0.1", "239.255.255.255", "ff00::1", "ff02::1", "ff0e::1"},
		"reserved":                   {"240.0.0.1", "254.255.255.255", "4000::1", "fdff::", "8000::1"},
		"broadcast":                  {"255.255.255.255"},
		"unspecified":                {"0.0.0.0", "::"},
		"IPv4-mapped":                {"::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254"},
		"IPv4-translated":            {"::ffff:0:127.0.0.1", "::ffff:0:8.8.8.8"},
		"IPv4-compatible":            {"::127.0.0.1", "::10.0.0.1", "::8.8.8.8"},
		"NAT64 well-known":           {"64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b::808:808"},
		"NAT64 local-use":            {"64:ff9b:1::1", "64:ff9b:1:ffff::7f00:1"},
		"6to4":                       {"2002:7f00:1::1", "2002:a9fe:a9fe::1", "2002:808:808::1"},
		"Teredo":                     {"2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001::ffff:80ff:fffe"},
		"ISATAP":                     {"2a00:1450:4001::5efe:7f00:1", "2a00:1450:4001::200:5efe:a9fe:a9fe", "2a00::5efe:808:808"},
		"unique local":               {"fc00::1", "fd00::1", "fdff:ffff::1"},
		"site-local":                 {"fec0::1", "feff::1"},
		"discard-only and dummy":     {"100::1", "100:0:0:1::1"},
		"ORCHID":                     {"2001:10::1", "2001:20::1"},
		"segment routing":            {"5f00::1"},
		"a zone on a public address": {"2606:4700:4700::1111%eth0"},
		"cloud metadata":             {"100.100.100.200", "169.254.169.254", "fd00:ec2::254"},
	}
	g, err := newGuard(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, addrs := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, addr := range addrs {
				if err := g.control(network(addr), net.JoinHostPort(addr, "443"), nil); !errors.Is(err, ErrBlocked) {
					t.Errorf("%s: got %v, want ErrBlocked", addr, err)
				}
			}
		})
	}
}

func TestGuardLetsPublicAddressesThrough(t *testing.T) {
	t.Parallel()
	g, err := newGuard(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{
		"1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255",
		"128.0.0.1", "169.253.255.255", "172.15.255.255", "172.32.0.0", "192.167.255.255", "198.17.255.255",
		"198.20.0.0", "223.255.255.255", "::ffff:8.8.8.8",
		"2001:200::1", "2001:4860:4860::8888", "2003::1", "2606:4700:4700::1111", "2a00:1450:4001:81b::200e",
	} {
		// Any port: homeservers listen where they like.
		if err := g.control(network(addr), net.JoinHostPort(addr, "8448"), nil); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

func TestGuardAllowList(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		allow   []string
		addr    string
		blocked bool
	}{
		"a listed network is reachable":                             {[]string{"10.1.0.0/16"}, "10.1.2.3", false},
		"its neighbour is not":                                      {[]string{"10.1.0.0/16"}, "10.2.0.1", true},
		"a listed network is reachable in mapped form":              {[]string{"10.1.0.0/16"}, "::ffff:10.1.2.3", false},
		"host bits in the prefix do not matter":                     {[]string{"10.1.2.3/16"}, "10.1.9.9", false},
		"a listed IPv6 network is reachable":                        {[]string{"fd00:1::/32"}, "fd00:1::5", false},
		"an IPv4 network does not open its NAT64 form":              {[]string{"10.1.0.0/16"}, "64:ff9b::a01:203", true},
		"NAT64 reaches public addresses when listed":                {[]string{"64:ff9b::/96"}, "64:ff9b::808:808", false},
		"NAT64 does not reach private addresses":                    {[]string{"64:ff9b::/96"}, "64:ff9b::a9fe:a9fe", true},
		"NAT64 reaches private addresses when both are listed":      {[]string{"64:ff9b::/96", "10.0.0.0/8"}, "64:ff9b::a00:1", false},
		"::/0 opens every IPv6 address but NAT64 to private":        {[]string{"::/0"}, "64:ff9b::7f00:1", true},
		"0.0.0.0/0 opens every IPv4 address":                        {[]string{"0.0.0.0/0"}, "127.0.0.1", false},
		"0.0.0.0/0 opens no IPv6 address":                           {[]string{"0.0.0.0/0"}, "::1", true},
		"an allow-list does not close what is public":               {[]string{"10.0.0.0/8"}, "8.8.8.8", false},
		"an ISATAP address in a listed network is the operator's":   {[]string{"2a00::/16"}, "2a00::5efe:a00:1", false},
		"a zoned address is in no listed network and stays refused": {[]string{"fe80::/10"}, "fe80::1%lo", true},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var allow []netip.Prefix
			for _, p := range tc.allow {
				allow = append(allow, netip.MustParsePrefix(p))
			}
			g, err := newGuard(allow)
			if err != nil {
				t.Fatal(err)
			}
			err = g.control(network(tc.addr), net.JoinHostPort(tc.addr, "443"), nil)
			if got := errors.Is(err, ErrBlocked); got != tc.blocked {
				t.Errorf("%s with %v: got %v, want blocked %v", tc.addr, tc.allow, err, tc.blocked)
			}
		})
	}
}

func TestGuardRefusesWhatItCannotRead(t *testing.T) {
	t.Parallel()
	g, err := newGuard([]netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ network, address string }{
		{"udp4", "1.1.1.1:53"},
		{"unix", "/run/docker.sock"},
		{"tcp4", "localhost:80"},
		{"tcp4", ""},
	} {
		if err := g.control(tc.network, tc.address, nil); !errors.Is(err, ErrBlocked) {
			t.Errorf("%s %q: got %v, want ErrBlocked", tc.network, tc.address, err)
		}
	}
}

func network(addr string) string {
	if netip.MustParseAddr(addr).Is4() {
		return "tcp4"
	}
	return "tcp6"
}
