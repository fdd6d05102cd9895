package main

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/matrix-herald/herald/identity/homeserver"
	"github.com/matrix-herald/herald/identity/httpapi"
	"github.com/matrix-herald/herald/internal/conf"
)

// V1Config says what there is of version 1 of the API, which homeservers and old
// links still ask for.
type V1Config struct {
	// Lookup answers lookups of trusted homeservers by version 1, which are in
	// clear.
	Lookup bool `yaml:"lookup"`
}

func (c *Config) validateV1(p *conf.Problems) {
	for _, s := range sortedKeys(c.TrustedHomeservers) {
		path := fmt.Sprintf("trusted_homeservers.%q", s)
		switch network, err := conf.ParseNetwork(s); {
		case err != nil || network.Addr().Is4In6():
			p.Add(path, nil, "use an address or a range such as 192.0.2.0/24")
		case network.Bits() == 0:
			p.Add(path, nil, "is everybody, who could then speak for all users: use the addresses of homeservers")
		}
		if len(c.TrustedHomeservers[s]) == 0 {
			p.Add(path, nil, "is empty: name the homeservers there, such as example.org")
		}
		for i, name := range c.TrustedHomeservers[s] {
			if _, err := homeserver.ParseServerName(name); err != nil {
				p.Add(fmt.Sprintf("%s[%d]", path, i), name, "use the server name that user IDs end in, such as example.org")
			} else if !c.Homeservers.allows(name) {
				p.Add(fmt.Sprintf("%s[%d]", path, i), name, "is not in homeservers.allow: add it there, or remove it here")
			}
		}
	}
}

// trustsHomeservers reports whether homeservers are answered by version 1.
func (c *Config) trustsHomeservers() bool { return len(c.TrustedHomeservers) > 0 }

// v1 returns what the API takes.
func (c *Config) v1() httpapi.V1 {
	v := httpapi.V1{Keys: true, Links: true, Homeserver: c.trustsHomeservers(), Lookup: c.V1.Lookup}
	if _, taken := c.hostIsHomeserver(); !taken {
		v.Delegate = c.delegate()
	}
	for _, s := range sortedKeys(c.TrustedHomeservers) {
		if network, err := conf.ParseNetwork(s); err == nil { // validated
			v.Sources = append(v.Sources, httpapi.Source{Network: network, Servers: c.TrustedHomeservers[s]})
		}
	}
	return v
}

// trustsThisMachine reports whether everybody's requests would count as those of
// a homeserver if a proxy on this machine passes them on.
func (c *Config) trustsThisMachine() bool {
	if !c.trustsHomeservers() || len(c.HTTP.TrustedProxies) > 0 {
		return false
	}
	for _, s := range c.v1().Sources {
		if s.Network.Overlaps(netip.MustParsePrefix("127.0.0.0/8")) || s.Network.Overlaps(netip.MustParsePrefix("::1/128")) {
			return true
		}
	}
	return false
}

// delegate returns where homeservers that ask by version 1 reach the service, as
// /.well-known/matrix/server has it; "" if none asks. They speak https alone.
func (c *Config) delegate() string {
	u, err := url.Parse(c.PublicBaseURL)
	if err != nil || u.Scheme != "https" || !c.trustsHomeservers() {
		return ""
	}
	return net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "443"))
}

// hostIsHomeserver reports whether the service's host is the name of a homeserver
// as well, as far as the configuration names it: others ask there for the
// homeserver, and must not be sent here.
func (c *Config) hostIsHomeserver() (string, bool) {
	u, err := url.Parse(c.PublicBaseURL)
	if err != nil {
		return "", false
	}
	return u.Hostname(), slices.ContainsFunc(c.namedHomeservers(), func(name string) bool { return strings.EqualFold(name, u.Hostname()) })
}
