package sms

import "github.com/matrix-herald/herald/threepid"

// outcome is what became of a message, as a label of metrics.
type outcome string

const (
	outcomeSent        outcome = "sent"
	outcomeBusy        outcome = "busy"        // no free slot
	outcomeDisabled    outcome = "disabled"    // no provider is configured
	outcomeCountry     outcome = "country"     // nothing is sent there
	outcomeInvalid     outcome = "invalid"     // no message could be made of it
	outcomeUnreachable outcome = "unreachable" // no answer from the provider
	outcomeAuth        outcome = "auth"        // the provider does not know us
	outcomeLimited     outcome = "limited"     // the provider asks for patience
	outcomeUnavailable outcome = "unavailable" // the provider's own fault
	outcomeRefused     outcome = "refused"     // any other answer
	outcomeTimeout     outcome = "timeout"     // no time left
)

// outcomes lists them all.
func outcomes() []outcome {
	return []outcome{
		outcomeSent, outcomeBusy, outcomeDisabled, outcomeCountry, outcomeInvalid, outcomeUnreachable, outcomeAuth,
		outcomeLimited, outcomeUnavailable, outcomeRefused, outcomeTimeout,
	}
}

// failure is a message that was not sent. Its text holds no number and nothing
// of what the provider said in words.
type failure struct {
	outcome outcome
	kind    error // threepid.ErrSend or ErrDestinationRejected
	reason  string
}

func failed(o outcome, reason string) error { return &failure{o, threepid.ErrSend, reason} }

func rejected(o outcome, reason string) error {
	return &failure{o, threepid.ErrDestinationRejected, reason}
}

func (f *failure) Error() string { return f.kind.Error() + ": " + f.reason }

// Unwrap returns the kind and not the cause: a deadline of ours is not one of
// the caller's.
func (f *failure) Unwrap() error { return f.kind }
