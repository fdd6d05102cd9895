package validation

import (
	"net/url"
	"slices"
	"strings"
)

// maxNextLink bounds a next_link in bytes; browsers take about as much.
const maxNextLink = 2048

// CheckClientSecret returns ErrInvalidSecret unless s is 1 to 255 characters of
// [0-9a-zA-Z.=_-], from the first to the last (Identity Service API,
// requestToken).
func CheckClientSecret(s string) error {
	if !opaque(s) {
		return ErrInvalidSecret
	}
	return nil
}

// CheckSID returns ErrInvalidSID unless s has the form of a session ID, which
// is that of a client_secret.
func CheckSID(s string) error {
	if !opaque(s) {
		return ErrInvalidSID
	}
	return nil
}

func opaque(s string) bool {
	return 0 < len(s) && len(s) <= 255 && !strings.ContainsFunc(s, func(r rune) bool {
		return !('0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || strings.ContainsRune(".=_-", r))
	})
}

// CheckNextLink returns ErrInvalidNextLink unless link is an absolute http or
// https URL of printable ASCII, at most 2048 bytes long and without user
// information. If there are hosts, the link's host name must be one of them,
// on whatever port.
//
// The link is where a browser is sent to, so what Go and browsers read
// differently is refused: a backslash, which a browser takes for a slash, and
// white space, which it drops.
func CheckNextLink(link string, hosts []string) error {
	if len(link) > maxNextLink || strings.ContainsFunc(link, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '\\' }) {
		return ErrInvalidNextLink
	}
	u, err := url.Parse(link)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil {
		return ErrInvalidNextLink
	}
	sameHost := func(h string) bool { return strings.EqualFold(h, u.Hostname()) }
	if len(hosts) > 0 && !slices.ContainsFunc(hosts, sameHost) {
		return ErrInvalidNextLink
	}
	return nil
}

// withSID adds the session ID to a next_link: to its query, and to the query
// that the fragment has of its own if it has one, because web clients route by
// the fragment and look there.
func withSID(link, sid string) string {
	link, fragment, found := strings.Cut(link, "#")
	link = withParameter(link, sid)
	if !found {
		return link
	}
	if strings.Contains(fragment, "?") {
		fragment = withParameter(fragment, sid)
	}
	return link + "#" + fragment
}

func withParameter(s, sid string) string {
	switch {
	case !strings.Contains(s, "?"):
		s += "?"
	case !strings.HasSuffix(s, "?") && !strings.HasSuffix(s, "&"):
		s += "&"
	}
	return s + "sid=" + sid
}
