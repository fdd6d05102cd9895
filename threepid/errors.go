package threepid

import (
	"errors"
	"fmt"
	"time"
)

// Errors of sending a Challenge. Every error of a sender wraps exactly one of
// them, and none names the address or the token.
var (
	// ErrSend means that the relay or provider refused the message, could not be
	// reached, or is not configured; a later attempt may fare better.
	ErrSend = errors.New("the message could not be sent")
	// ErrDestinationRejected means that this service sends nothing to the country
	// of the address, now or later.
	ErrDestinationRejected = errors.New("messages to this destination are not sent")
	// ErrBusy means that nothing was sent because too much is being sent already.
	// It comes inside a *BusyError.
	ErrBusy = errors.New("too many messages are being sent")
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
