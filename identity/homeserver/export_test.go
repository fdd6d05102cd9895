package homeserver

import (
	"crypto/ed25519"
	"time"
)

// WithWellKnownPort makes .well-known files be asked for at port, because tests
// may not listen on 443.
func (o Options) WithWellKnownPort(port uint16) Options {
	o.wellKnownPort = port
	return o
}

// The parsers of what other servers send.
var (
	ParseWellKnown = parseWellKnown
	Lifetime       = lifetime
)

// ParseServerKeys returns the keys and until when they are good.
func ParseServerKeys(body []byte, server ServerName, now time.Time) (map[string]ed25519.PublicKey, time.Time, error) {
	found, err := parseServerKeys(body, server, now)
	return found.keys, found.validUntil, err
}

// Errcode returns the errcode of an answer.
func Errcode(body []byte) string { return reply{body: body}.errcode() }
