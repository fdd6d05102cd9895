package threepid

import (
	"fmt"
	"io"
	"log/slog"
	"time"
)

// Challenge is what is sent to an address so that whoever reads it can prove it
// (Identity Service API, "Establishing associations"). It carries the token and
// both halves of the session, so it prints, logs and marshals as its redacted
// ID.
type Challenge struct {
	// ID is the address in canonical form.
	ID ID
	// To is where the message goes: an email address with its domain in A-labels,
	// or E.164 digits without "+".
	To string
	// Region is the ISO 3166-1 alpha-2 code of the region a telephone number
	// belongs to, "001" for none, and empty for an email address.
	Region string

	// Token is the secret to send back: a long random text in a mail, six digits
	// in an SMS.
	Token string
	// SID and ClientSecret name the session in the link of a mail.
	SID, ClientSecret string
	// NextLink is where the person goes after the link, empty for nowhere. The
	// session keeps it; a message may mention it and must not carry it in its link.
	NextLink string

	// Homeserver is the server name of who asked for the message, empty if that is
	// not known.
	Homeserver string
	// Brand and Language choose the wording; both may be empty. Language is a
	// BCP 47 tag or an Accept-Language list, or several on a line each, the most
	// preferred first.
	Brand, Language string
	// ValidFor is how long the token works from now on.
	ValidFor time.Duration
}

// String returns the redacted ID, never the token.
func (c Challenge) String() string { return "challenge for " + c.ID.String() }

// Format writes String for every verb and flag.
func (c Challenge) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, c.String()) }

// LogValue logs String.
func (c Challenge) LogValue() slog.Value { return slog.StringValue(c.String()) }

// MarshalText returns String, so that a log handler that walks a structure
// shows no more.
func (c Challenge) MarshalText() ([]byte, error) { return []byte(c.String()), nil }
