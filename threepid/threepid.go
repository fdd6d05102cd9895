// Package threepid owns third-party identifiers: what a medium and an address
// are, the one canonical form of each address, and the hash under which an
// address is looked up. It holds values only; sending to an address, storing
// it and proving who owns it belong to other packages.
//
// An address is personal data. Every type here that holds one prints, logs and
// marshals as a short fingerprint; the address itself is read on purpose,
// through a field or a method that says so.
package threepid

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// Medium is the namespace of an address, as it appears on the wire (Matrix
// appendices, "3PID Types").
type Medium string

// The media of the specification.
const (
	MediumEmail  Medium = "email"
	MediumMSISDN Medium = "msisdn"
)

// Errors of the parsers. They never quote what was parsed.
var (
	ErrInvalidEmail      = errors.New("not an email address")
	ErrInvalidPhone      = errors.New("not a telephone number")
	ErrInvalidCountry    = errors.New("not a country to dial from")
	ErrUnsupportedMedium = errors.New("unsupported medium")
)

// ID is a third-party identifier with its address in canonical form, so that
// two IDs are equal exactly when they name the same mailbox or telephone. Take
// IDs from ParseEmail, ParsePhone or ParseAddress, or from storage that was
// filled with those.
type ID struct {
	Medium  Medium
	Address string
}

// ParseAddress returns the canonical ID of an address that a client or a
// homeserver sent beside its medium, as in unbind or a lookup without hashes.
// An msisdn is decimal digits, with or without a leading "+". It returns
// ErrUnsupportedMedium, ErrInvalidEmail or ErrInvalidPhone.
func ParseAddress(medium, address string) (ID, error) {
	switch Medium(medium) {
	case MediumEmail:
		e, ok := canonicalEmail(address) // nobody asks for its spellings
		if !ok {
			return ID{}, ErrInvalidEmail
		}
		return e.ID(), nil
	case MediumMSISDN:
		p, err := parseMSISDN(address)
		return p.ID(), err
	default:
		return ID{}, ErrUnsupportedMedium
	}
}

// Spellings returns every string under which clients may hash an address given
// as in ParseAddress, the canonical one first. It returns ParseAddress's
// errors.
func Spellings(medium, address string) ([]string, error) {
	if Medium(medium) == MediumEmail {
		e, err := ParseEmail(address)
		return e.Spellings(), err
	}
	id, err := ParseAddress(medium, address)
	if err != nil {
		return nil, err
	}
	return []string{id.Address}, nil
}

// String returns the medium and a fingerprint of the address, for example
// "email:3fa9", never the address.
//
// A fingerprint has 16 bits: enough to follow one address through a log by
// eye, too few to find a telephone number by hashing all of them.
func (id ID) String() string {
	sum := sha256.Sum256([]byte(string(id.Medium) + " " + id.Address))
	return string(id.Medium) + ":" + hex.EncodeToString(sum[:2])
}

// Format writes String for every verb and flag; %+v and %d would otherwise
// show the address.
func (id ID) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, id.String()) }

// LogValue logs String.
func (id ID) LogValue() slog.Value { return slog.StringValue(id.String()) }

// MarshalText returns String, so that a structure with an ID inside does not
// show the address when a log handler or encoding/json walks it. Wire formats
// name Medium and Address themselves.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }
