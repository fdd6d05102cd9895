package threepid

import (
	"errors"
	"fmt"
	"time"
)

// Errors of sending a Challenge. Every error of a sender is ErrSend,
// ErrDestinationRejected or ErrBusy, and none names the address or the token.
var (
	// ErrSend means that the relay or provider refused the message, could not be
	// reached, or is not configured; a later attempt may fare better.
	ErrSend = errors.New("the message could not be sent")
	// ErrMailOff is an ErrSend: there is no relay.
	ErrMailOff = fmt.Errorf("no mail relay is configured: %w", ErrSend)
	// ErrNoRecipient is an ErrSend that lies with the address, so that no later
	// attempt fares better: one of the following four.
	ErrNoRecipient = fmt.Errorf("the address takes no messages: %w", ErrSend)
	// ErrNoMailbox means that the relay knows of no such mailbox.
	ErrNoMailbox = fmt.Errorf("no such mailbox: %w", ErrNoRecipient)
	// ErrNoNumber means that the provider knows of no such telephone number.
	ErrNoNumber = fmt.Errorf("no such telephone number: %w", ErrNoRecipient)
	// ErrLandline means that the number takes no text messages.
	ErrLandline = fmt.Errorf("not a mobile telephone: %w", ErrNoRecipient)
	// ErrOptedOut means that who has the number told the provider to send nothing.
	ErrOptedOut = fmt.Errorf("opted out of text messages: %w", ErrNoRecipient)
	// ErrDestinationRejected means that this service sends nothing to the country
	// of the address, now or later.
	ErrDestinationRejected = errors.New("messages to this destination are not sent")
	// ErrSMSOff is an ErrDestinationRejected: there is no provider.
	ErrSMSOff = fmt.Errorf("no SMS provider is configured: %w", ErrDestinationRejected)
	// ErrBusy means that nothing was sent because too much is being sent already.
	// It comes inside a *BusyError.
	ErrBusy = errors.New("too many messages are being sent")
)

// Errors of validation sessions.
var (
	// ErrNoSession means that there is no session with this sid and
	// client_secret; which of the two is wrong is not told.
	ErrNoSession = errors.New("no such validation session")
	// ErrSessionExpired means that the session's last change is too long ago. Another
	// request for a token begins another session.
	ErrSessionExpired = errors.New("the validation session has expired")
	// ErrNotValidated means that nobody has sent the session's token back yet.
	ErrNotValidated = errors.New("the validation session has not been completed")
)

// BusyError is ErrBusy with the time after which asking again makes sense.
type BusyError struct {
	RetryAfter time.Duration
}

// Error says how long to wait.
func (e *BusyError) Error() string {
	return fmt.Sprintf("%v: try again in %v", ErrBusy, e.RetryAfter)
}

// Unwrap returns ErrBusy.
func (e *BusyError) Unwrap() error { return ErrBusy }
