package identity

import (
	"errors"
	"time"
)

// Errors of accounts.
var (
	// ErrUnauthorized means there is no access token, or none that is valid.
	ErrUnauthorized = errors.New("no valid access token")
	// ErrUnknownToken means the token to log out is not valid, or not any more.
	ErrUnknownToken = errors.New("unknown access token")
	// ErrInvalidServerName means a homeserver was named by what is no server name.
	ErrInvalidServerName = errors.New("not a server name")
	// ErrOpenIDRefused means the homeserver does not know the OpenID token.
	ErrOpenIDRefused = errors.New("homeserver refused the OpenID token")
	// ErrOpenIDMismatch means the homeserver answered with something that is not
	// a user of its own.
	ErrOpenIDMismatch = errors.New("homeserver answered for a user who is not its own")
	// ErrUnreachable means that there was no usable answer from the homeserver, for
	// whatever reason: no such host, connection refused, address not allowed,
	// certificate refused, time out, an answer that makes no sense.
	ErrUnreachable = errors.New("homeserver did not give a usable answer")
	// ErrBusy means too many exchanges with homeservers are running already.
	ErrBusy = errors.New("too many requests to homeservers at once")
)

// Errors of binding and unbinding.
var (
	// ErrNotYours means an account asked for what only another user may have.
	ErrNotYours = errors.New("not the account's own user ID")
	// ErrNotItsUser means a homeserver asked for what only another homeserver
	// may have done for its user.
	ErrNotItsUser = errors.New("not a user of the homeserver")
	// ErrWrongDestination means a request is signed for another server.
	ErrWrongDestination = errors.New("request is meant for another server")
	// ErrNotSigned means a request does not prove which homeserver made it.
	ErrNotSigned = errors.New("request is not signed by the homeserver it names")
	// ErrForbidden means the proof does not permit the removal.
	ErrForbidden = errors.New("proof does not permit this")
)

// Errors of invites.
var (
	// ErrNotSender means an account invited in another user's name.
	ErrNotSender = errors.New("not the account's own invite")
	// ErrInvalidRoom means what should be a room ID cannot be one.
	ErrInvalidRoom = errors.New("not a room ID")
	// ErrInvalidUser means what should be a user ID is none.
	ErrInvalidUser = errors.New("not a user ID")
	// ErrMedium means that addresses of this medium cannot be invited.
	ErrMedium = errors.New("medium is not supported")
	// ErrInUse means that the address to invite is bound. The error is an
	// *InUseError.
	ErrInUse = errors.New("address is bound to a user")
	// ErrNoInvite means there is no such invite, or not any more.
	ErrNoInvite = errors.New("no such invite")
	// ErrInviteKey means a private key that is not the invite's.
	ErrInviteKey = errors.New("not the private key of the invite")
)

// InUseError is ErrInUse with the user, who can be invited instead.
type InUseError struct {
	UserID string
}

// Error returns the text of ErrInUse.
func (e *InUseError) Error() string { return ErrInUse.Error() }

// Unwrap returns ErrInUse.
func (e *InUseError) Unwrap() error { return ErrInUse }

// RefusedError means that a homeserver will not take a delivery, now or later.
type RefusedError struct {
	Reason string // in a few words without secrets, such as an errcode
}

// Error names the reason.
func (e *RefusedError) Error() string { return "homeserver refused for good: " + e.Reason }

// LaterError means that a homeserver did not take a delivery, and asks for the
// next attempt not to be before After has passed.
type LaterError struct {
	After time.Duration
	Err   error
}

// Error returns the text of Err.
func (e *LaterError) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *LaterError) Unwrap() error { return e.Err }

// Errors of lookups.
var (
	// ErrBadAlgorithm means the lookup algorithm is unknown or switched off.
	ErrBadAlgorithm = errors.New("unsupported lookup algorithm")
	// ErrTooMany means a lookup has more than MaxLookup addresses.
	ErrTooMany = errors.New("too many addresses")
	// ErrBadPepper means the pepper is not honoured, or not any more. The error
	// is a *BadPepperError.
	ErrBadPepper = errors.New("pepper is not valid")
)

// BadPepperError is ErrBadPepper with what the client needs to try again
// (MSC2134).
type BadPepperError struct {
	Algorithm string
	Pepper    string // the pepper to use
}

// Error returns the text of ErrBadPepper.
func (e *BadPepperError) Error() string { return ErrBadPepper.Error() }

// Unwrap returns ErrBadPepper.
func (e *BadPepperError) Unwrap() error { return ErrBadPepper }

// Errors of keys and of the store.
var (
	// ErrUnavailable means that the database cannot serve anybody now. The error
	// is an *UnavailableError.
	ErrUnavailable = errors.New("database is not available")
	// ErrNoKey means the service has no signing key of that name.
	ErrNoKey = errors.New("no such signing key")
	// ErrServerName means the database belongs to a service with another name. The
	// error is a *ServerNameError.
	ErrServerName = errors.New("database belongs to another server name")
	// ErrNotFound is a store's answer for what is not there.
	ErrNotFound = errors.New("not found")
	// ErrConflict is a store's answer when the state is not, or no longer, the
	// one that a change was meant for.
	ErrConflict = errors.New("changed by somebody else")
)

// UnavailableError is ErrUnavailable with a reason.
type UnavailableError struct {
	Reason string // a few words that anybody may read
	Err    error
}

// Error names the reason and the error behind it.
func (e *UnavailableError) Error() string {
	return ErrUnavailable.Error() + ": " + e.Reason + ": " + e.Err.Error()
}

// PublicReason returns the reason for /ready.
func (e *UnavailableError) PublicReason() string { return e.Reason }

// Unwrap returns ErrUnavailable and the error behind it.
func (e *UnavailableError) Unwrap() []error { return []error{ErrUnavailable, e.Err} }

// ServerNameError is ErrServerName with the name.
type ServerNameError struct {
	Kept string
}

// Error names the other name.
func (e *ServerNameError) Error() string { return ErrServerName.Error() + ", " + e.Kept }

// Unwrap returns ErrServerName.
func (e *ServerNameError) Unwrap() error { return ErrServerName }
