package email

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"os"
	"regexp"

	"github.com/matrix-herald/herald/threepid"
)

// outcome is what became of a mail, as a label of metrics.
type outcome string

const (
	outcomeSent        outcome = "sent"
	outcomeBusy        outcome = "busy"        // no free slot
	outcomeDisabled    outcome = "disabled"    // no relay is configured
	outcomeInvalid     outcome = "invalid"     // no mail could be made of it
	outcomeUnreachable outcome = "unreachable" // no connection to the relay
	outcomeTLS         outcome = "tls"         // no STARTTLS, or a bad certificate
	outcomeAuth        outcome = "auth"        // the relay does not take the password
	outcomeNoUTF8      outcome = "no_smtputf8" // the address needs SMTPUTF8 and the relay has none
	outcomeDeferred    outcome = "deferred"    // the relay answered 4xx
	outcomeRefused     outcome = "refused"     // the relay answered 5xx
	outcomeLost        outcome = "lost"        // the connection broke
	outcomeTimeout     outcome = "timeout"     // no time left
)

// outcomes lists them all.
func outcomes() []outcome {
	return []outcome{
		outcomeSent, outcomeBusy, outcomeDisabled, outcomeInvalid, outcomeUnreachable, outcomeTLS, outcomeAuth,
		outcomeNoUTF8, outcomeDeferred, outcomeRefused, outcomeLost, outcomeTimeout,
	}
}

// failure is a mail that was not sent. Its text is put together from parts that
// hold no address: what relays answer quotes the recipient.
type failure struct {
	outcome outcome
	reason  string
}

func (f *failure) Error() string { return threepid.ErrSend.Error() + ": " + f.reason }

// Unwrap returns threepid.ErrSend and not the cause: a deadline of ours is not
// one of the caller's.
func (f *failure) Unwrap() error { return threepid.ErrSend }

// errNoTLS means that the relay does not offer STARTTLS.
var errNoTLS = errors.New("the relay does not offer STARTTLS")

// errNoAuth means that the relay offers no way to log in that may be used.
var errNoAuth = errors.New("the relay offers no suitable way to log in")

// enhanced is the status code of RFC 3463 at the beginning of an answer.
var enhanced = regexp.MustCompile(`^[245]\.\d{1,3}\.\d{1,3}\b`)

// failed says what went wrong during a step of the conversation.
func failed(ctx context.Context, step string, err error) *failure {
	var (
		reply *textproto.Error
		alert tls.AlertError
		plain tls.RecordHeaderError
		cert  *tls.CertificateVerificationError
	)
	switch {
	case ctx.Err() != nil, errors.Is(err, os.ErrDeadlineExceeded):
		return &failure{outcomeTimeout, "time ran out at " + step}
	case errors.Is(err, errNoTLS):
		return &failure{outcomeTLS, err.Error()}
	case errors.Is(err, errNoAuth):
		return &failure{outcomeAuth, err.Error()}
	case errors.As(err, &cert):
		return &failure{outcomeTLS, describeCertificate(cert.Err)}
	case errors.As(err, &alert), errors.As(err, &plain):
		return &failure{outcomeTLS, "no TLS connection to the relay"}
	case errors.As(err, &reply):
		text := fmt.Sprintf("the relay answered %d", reply.Code)
		if code := enhanced.FindString(reply.Msg); code != "" {
			text += " " + code
		}
		o := outcomeDeferred
		switch {
		case step == stepAuth:
			o = outcomeAuth
		case reply.Code >= 500:
			o = outcomeRefused
		}
		return &failure{o, text + " at " + step}
	case step == stepConnect:
		return &failure{outcomeUnreachable, "the relay cannot be reached: " + describeDial(err)}
	default:
		return &failure{outcomeLost, "the connection to the relay broke at " + step}
	}
}

func describeCertificate(err error) string {
	var (
		host    x509.HostnameError
		unknown x509.UnknownAuthorityError
	)
	switch {
	case errors.As(err, &host):
		return "the relay's certificate is for another name"
	case errors.As(err, &unknown):
		return "the relay's certificate is from an unknown authority"
	default:
		return "the relay's certificate is not valid"
	}
}

func describeDial(err error) string {
	var (
		dns *net.DNSError
		op  *net.OpError
	)
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return "no such host"
	case errors.As(err, &dns):
		return "name lookup failed"
	case errors.As(err, &op):
		return op.Err.Error()
	default:
		return "connection failed"
	}
}
