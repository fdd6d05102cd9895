package safehttp

import (
	"errors"
	"net"
	"net/netip"
	"testing"
)

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
