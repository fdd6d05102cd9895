package webpush

import (
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/net/publicsuffix"

	"github.com/matrix-herald/herald/push"
)

// maxEndpoint bounds an endpoint, in bytes. Those of the services are below 1000.
const maxEndpoint = 2048

// services are push services of which everybody knows who they are, although the
// operator does not list them.
var services = []string{"updates.push.services.mozilla.com", "fcm.googleapis.com", "web.push.apple.com"}

// endpoint is where a device's notifications go. Its path and query are the right
// to push and are never shown.
type endpoint struct {
	url    string
	host   string // with the port unless that is 443
	name   string // without the port
	path   string
	isIP   bool
	isPort bool // it is not 443
}

func (e *endpoint) origin() string { return "https://" + e.host }

// parseEndpoint returns nil for what is not an https URL of a host, or brings more
// than that.
func parseEndpoint(text string) *endpoint {
	text = withoutSpace(text)
	if len(text) > maxEndpoint {
		return nil
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.User != nil || u.Opaque != "" || u.Fragment != "" {
		return nil
	}
	name := strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
	if name == "" || len(name) > 253 || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`"'<>%\`, r) }) {
		return nil
	}
	e := &endpoint{name: name, path: u.Path}
	_, err = netip.ParseAddr(name)
	e.isIP = err == nil
	if e.host = name; strings.Contains(name, ":") {
		e.host = "[" + name + "]"
	}
	if port := u.Port(); port != "" && port != "443" {
		e.isPort, e.host = true, e.host+":"+port
	}
	u.Host = e.host
	e.url = u.String()
	return e
}

// hosts says which endpoints are allowed.
type hosts struct {
	allowed, denied []glob
	named           map[string]bool // listed without a wildcard, or everybody's
	domains         []string        // listed with all that is in them
}

type glob struct {
	*regexp.Regexp

	port bool // it names one
}

func newHosts(allowed, denied []string) hosts {
	h := hosts{named: make(map[string]bool)}
	for _, name := range services {
		h.named[name] = true
	}
	for _, pattern := range allowed {
		pattern = strings.ToLower(pattern)
		h.allowed = append(h.allowed, newGlob(pattern))
		if !strings.ContainsAny(pattern, "*?") {
			h.named[strings.TrimSuffix(pattern, ":443")] = true
		} else if domain, ok := strings.CutPrefix(strings.TrimSuffix(pattern, ":443"), "*."); ok && isDomain(domain) {
			h.domains = append(h.domains, "."+domain)
		}
	}
	for _, pattern := range denied {
		h.denied = append(h.denied, newGlob(strings.ToLower(pattern)))
	}
	return h
}

// isDomain reports whether names in a domain are given out by its owner alone.
func isDomain(name string) bool {
	_, err := publicsuffix.EffectiveTLDPlusOne(name)
	return err == nil && !strings.ContainsAny(name, "*?:")
}

// known reports whether the operator, or everybody, knows whose a host is.
func (h hosts) known(host string) bool {
	return h.named[host] || slices.ContainsFunc(h.domains, func(domain string) bool { return strings.HasSuffix(host, domain) })
}

var portSuffix = regexp.MustCompile(`:[0-9*?]+$`)

func newGlob(pattern string) glob {
	return glob{push.Glob(strings.TrimSuffix(pattern, ":443")), portSuffix.MatchString(pattern)}
}

// allow reports whether the operator lets notifications go to e. A port
// other than 443 has to be listed.
func (h hosts) allow(e *endpoint) bool {
	for _, g := range h.denied {
		if g.MatchString(e.host) || g.MatchString(e.name) {
			return false
		}
	}
	for _, g := range h.allowed {
		if g.MatchString(e.host) && (g.port || !e.isPort) {
			return true
		}
	}
	return len(h.allowed) == 0 && !e.isPort
}
