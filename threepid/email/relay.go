package email

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/textproto"
	"strconv"
	"time"

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
