package validation

import (
	"errors"
	"fmt"
)

// Errors of Sessions. Those of a Messenger (threepid.ErrSend,
// threepid.ErrDestinationRejected, threepid.ErrBusy) are passed on as they are.
var (
	// ErrTokenIncorrect means that the token is wrong, has been replaced by a
	// newer one, is too old, or was guessed at too often. The session lives: a
	// higher send_attempt brings a new token.
	ErrTokenIncorrect = errors.New("the validation token is incorrect")
	// ErrSpent is an ErrTokenIncorrect: no token of the session can be used any
	// more, not even the right one, after too many wrong guesses or too much time.
	ErrSpent = fmt.Errorf("no token can be used any more: %w", ErrTokenIncorrect)

	// ErrInvalidSecret means that a client_secret breaks the rule of
	// CheckClientSecret.
	ErrInvalidSecret = errors.New("client_secret must be 1 to 255 characters of 0-9, a-z, A-Z and .=_-")
	// ErrInvalidSID means that a sid breaks the rule of CheckSID.
	ErrInvalidSID = errors.New("sid must be 1 to 255 characters of 0-9, a-z, A-Z and .=_-")
	// ErrInvalidNextLink means that a next_link is no web address that CheckNextLink allows.
	ErrInvalidNextLink = errors.New("next_link must be an http or https URL that this service allows")
)
