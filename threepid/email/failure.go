package email

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/textproto"
	"regexp"

	"github.com/matrix-herald/herald/threepid"
	"github.com/matrix-herald/herald/threepid/sending"
)

// enhanced is the status code of RFC 3463 at the beginning of an answer, and
// noMailbox those that lie with the recipient: no such mailbox or domain, moved,
// disabled, and Exchange's "recipient not found".
var (
	enhanced  = regexp.MustCompile(`^[245]\.\d{1,3}\.\d{1,3}\b`)
	noMailbox = regexp.MustCompile(`^5\.(1\.([1236]|10)|2\.1)$`)
)

// explain says what went wrong during a step of the conversation, after whose time if
// it was late. What the relay said is in it as it was said.
func explain(step string, late bool, err error) *sending.Failure {
	var (
		own   *sending.Failure
		reply *textproto.Error
		alert tls.AlertError
		plain tls.RecordHeaderError
		cert  *tls.CertificateVerificationError
	)
	switch {
	case errors.As(err, &reply):
		return explainReply(step, reply)
	case late:
		return sending.Failed(sending.Timeout, "time ran out at "+step)
	case errors.As(err, &own):
		return own
	}
	f := sending.Failed(sending.Lost, "the connection to the relay broke at "+step)
	switch {
	case errors.As(err, &cert), errors.As(err, &alert), errors.As(err, &plain):
		f = sending.Failed(sending.TLS, "there is no safe TLS connection to the relay")
	case step == stepConnect:
		f = sending.Failed(sending.Unreachable, "the relay cannot be reached")
	}
	f.Said = err.Error()
	return f
}

func explainReply(step string, reply *textproto.Error) *sending.Failure {
	f := sending.Failed(sending.Deferred, fmt.Sprintf("the relay answered %d", reply.Code))
	f.Said = reply.Msg
	status := enhanced.FindString(reply.Msg)
	if status != "" {
		f.Reason += " " + status
	}
	f.Reason += " at " + step
	switch {
	case reply.Code < 500:
	case step == stepAuth:
		f.Outcome = sending.Auth
	case (step == stepRcpt || step == stepEnd) && noMailbox.MatchString(status):
		f.Outcome, f.Kind = sending.NoRecipient, threepid.ErrNoMailbox
	default:
		f.Outcome = sending.Refused
	}
	return f
}
