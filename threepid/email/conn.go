package email

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/wneessen/go-mail/smtp"
)

// maxAnswers bounds what a relay may answer during one mail in bytes, its TLS
// handshake included.
const maxAnswers = 256 << 10

// farewell is how long saying goodbye to a relay may take.
const farewell = time.Second

// errNoUTF8 means that the address has letters beyond ASCII before its @ and the
// relay cannot pass it on (RFC 6531).
var errNoUTF8 = errors.New("the relay does not offer SMTPUTF8, which the address needs")

// errTooMuch means that the relay answered more than maxAnswers.
var errTooMuch = errors.New("answer too long")

// conn is one connection to the relay. One goroutine uses it at a time.
type conn struct {
	raw    *bounded
	client *smtp.Client
	used   bool // has sent a mail
	expiry *time.Timer
}

// bounded is a connection that stops reading after a while.
type bounded struct {
	net.Conn
	left int
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errTooMuch
	}
	n, err := b.Conn.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// dial connects, secures the connection and logs in. It returns a *failure.
func (r *relay) dial(ctx context.Context) (*conn, error) {
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", r.addr)
	if err != nil {
		return nil, failed(ctx, stepConnect, err)
	}
	c := &conn{raw: &bounded{raw, maxAnswers}}
	stop := c.closeWith(ctx)
	step, err := r.open(ctx, c)
	if err == nil && !stop() {
		err = ctx.Err()
	}
	if err != nil {
		stop()
		raw.Close()
		return nil, failed(ctx, step, err)
	}
	return c, nil
}

// open talks to the relay up to the point where it takes mail. It returns the
// step that failed.
func (r *relay) open(ctx context.Context, c *conn) (step string, err error) {
	var wire net.Conn = c.raw
	if r.TLS == TLSImplicit {
		secure := tls.Client(wire, r.tls)
		if err := secure.HandshakeContext(ctx); err != nil {
			return stepConnect, err
		}
		wire = secure
	}
	if c.client, err = smtp.NewClient(wire, r.Host); err != nil {
		return stepGreeting, err
	}
	if err := c.client.Hello(r.ehlo); err != nil {
		return stepHello, err
	}
	if r.TLS == TLSStart {
		if ok, _ := c.client.Extension("STARTTLS"); !ok {
			return stepStartTLS, errNoTLS
		}
		if err := c.client.StartTLS(r.tls); err != nil {
			return stepStartTLS, err
		}
	}
	if r.Username != "" {
		return stepAuth, r.login(c.client)
	}
	return stepHello, nil
}

// login authenticates in the configured way. Without TLS, AuthAuto prefers the
// way that does not show the password; the library refuses to show it to
// another machine.
func (r *relay) login(client *smtp.Client) error {
	password := r.Password.Reveal()
	ways := map[string]smtp.Auth{
		AuthPlain:   smtp.PlainAuth("", r.Username, password, r.Host, false),
		AuthLogin:   smtp.LoginAuth(r.Username, password, r.Host, false),
		AuthCRAMMD5: smtp.CRAMMD5Auth(r.Username, password),
	}
	order := []string{AuthPlain, AuthLogin, AuthCRAMMD5}
	switch {
	case r.Auth != AuthAuto:
		order = []string{r.Auth}
	case r.TLS == TLSNone:
		slices.Reverse(order)
	}
	_, extension := client.Extension("AUTH")
	offered := strings.Fields(strings.ToLower(extension))
	for _, way := range order {
		if slices.Contains(offered, way) {
			return client.Auth(ways[way])
		}
	}
	return errNoAuth
}

// transaction sends one mail. It returns the step that failed.
func (c *conn) transaction(m message, data []byte) (step string, err error) {
	c.raw.left = maxAnswers
	if c.used {
		if err := c.client.Reset(); err != nil {
			return stepReset, err
		}
	}
	// Asking for SMTPUTF8 without need would fail at a later relay without it.
	utf8 := needsUTF8(m.to)
	if ok, _ := c.client.Extension("SMTPUTF8"); utf8 && !ok {
		return stepMail, errNoUTF8
	}
	c.client.SkipSMTPUTF8(!utf8)
	if err := c.client.Mail("<" + m.from.Address + ">"); err != nil {
		return stepMail, err
	}
	if err := c.client.Rcpt("<" + m.to + ">"); err != nil {
		return stepRcpt, err
	}
	w, err := c.client.Data()
	if err != nil {
		return stepData, err
	}
	if _, err := w.Write(data); err != nil {
		return stepData, err
	}
	return stepData, w.Close() // reads the relay's word
}

// closeWith closes the connection when ctx ends, since the mail client knows no
// contexts. The function it returns ends this, and reports whether ctx had not.
func (c *conn) closeWith(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() { c.raw.Close() })
}

// quit says goodbye and closes the connection.
func (c *conn) quit() {
	_ = c.raw.SetDeadline(time.Now().Add(farewell))
	_ = c.client.Quit() // the relay may be gone already
	c.raw.Close()
}
