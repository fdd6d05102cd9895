package identity

import (
	"time"

	"github.com/matrix-herald/herald/threepid"
)

// About is what is kept of a person, for the operator whom they ask. Each list has
// its oldest or latest hundred rows at most.
type About struct {
	Bindings   []Binding
	Tokens     []time.Time // when each access token was used last
	Terms      []string    // the URLs that the user accepted
	Sessions   []SessionAbout
	Guesses    []GuessesAbout
	Invites    []InviteRecord // sent or taken by the user, or for an address
	Deliveries []DeliveryAbout
	Removals   []RemovalRecord
}

// SessionAbout is a validation session that has not expired for good.
type SessionAbout struct {
	Address     threepid.ID
	Owner       string // who began it, "" if that is not known
	Messages    int64  // the number of the last message that was sent, 0 if none was
	Tries       int    // of its code, in vain
	CodeExpires time.Time
	Validated   time.Time // zero if it was not completed
	Expires     time.Time
}

// GuessesAbout counts the wrong codes for an address in all sessions.
type GuessesAbout struct {
	Address threepid.ID
	Wrong   int
	Since   time.Time
}

// DeliveryAbout is something that a homeserver is still to be told.
type DeliveryAbout struct {
	Binding  Binding
	InviteID int64 // 0 for a binding without an invite
	Attempts int
	Due      time.Time
	Until    time.Time
}
