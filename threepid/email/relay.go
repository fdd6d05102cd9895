package email

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/textproto"
	"slices"
	"strings"
	"time"

	"github.com/wneessen/go-mail/log"
	"github.com/wneessen/go-mail/smtp"

	"github.com/matrix-herald/herald/threepid/sending"
)

// maxAnswers bounds what a relay may answer during one mail in bytes, its TLS
// handshake included.
const maxAnswers = 256 << 10

// farewell is how long saying goodbye to a relay may take.
const farewell = time.Second

// The steps of a conversation with the relay, for messages.
const (
	stepToken    = "the access token"
	stepConnect  = "connecting"
	stepGreeting = "the greeting"
	stepHello    = "EHLO"
	stepStartTLS = "STARTTLS"
	stepAuth     = "AUTH"
	stepMail     = "MAIL"
	stepRcpt     = "RCPT"
	stepData     = "DATA"
	stepEnd      = "the end of DATA" // from here on the relay may have taken the mail
)

// relay hands mail to an SMTP relay, each mail over a connection of its own: relays
// close connections that idle and refuse what comes after some number of mails, each
// in its own way.
type relay struct {
	settings
	addr string
	tls  *tls.Config // nil for none
	now  func() time.Time
	// tokens are what to log in with, nil for a password.
	tokens *tokens
}

func newRelay(s settings, ehlo string, now func() time.Time) (*relay, error) {
	s.EHLO = cmp.Or(s.EHLO, ehlo)
	r := &relay{settings: s, addr: net.JoinHostPort(s.host, s.port), now: now}
	if s.TLS == TLSNone {
		return r, nil
	}
	r.tls = &tls.Config{ServerName: s.host, MinVersion: tls.VersionTLS12, RootCAs: s.RootCAs}
	var err error
	if s.Auth == AuthXOAUTH2 {
		r.tokens, err = newTokens(s.OAuth2, s.Username, r.tls)
	}
	return r, err
}

// deliver implements transport. What the relay has neither taken nor refused for good
// in the first half of the time is tried once more: nothing is lost then but time.
func (r *relay) deliver(ctx context.Context, m message) error {
	data, err := encode(m, r.now())
	if err != nil {
		return sending.Failed(sending.Invalid, "the mail could not be encoded")
	}
	half, cancel := context.WithTimeout(ctx, r.Timeout.Std()/2)
	defer cancel()
	c := &conn{relay: r, message: m}
	f, final := c.attempt(ctx, half, data)
	if f != nil && !final && ctx.Err() == nil {
		f, _ = c.attempt(ctx, ctx, data)
	}
	if f != nil {
		return f
	}
	return nil
}

// conn is a connection to the relay for one mail, and then another one.
type conn struct {
	*relay
	message

	raw    net.Conn
	client *smtp.Client
	step   string // the last one that was begun
	// token is the access token, and refused one that the relay did not take.
	token, refused string
}

// attempt sends the mail over a new connection. It gives up when early ends before
// the whole mail is with the relay, and after that when ctx does. It reports whether
// another attempt would be in vain, or could make it two mails.
func (c *conn) attempt(ctx, early context.Context, data []byte) (f *sending.Failure, final bool) {
	err := c.dial(early)
	if err == nil {
		err = c.transfer(ctx, early, data)
	}
	if reply, ok := errors.AsType[*textproto.Error](err); ok {
		c.say("< %d %s", reply.Code, reply.Msg) // the mail client shows only what it expects
	} else if err != nil {
		c.say("%v", err)
	}
	c.quit()
	if err == nil {
		return nil, true
	}
	f = explain(c.step, ctx.Err() != nil || early.Err() != nil && c.step != stepEnd, err)
	f.Said = sending.Redact(f.Said, c.private...)
	switch f.Outcome {
	case sending.Auth:
		// A token may have been called back before its time.
		used := c.token
		final = used == "" || c.refused != ""
		c.refused = used
		return f, final
	case sending.Deferred, sending.Unavailable:
		return f, false
	case sending.Unreachable, sending.Lost, sending.Timeout:
		return f, c.step == stepEnd
	default:
		return f, true
	}
}

// probe talks to the relay up to the point where it takes mail, and hands over none.
func (r *relay) probe(ctx context.Context) error {
	c := &conn{relay: r, message: message{say: func(string, ...any) {}}}
	err := c.dial(ctx)
	if err == nil {
		stop := context.AfterFunc(ctx, func() { c.raw.Close() })
		err = c.open(ctx)
		stop()
		c.quit()
	}
	if err == nil {
		return nil
	}
	return explain(c.step, ctx.Err() != nil, err)
}

func (c *conn) dial(ctx context.Context) (err error) {
	c.raw, c.client = nil, nil
	if c.tokens != nil {
		c.step = stepToken
		c.say("the access token")
		if c.token, err = c.tokens.get(ctx, c.refused); err != nil {
			return err
		}
	}
	c.step = stepConnect
	c.say("connecting to %s", c.addr)
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", c.addr)
	if err != nil {
		return err
	}
	c.say("connected to %v", raw.RemoteAddr())
	c.raw = &bounded{raw, maxAnswers}
	return nil
}

// transfer hands over the mail.
func (c *conn) transfer(ctx, early context.Context, data []byte) error {
	hangUp := func() { c.raw.Close() } // the mail client knows no contexts
	stop := context.AfterFunc(early, hangUp)
	defer stop()
	if err := c.open(early); err != nil {
		return err
	}
	body, err := c.offer(data)
	if err != nil {
		return err
	}
	if !stop() {
		return early.Err()
	}
	defer context.AfterFunc(ctx, hangUp)()
	c.step = stepEnd
	c.say("> (the mail)")
	if err := body.Close(); err != nil { // reads the relay's word
		return err
	}
	if taken, ok := body.(*smtp.DataCloser); ok {
		c.say("< 250 %s", taken.ServerResponse())
	}
	return nil
}

// open talks to the relay up to the point where it takes mail.
func (c *conn) open(ctx context.Context) (err error) {
	wire := c.raw
	if c.TLS == TLSImplicit {
		secure := tls.Client(wire, c.tls)
		if err := secure.HandshakeContext(ctx); err != nil {
			return err
		}
		wire = secure
	}
	c.step = stepGreeting
	if c.client, err = smtp.NewClient(wire, c.host); err != nil {
		return err
	}
	c.say("greeted")
	c.client.SetLogger(transcript(c.say))
	c.client.SetDebugLog(true)
	c.step = stepHello
	if err := c.client.Hello(c.EHLO); err != nil {
		return err
	}
	if c.TLS == TLSStart {
		c.step = stepStartTLS
		if ok, _ := c.client.Extension("STARTTLS"); !ok {
			return sending.Failed(sending.TLS, "the relay does not offer STARTTLS")
		}
		if err := c.client.StartTLS(c.tls); err != nil {
			return err
		}
	}
	if state, ok := c.client.TLSConnectionState(); ok {
		c.say("%s", tls.VersionName(state.Version))
	}
	if c.Username == "" {
		return nil
	}
	c.step = stepAuth
	return c.login()
}

// login authenticates in the configured way, or the first that the relay offers. The
// library shows no password without TLS but to this machine, and the configuration
// wants to be told so even then.
func (c *conn) login() error {
	password := c.Password.Reveal()
	ways := []string{AuthPlain, AuthLogin}
	if c.Auth != AuthAuto {
		ways = []string{c.Auth}
	}
	_, offered := c.client.Extension("AUTH")
	for _, way := range ways {
		if !slices.Contains(strings.Fields(strings.ToLower(offered)), way) {
			continue
		}
		switch way {
		case AuthXOAUTH2:
			return c.client.Auth(smtp.XOAuth2Auth(c.Username, c.token))
		case AuthLogin:
			return c.client.Auth(smtp.LoginAuth(c.Username, password, c.host, false))
		default:
			return c.client.Auth(smtp.PlainAuth("", c.Username, password, c.host, false))
		}
	}
	f := sending.Failed(sending.Auth, "the relay offers no suitable way to log in")
	f.Said = "AUTH " + offered
	return f
}

// offer names the sender and the recipient and writes the mail but for its end.
func (c *conn) offer(data []byte) (io.WriteCloser, error) {
	c.step = stepMail
	// Asking for SMTPUTF8 without need would fail at a later relay without it.
	utf8 := needsUTF8(c.to)
	if ok, _ := c.client.Extension("SMTPUTF8"); utf8 && !ok {
		return nil, sending.Failed(sending.NoUTF8, "the relay does not offer SMTPUTF8, which the address needs")
	}
	c.client.SkipSMTPUTF8(!utf8)
	if err := c.client.Mail("<" + c.from.Address + ">"); err != nil {
		return nil, err
	}
	c.step = stepRcpt
	if err := c.client.Rcpt("<" + c.to + ">"); err != nil {
		return nil, err
	}
	c.step = stepData
	body, err := c.client.Data()
	if err != nil {
		return nil, err
	}
	_, err = body.Write(data)
	return body, err
}

// quit says goodbye, whatever the answer, and hangs up.
func (c *conn) quit() {
	if c.client != nil {
		_ = c.raw.SetDeadline(time.Now().Add(farewell))
		_ = c.client.Quit()
	}
	if c.raw != nil {
		c.raw.Close()
	}
}

// transcript shows what goes over a connection, but for passwords and mails.
type transcript func(format string, args ...any)

// Debugf implements log.Logger.
func (t transcript) Debugf(l log.Log) {
	direction := "> "
	if l.Direction == log.DirServerToClient {
		direction = "< "
	}
	t(direction+l.Format, l.Messages...)
}

// Infof implements log.Logger, as do the others; the client uses Debugf alone.
func (t transcript) Infof(l log.Log) { t.Debugf(l) }

// Warnf implements log.Logger.
func (t transcript) Warnf(l log.Log) { t.Debugf(l) }

// Errorf implements log.Logger.
func (t transcript) Errorf(l log.Log) { t.Debugf(l) }

// bounded is a connection that stops reading after a while.
type bounded struct {
	net.Conn
	left int
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errors.New("answer too long")
	}
	n, err := b.Conn.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}
