package main

import (
	"net/url"
	"slices"
)

// warnings say what of the configuration works but should not stay so.
func (c *Config) warnings() []string {
	found := slices.Clone(c.Warnings)
	u, err := url.Parse(c.PublicBaseURL)
	if err == nil && u.Scheme == "http" && !isLoopbackHost(u.Hostname()) {
		found = append(found, "public_base_url: it is not https, so tokens and codes can be read on their way")
	}
	if c.trustsThisMachine() {
		found = append(found, "trusted_homeservers: it names this machine. If a proxy here passes requests on, "+
			"everybody may speak for the homeserver unless http.trusted_proxies names the proxy")
	}
	if host, taken := c.hostIsHomeserver(); taken && c.delegate() != "" {
		found = append(found, "public_base_url: "+host+" is the name of a homeserver too, which is left to answer /.well-known/matrix/server. "+
			"Dendrite asks for this service where that leads to: pass /_matrix/identity on from there, or give the service a host of its own")
	}
	return found
}
