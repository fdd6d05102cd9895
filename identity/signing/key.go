package signing

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
)

// algorithm is the only signing algorithm of the specification.
const algorithm = "ed25519"

// Errors of keys. They never quote key material.
var (
	ErrKeyID  = errors.New("not a signing key identifier")
	ErrKey    = errors.New("not an ed25519 key")
	ErrBase64 = errors.New("not base64 of the expected length")
)

// Key is an ed25519 key pair with its identifier. Printing, logging or
// marshalling it shows the identifier only. The zero Key cannot sign.
type Key struct {
	id string
	// A function, because fmt prints the unexported fields of a structure around
	// a Key without asking Key, and follows pointers for some verbs.
	private func() ed25519.PrivateKey
}

// GenerateKey makes a new key named "ed25519:<version>". It returns ErrKeyID if
// that is no identifier.
func GenerateKey(version string) (Key, error) {
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return Key{}, fmt.Errorf("generate a signing key: %w", err)
	}
	return newKey(algorithm+":"+version, private)
}

// NewKey returns the key with the identifier id, such as "ed25519:1", and a seed
// of 32 bytes in any base64 that DecodeBase64 takes. It returns ErrKeyID or
// ErrKey.
func NewKey(id, seed string) (Key, error) {
	raw, err := DecodeBase64(seed, ed25519.SeedSize)
	if err != nil {
		return Key{}, ErrKey
	}
	return newKey(id, ed25519.NewKeyFromSeed(raw))
}

// ParseKey reads the line in which Synapse and Sydent keep a key: "ed25519
// <version> <seed>". It returns ErrKeyID or ErrKey.
func ParseKey(line string) (Key, error) {
	fields := strings.Fields(line)
	if len(fields) != 3 {
		return Key{}, ErrKey
	}
	return NewKey(fields[0]+":"+fields[1], fields[2])
}

func newKey(id string, private ed25519.PrivateKey) (Key, error) {
	if !ValidKeyID(id) {
		return Key{}, ErrKeyID
	}
	return Key{id: id, private: func() ed25519.PrivateKey { return private }}, nil
}

// ValidKeyID reports whether id names an ed25519 key: "ed25519:" and a version
// of 1 to 128 characters of [a-zA-Z0-9_] (Server-Server API, "Publishing Keys").
func ValidKeyID(id string) bool {
	version, found := strings.CutPrefix(id, algorithm+":")
	return found && 1 <= len(version) && len(version) <= 128 && !strings.ContainsFunc(version, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_'
	})
}

// ID returns the identifier, such as "ed25519:1".
func (k Key) ID() string { return k.id }

// Public returns the public half, nil for the zero Key.
func (k Key) Public() ed25519.PublicKey {
	if k.private == nil {
		return nil
	}
	return k.private().Public().(ed25519.PublicKey)
}

// PublicBase64 returns the public half in unpadded standard base64, as it is
// published.
func (k Key) PublicBase64() string { return base64.RawStdEncoding.EncodeToString(k.Public()) }

// Seed returns the secret half in unpadded standard base64: for storing the
// key, and for the mail that hands an invite's key to its recipient. It is ""
// for the zero Key.
func (k Key) Seed() string {
	if k.private == nil {
		return ""
	}
	return base64.RawStdEncoding.EncodeToString(k.private().Seed())
}

// Line returns the key as ParseKey reads it, secret included.
func (k Key) Line() string { return strings.Replace(k.id, ":", " ", 1) + " " + k.Seed() }

// String returns the identifier, never the secret.
func (k Key) String() string { return k.id }

// Format writes String for every verb and flag.
func (k Key) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, k.id) }

// LogValue logs String.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.id) }

// ParsePublicKey reads a public key in any base64 that DecodeBase64 takes. It
// returns ErrKey.
func ParsePublicKey(s string) (ed25519.PublicKey, error) {
	raw, err := DecodeBase64(s, ed25519.PublicKeySize)
	if err != nil {
		return nil, ErrKey
	}
	return raw, nil
}

// DecodeBase64 decodes s, standard or URL-safe, padded or not, to exactly size
// bytes. Deployed servers write all four forms. It returns ErrBase64, also for
// a mixture of the alphabets. Spare bits in the last character are ignored, as
// the specification's own signing key needs; so one value has several spellings
// and strings are no substitute for comparing the bytes.
func DecodeBase64(s string, size int) ([]byte, error) {
	encoding := base64.RawStdEncoding
	if strings.ContainsAny(s, "-_") {
		encoding = base64.RawURLEncoding
	}
	if rest := strings.TrimRight(s, "="); rest != s {
		if len(s) != base64.StdEncoding.EncodedLen(size) {
			return nil, ErrBase64
		}
		s = rest
	}
	if len(s) != encoding.EncodedLen(size) {
		return nil, ErrBase64
	}
	raw, err := encoding.DecodeString(s)
	if err != nil || len(raw) != size {
		return nil, ErrBase64
	}
	return raw, nil
}
