package threepid

import (
	"fmt"
	"io"
	"log/slog"
	"time"
)

// Invitation is what tells an address that somebody invites its owner to a room
// (Identity Service API, "Invitation storage"). It carries the private key with
// which the invitation can be accepted, so it prints, logs and marshals as its
// redacted ID.
type Invitation struct {
	// ID is the address in canonical form.
	ID ID
	// To is where the message goes: an email address with its domain in A-labels.
	To string

	// Token names the invitation, and PrivateKey is the secret half of its key:
	// together they let anybody accept it.
	Token, PrivateKey string

	// Sender is the user ID of who invites, which has been verified. SenderName
	// is what they call themselves, and RoomName what the room is called; both
	// are anybody's words and may be empty.
	Sender, SenderName, RoomName string
	// Space says that the room is a space.
	Space bool

	// Homeserver is the server name of the sender.
	Homeserver string
	// Brand and Language choose the wording; both may be empty. Language is a
	// BCP 47 tag or an Accept-Language list, or several on a line each, the most
	// preferred first.
	Brand, Language string
	// ValidFor is how long the invitation can be accepted from now on.
	ValidFor time.Duration
}

// String returns the redacted ID, never token, key or names.
func (i Invitation) String() string { return "invitation for " + i.ID.String() }

// Format writes String for every verb and flag.
func (i Invitation) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, i.String()) }

// LogValue logs String.
func (i Invitation) LogValue() slog.Value { return slog.StringValue(i.String()) }

// MarshalText returns String, so that a log handler that walks a structure
// shows no more.
func (i Invitation) MarshalText() ([]byte, error) { return []byte(i.String()), nil }
