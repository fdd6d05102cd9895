package validation

import (
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/matrix-herald/herald/threepid"
)

// Request asks for a token to be sent to an address. It prints and logs as its
// redacted ID.
type Request struct {
	// ID is the address in canonical form; To and Region are what a Messenger
	// needs besides (threepid.Challenge).
	ID         threepid.ID
	To, Region string
	// OriginalSpelling is the address as the client wrote it, for those who look it up as it
	// is written; empty if that does not matter.
	OriginalSpelling string
	// Owner is who asks, and alone may use the session once it is validated: the
	// user ID of an account, or the homeservers at an address.
	Owner string
	// ClientSecret names the client's attempt at validating ID (CheckClientSecret).
	ClientSecret string
	// SendAttempt is the client's count: a number above the last one that was
	// sent for the same ID and ClientSecret brings another message, any other
	// number none.
	SendAttempt int64
	// NextLink is where the person goes after following a mailed link; empty for
	// nowhere (CheckNextLink).
	NextLink string
	// Homeserver is the server name of who asks, empty if that is not known.
	Homeserver string
	// Brand and Language choose the wording of the message; both may be empty.
	Brand, Language string
}

// String returns the redacted ID.
func (r Request) String() string { return "request for " + r.ID.String() }

// Format writes String for every verb and flag.
func (r Request) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, r.String()) }

// LogValue logs String.
func (r Request) LogValue() slog.Value { return slog.StringValue(r.String()) }

// MarshalText returns String, for log handlers that walk a structure.
func (r Request) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// Session is a validated session. It prints and logs as its redacted ID.
type Session struct {
	SID string
	ID  threepid.ID
	// Owner is that of the Request.
	Owner string
	// OriginalSpelling is that of the Request whose message was sent last.
	OriginalSpelling string
	// NextLink is where to send the person, the sid already added to it; empty if
	// the client named no place.
	NextLink string
	// Again says that the session had been validated by this token before.
	Again bool
	// ValidatedAt is when the token came back, to the millisecond.
	ValidatedAt time.Time
}

// String returns the redacted ID.
func (s Session) String() string { return "session of " + s.ID.String() }

// Format writes String for every verb and flag.
func (s Session) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue logs String.
func (s Session) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText returns String, for log handlers that walk a structure.
func (s Session) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
