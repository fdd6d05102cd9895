package email

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	netmail "net/mail"
	"net/textproto"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/wneessen/go-mail"

	"github.com/matrix-herald/herald/internal/safehttp"
)

// The steps of a conversation with the relay, for messages.
const (
	stepConnect  = "connecting"
	stepGreeting = "the greeting"
	stepHello    = "EHLO"
	stepStartTLS = "STARTTLS"
	stepAuth     = "AUTH"
	stepReset    = "RSET"
	stepMail     = "MAIL"
	stepRcpt     = "RCPT"
	stepData     = "DATA"
)

// relay hands mail to an SMTP relay.
type relay struct {
	settings
	addr string
	ehlo string
	tls  *tls.Config // nil for none
	now  func() time.Time
	pool pool
}

func newRelay(s settings, ehlo string, now func() time.Time) (*relay, error) {
	r := &relay{
		settings: s, addr: net.JoinHostPort(s.Host, strconv.Itoa(s.Port)), ehlo: s.EHLO, now: now,
		pool: pool{timeout: s.IdleTimeout.Std()},
	}
	orDefault(&r.ehlo, ehlo)
	if s.TLS == TLSNone {
		return r, nil
	}
	r.tls = &tls.Config{ServerName: s.Host, MinVersion: tls.VersionTLS12}
	if s.CAFile != "" {
		pool, err := safehttp.LoadRootCAs(s.CAFile)
		if err != nil {
			return nil, err
		}
		r.tls.RootCAs = pool
	}
	return r, nil
}

func (r *relay) close() { r.pool.close() }

// deliver sends m over an idle connection, or over a new one if there is none
// or it is dead.
func (r *relay) deliver(ctx context.Context, m message) error {
	data, err := encode(m, r.now())
	if err != nil {
		return &failure{outcomeInvalid, "the mail could not be encoded"}
	}
	if c := r.pool.take(); c != nil {
		if err := r.transfer(ctx, c, m, data); !errors.Is(err, errStale) {
			return err
		}
	}
	c, err := r.dial(ctx)
	if err != nil {
		return err
	}
	return r.transfer(ctx, c, m, data)
}

// errStale means that an idle connection turned out to be dead before the relay
// had accepted anything of the mail.
var errStale = errors.New("the connection was dead")

// transfer sends one mail over c and gives c back to the pool, or closes it. It
// returns nil, errStale or a *failure.
func (r *relay) transfer(ctx context.Context, c *conn, m message, data []byte) error {
	stop := c.closeWith(ctx)
	reused := c.used
	step, err := c.transaction(m, data)
	var reply *textproto.Error
	answered := errors.As(err, &reply)
	alive := err == nil || errors.Is(err, errNoUTF8) || answered && reply.Code != 421
	if stop() && alive {
		c.used = true
		r.pool.put(c)
	} else {
		c.raw.Close()
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errNoUTF8):
		return &failure{outcomeNoUTF8, err.Error()}
	case reused && !alive && ctx.Err() == nil && (step == stepReset || step == stepMail):
		return errStale
	}
	return failed(ctx, step, err)
}

// encode writes m as MIME. Every field that a person could choose ends in the
// body, in quoted-printable; the header holds what this service says about
// itself, the subject and the one recipient.
func encode(m message, now time.Time) ([]byte, error) {
	_, domain, _ := strings.Cut(m.from.Address, "@")
	msg := mail.NewMsg(mail.WithNoDefaultUserAgent(), mail.WithEncoding(mail.EncodingQP))
	msg.FromMailAddress(m.from)
	if m.replyTo != nil {
		msg.ReplyToMailAddress(m.replyTo)
	}
	msg.ToMailAddress(&netmail.Address{Address: m.to})
	msg.Subject(m.subject)
	msg.SetDateWithValue(now)
	msg.SetMessageIDWithValue(rand.Text() + "@" + domain)
	// RFC 3834: nobody's out-of-office note is wanted.
	msg.SetGenHeader("Auto-Submitted", "auto-generated")
	msg.SetGenHeader("Content-Language", m.language)
	msg.SetBodyString(mail.TypeTextPlain, m.text+"\n")
	if m.html != "" {
		msg.AddAlternativeString(mail.TypeTextHTML, m.html+"\n")
	}
	var b bytes.Buffer
	if _, err := msg.WriteTo(&b); err != nil {
		return nil, fmt.Errorf("encode mail: %w", err)
	}
	return b.Bytes(), nil
}

// needsUTF8 reports whether an address goes through SMTPUTF8 relays only.
func needsUTF8(address string) bool {
	return strings.ContainsFunc(address, func(r rune) bool { return r >= utf8.RuneSelf })
}
