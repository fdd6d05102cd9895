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
	// Keys are the public keys and whether they are valid: old rooms ask for them.
	Keys bool `yaml:"keys"`
	// Links are what the mails of a former server lead to.
	Links bool `yaml:"links"`
	// Homeserver is what Dendrite, and Synapse for telephone numbers, ask for
	// without an access token. Only Sources are answered.
	Homeserver bool `yaml:"homeserver"`
	// Lookup answers lookups among that, which are in clear.
	Lookup bool `yaml:"lookup"`
	// Sources are the server names of the homeservers at an address or in a range.
	Sources map[string][]string `yaml:"sources"`
}

func (c *Config) validateV1(p *conf.Problems) {
	v := c.V1
	if v.Homeserver && !v.Keys {
		p.Add("v1.keys", nil, "switch it on, or homeserver off: Dendrite asks for keys by version 1, and writes its address of them into rooms")
	}
	if v.Homeserver && len(v.Sources) == 0 {
		p.Add("v1.sources", nil, "is missing: say from which addresses homeservers ask, such as {192.0.2.7: [example.org]}")
	}
	for _, s := range sortedKeys(v.Sources) {
		path := fmt.Sprintf("v1.sources.%q", s)
		switch network, err := conf.ParseNetwork(s); {
		case err != nil || network.Addr().Is4In6():
			p.Add(path, nil, "use an address or a range such as 192.0.2.0/24")
		case network.Bits() == 0:
			p.Add(path, nil, "is everybody, who could then speak for all users: use the addresses of homeservers")
		}
		if len(v.Sources[s]) == 0 {
			p.Add(path, nil, "is empty: name the homeservers there, such as example.org")
		}
		for i, name := range v.Sources[s] {
			if _, err := homeserver.ParseServerName(name); err != nil {
				p.Add(fmt.Sprintf("%s[%d]", path, i), name, "use the server name that user IDs end in, such as example.org")
			} else if !c.Homeservers.allows(name) {
				p.Add(fmt.Sprintf("%s[%d]", path, i), name, "is not in homeservers.allow: add it there, or remove it here")
			}
		}
	}
}

// v1 returns what the API takes.
func (c *Config) v1() httpapi.V1 {
	v := httpapi.V1{Keys: c.V1.Keys, Links: c.V1.Links, Homeserver: c.V1.Homeserver, Lookup: c.V1.Lookup}
	if _, taken := c.hostIsHomeserver(); !taken {
		v.Delegate = c.delegate()
	}
	for _, s := range sortedKeys(c.V1.Sources) {
		if network, err := conf.ParseNetwork(s); err == nil { // validated
			v.Sources = append(v.Sources, httpapi.Source{Network: network, Servers: c.V1.Sources[s]})
		}
	}
	return v
}

// trustsThisMachine reports whether everybody's requests would count as those of
// a homeserver if a proxy on this machine passes them on.
func (c *Config) trustsThisMachine() bool {
	if !c.V1.Homeserver || len(c.HTTP.TrustedProxies) > 0 {
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
	if err != nil || u.Scheme != "https" || !c.V1.Homeserver {
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
