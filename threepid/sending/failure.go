package sending

import (
	"math"
	"regexp"
	"strings"

	"github.com/matrix-herald/herald/threepid"
	"github.com/matrix-herald/herald/threepid/templates"
)

// Outcome is what became of a message, as a label of metrics.
type Outcome string

// The outcomes.
const (
	Sent        Outcome = "sent"
	Busy        Outcome = "busy"         // no free slot
	Disabled    Outcome = "disabled"     // no relay or provider is configured
	Country     Outcome = "country"      // nothing is sent there
	Invalid     Outcome = "invalid"      // no message could be made of it
	Unreachable Outcome = "unreachable"  // no connection to the relay or provider
	TLS         Outcome = "tls"          // no STARTTLS, or a bad certificate
	Auth        Outcome = "auth"         // the relay or provider does not know us
	NoUTF8      Outcome = "no_smtputf8"  // the address needs SMTPUTF8 and the relay has none
	Limited     Outcome = "limited"      // the provider asks for patience
	Deferred    Outcome = "deferred"     // the relay answered 4xx
	Unavailable Outcome = "unavailable"  // the provider's own fault
	NoRecipient Outcome = "no_recipient" // there is no such mailbox or number, or it takes none
	Refused     Outcome = "refused"      // any other answer
	Lost        Outcome = "lost"         // the connection broke
	Timeout     Outcome = "timeout"      // no time left
)

// Outcomes lists them all.
func Outcomes() []Outcome {
	return []Outcome{
		Sent, Busy, Disabled, Country, Invalid, Unreachable, TLS, Auth, NoUTF8, Limited, Deferred, Unavailable, NoRecipient,
		Refused, Lost, Timeout,
	}
}

// Failure is a message that was not sent.
type Failure struct {
	Outcome Outcome
	// Kind is the error of package threepid that it is.
	Kind error
	// Reason says why, in words that hold no address.
	Reason string
	// Said is what the relay or provider said, for the log alone. Redact makes it.
	Said string
}

// Failed returns a Failure that a later attempt may not meet.
func Failed(o Outcome, reason string) *Failure {
	return &Failure{Outcome: o, Kind: threepid.ErrSend, Reason: reason}
}

// Error says why, and nothing of what others said.
func (f *Failure) Error() string { return f.Kind.Error() + ": " + f.Reason }

// Unwrap returns Kind and not the cause: a deadline of ours is not one of the
// caller's.
func (f *Failure) Unwrap() error { return f.Kind }

// maxSaid is how much of another's words the log takes, in characters.
const maxSaid = 300

// secretive matches addresses and telephone numbers, the former also with their "@"
// escaped. Error codes have fewer digits than telephone numbers.
var secretive = regexp.MustCompile(`(?i)[^\s<>"'()\[\],;:]*(?:@|%40|=40)[^\s<>"'()\[\],;]*|(?:\+|\b)\d(?:[ ()/-]?\d){5,}`)

// Redact returns what a relay or provider said as the log may hold it: on one line,
// not too long, and without addresses, numbers and what else of the message is
// private.
func Redact(said string, private ...string) string {
	said = secretive.ReplaceAllLiteralString(templates.Clean(strings.Join(strings.Fields(said), " "), math.MaxInt), "…")
	for _, p := range private {
		if p = templates.Clean(p, math.MaxInt); len(p) > 2 {
			said = regexp.MustCompile(`(?i)`+regexp.QuoteMeta(p)).ReplaceAllLiteralString(said, "…")
		}
	}
	return templates.Clean(said, maxSaid)
}
