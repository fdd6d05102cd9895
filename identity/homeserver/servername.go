package homeserver

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
)

const (
	maxNameBytes  = 255 // of a server name and of a user ID
	maxLabelBytes = 63  // of a part of a DNS name, RFC 1035 section 2.3.4
)

// ErrServerName means a string is not a server name.
var ErrServerName = errors.New("not a valid server name")

// ServerName is a valid homeserver name (Appendices, "Server Name"). Names are
// compared byte for byte, with ==: only DNS and TLS fold case. The zero value
// names no server.
type ServerName struct {
	name string
	host string     // without brackets
	port uint16     // 0: none given
	addr netip.Addr // the zero Addr unless host is an IP literal
}

// ParseServerName returns the server name s, or [ErrServerName].
//
// It is stricter than the grammar where the grammar lets through what no DNS
// lookup could find: empty and overlong labels, and names whose last label is a
// number, which some resolvers read as an IPv4 address (127.1, 0x7f000001). A
// port is 1 to 65535 without leading zeros; the whole is at most 255 bytes.
func ParseServerName(s string) (ServerName, error) {
	if s == "" || len(s) > maxNameBytes {
		return ServerName{}, ErrServerName
	}
	n := ServerName{name: s}
	rest, ok := n.parseHost(s)
	if !ok {
		return ServerName{}, ErrServerName
	}
	if rest != "" {
		if n.port, ok = parsePort(rest); !ok {
			return ServerName{}, ErrServerName
		}
	}
	return n, nil
}

// parseHost sets host and addr and returns what follows them.
func (n *ServerName) parseHost(s string) (rest string, ok bool) {
	if inner, bracketed := strings.CutPrefix(s, "["); bracketed {
		n.host, rest, ok = strings.Cut(inner, "]")
		if !ok || strings.ContainsFunc(n.host, notIPv6) {
			return "", false
		}
		addr, err := netip.ParseAddr(n.host)
		n.addr = addr
		return rest, err == nil && addr.Is6()
	}
	n.host = s
	if i := strings.IndexByte(s, ':'); i >= 0 {
		n.host, rest = s[:i], s[i:]
	}
	if addr, err := netip.ParseAddr(n.host); err == nil {
		n.addr = addr
		return rest, true
	}
	return rest, validDNSName(n.host)
}

func notIPv6(r rune) bool { return !strings.ContainsRune("0123456789abcdefABCDEF:.", r) }

func validDNSName(host string) bool {
	labels := strings.Split(host, ".")
	for _, label := range labels {
		if label == "" || len(label) > maxLabelBytes || strings.ContainsFunc(label, notDNS) {
			return false
		}
	}
	return !isNumber(labels[len(labels)-1])
}

func notDNS(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-'
}

// isNumber reports whether label is one to inet_aton, which takes decimal,
// octal and hexadecimal.
func isNumber(label string) bool {
	digits := "0123456789"
	if len(label) > 1 && label[0] == '0' && label[1]|0x20 == 'x' {
		label, digits = label[2:], "0123456789abcdefABCDEF"
	}
	return strings.Trim(label, digits) == ""
}

// parsePort reads ":" and a port.
func parsePort(s string) (uint16, bool) {
	digits, ok := strings.CutPrefix(s, ":")
	if !ok || len(digits) > 5 || strings.Trim(digits, "0123456789") != "" || strings.HasPrefix(digits, "0") {
		return 0, false
	}
	port, err := strconv.ParseUint(digits, 10, 16)
	return uint16(port), err == nil
}

// String returns the name as it was parsed.
func (n ServerName) String() string { return n.name }

// Host returns the host without the port and without the brackets of an IPv6
// literal: the name a certificate must hold.
func (n ServerName) Host() string { return n.host }

// Port returns the port, and whether the name has one.
func (n ServerName) Port() (uint16, bool) { return n.port, n.port != 0 }
