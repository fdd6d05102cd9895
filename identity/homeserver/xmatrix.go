package homeserver

import (
	"crypto/ed25519"
	"errors"
	"strings"

	"github.com/matrix-herald/herald/identity/signing"
)

const (
	authScheme = "X-Matrix"

	maxAuthBytes  = 4 << 10 // of one Authorization header
	maxKeyIDBytes = 256
)

// ErrXMatrix means a header is not an X-Matrix authorization.
var ErrXMatrix = errors.New("not a valid X-Matrix authorization")

// XMatrix is one authorization of a request between servers (Server-Server
// API, "Request Authentication"). Nothing in it is verified.
type XMatrix struct {
	// Origin is the homeserver that says it signed the request.
	Origin ServerName
	// Destination is the server that the request is for, as the sender calls it.
	// Homeservers know an identity server by the address the user gave them, so
	// it need not be a server name.
	Destination string
	// HasDestination tells an empty destination from none.
	HasDestination bool
	// Key names the ed25519 key, such as "ed25519:1".
	Key string
	// Signature is the base64 of 64 bytes.
	Signature string
}

// ParseXMatrix reads the value of an Authorization header with the scheme
// X-Matrix, or returns [ErrXMatrix].
//
// It follows RFC 9110, sections 5.6 and 11.4: names and scheme in any case,
// white space round commas and equals signs, empty list elements, values as
// tokens or quoted. As the specification asks, an unquoted value may hold
// colons and unknown parameters are ignored. It refuses a parameter given
// twice. The signature may be called sig, as in the examples and by the
// deployed servers, or signature, as in the list of parameters; with both, they
// must be equal.
func ParseXMatrix(header string) (XMatrix, error) {
	if len(header) > maxAuthBytes || !isXMatrix(header) {
		return XMatrix{}, ErrXMatrix
	}
	params, ok := parseAuthParams(header[len(authScheme):])
	if !ok {
		return XMatrix{}, ErrXMatrix
	}
	origin, err := ParseServerName(params["origin"])
	if err != nil || !validKeyName(params["key"]) {
		return XMatrix{}, ErrXMatrix
	}
	x := XMatrix{Origin: origin, Key: params["key"]}
	x.Destination, x.HasDestination = params["destination"]
	sig, short := params["sig"]
	signature, long := params["signature"]
	if !short {
		sig = signature
	}
	if short && long && sig != signature {
		return XMatrix{}, ErrXMatrix
	}
	if _, err := signing.DecodeBase64(sig, ed25519.SignatureSize); err != nil {
		return XMatrix{}, ErrXMatrix
	}
	x.Signature = sig
	return x, nil
}

// isXMatrix reports whether an Authorization header has the scheme X-Matrix.
func isXMatrix(header string) bool {
	scheme, _, _ := strings.Cut(header, " ")
	return strings.EqualFold(scheme, authScheme)
}

// validKeyName reports whether id names an ed25519 key. The grammar has letters,
// digits and underscores only, but nobody enforces it on the servers that are
// out there, and for us the name only picks one of the keys of its server.
func validKeyName(id string) bool {
	version, ok := strings.CutPrefix(id, "ed25519:")
	return ok && version != "" && len(id) <= maxKeyIDBytes && !strings.ContainsFunc(id, notVisible)
}

func notVisible(r rune) bool { return r <= ' ' || r > '~' }

// parseAuthParams reads what follows a scheme: a list of name=value, with the
// names in lower case. It must begin with a space, or be empty.
func parseAuthParams(s string) (map[string]string, bool) {
	params := make(map[string]string)
	for s = strings.TrimLeft(s, " \t,"); s != ""; s = strings.TrimLeft(s, " \t,") {
		var name, value string
		var ok bool
		name, s = cutWhile(s, isTokenChar)
		if s, ok = strings.CutPrefix(trimSpace(s), "="); !ok || name == "" {
			return nil, false
		}
		if value, s, ok = cutValue(trimSpace(s)); !ok {
			return nil, false
		}
		if s = trimSpace(s); s != "" && s[0] != ',' {
			return nil, false
		}
		name = strings.ToLower(name)
		if _, twice := params[name]; twice {
			return nil, false
		}
		params[name] = value
	}
	return params, true
}

// cutValue returns the token or quoted string that s begins with, and the rest.
func cutValue(s string) (value, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		value, rest = cutWhile(s, func(c byte) bool { return isTokenChar(c) || c == ':' })
		return value, rest, value != ""
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return b.String(), s[i+1:], true
		case c == '\\':
			i++
			if i == len(s) || !isTextChar(s[i]) {
				return "", "", false
			}
			b.WriteByte(s[i])
		case !isTextChar(c):
			return "", "", false
		default:
			b.WriteByte(c)
		}
	}
	return "", "", false
}

func cutWhile(s string, in func(byte) bool) (before, after string) {
	i := 0
	for i < len(s) && in(s[i]) {
		i++
	}
	return s[:i], s[i:]
}

func trimSpace(s string) string { return strings.TrimLeft(s, " \t") }

// isTokenChar is tchar of RFC 9110, section 5.6.2.
func isTokenChar(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// isTextChar is what a quoted string may hold, plainly or after a backslash:
// all but control characters, with tabs.
func isTextChar(c byte) bool { return c == '\t' || ' ' <= c && c != 0x7f }
