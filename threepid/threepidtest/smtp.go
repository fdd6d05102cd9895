package threepidtest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
)

// SMTPOptions say what an SMTP relay offers. The zero value is a relay with
// STARTTLS that asks for no password.
type SMTPOptions struct {
	ImplicitTLS bool // TLS from the first byte instead of STARTTLS
	PlainText   bool // no TLS at all
	UTF8        bool // offers SMTPUTF8
	MailsEach   int  // mails that it takes over a connection, 0 for any number
	// Handshake is how long a TLS handshake takes longer than it must.
	Handshake time.Duration
	// Username and Password are asked for if Username is set, in the way of
	// Mechanism: PLAIN, the default, LOGIN or XOAUTH2, whose password is an access
	// token.
	Username, Password, Mechanism string
	// Current, unless nil, says what Password is now.
	Current func() string
}

// Stage is a moment of an SMTP conversation at which a Fault strikes.
type Stage int

// The stages, in the order of a conversation: on EHLO, on MAIL FROM, on each
// RCPT TO, and after the message has been received, before it is kept.
const (
	Hello Stage = iota
	Mail
	Recipient
	Data
)

// Fault is one misbehaviour of the relay. It first waits for Delay, then for
// Until to be closed (nil: not at all); then it cuts the connection, or answers
// with Reply. With neither the conversation goes on.
type Fault struct {
	At    Stage
	Delay time.Duration
	Until <-chan struct{}
	Cut   bool
	Reply *smtp.SMTPError
}

// SMTP is a running relay. It stops when the test ends.
type SMTP struct {
	Addr    string         // localhost:port; the certificate is for 127.0.0.1 too
	RootCAs *x509.CertPool // trusts the relay's certificate
	CAFile  string         // the same, as a PEM file

	opts     SMTPOptions
	config   *tls.Config
	server   *smtp.Server
	listener *tracked
	messages *journal[Message]
	held     *journal[Stage]
	stop     chan struct{}

	mu     sync.Mutex
	faults []Fault
}

// NewSMTP starts a relay with a certificate of its own CA.
func NewSMTP(t testing.TB, opts SMTPOptions) *SMTP {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ca := newAuthority(t)
	s := &SMTP{
		Addr: fmt.Sprintf("localhost:%d", listener.Addr().(*net.TCPAddr).Port), RootCAs: ca.pool, CAFile: ca.file,
		opts: opts, listener: &tracked{Listener: listener}, messages: newJournal[Message](), held: newJournal[Stage](), stop: make(chan struct{}),
	}
	s.server = smtp.NewServer(smtp.BackendFunc(s.hello))
	s.server.Domain = "localhost"
	s.server.ErrorLog = log.New(io.Discard, "", 0)
	s.server.EnableSMTPUTF8 = opts.UTF8
	s.server.AllowInsecureAuth = opts.PlainText
	s.server.MaxMessageBytes = 1 << 20
	config := &tls.Config{Certificates: []tls.Certificate{ca.certificate}, MinVersion: tls.VersionTLS12}
	s.config = config.Clone()
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		pause(opts.Handshake, nil, s.stop)
		return nil, nil
	}
	var l net.Listener = s.listener
	switch {
	case opts.ImplicitTLS:
		l = tls.NewListener(l, config)
	case !opts.PlainText:
		s.server.TLSConfig = config
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.server.Serve(l) // ends with the listener
	}()
	t.Cleanup(func() {
		close(s.stop)
		_ = s.listener.Close()
		<-served
		s.listener.closeConns()
		// This waits for every conversation. The test's context is over by now.
		_ = s.server.Shutdown(context.WithoutCancel(t.Context()))
	})
	return s
}

// Tokens starts a token endpoint with the relay's certificate. It answers as a gateway
// for text messages does.
func (s *SMTP) Tokens(t testing.TB) *SMS {
	t.Helper()
	return newSMS(t, func(h http.Handler) *httptest.Server {
		server := httptest.NewUnstartedServer(h)
		server.TLS = s.config
		server.Config.ErrorLog = log.New(io.Discard, "", 0)
		server.StartTLS()
		return server
	})
}

// Fail queues faults. Each strikes once, the first of its stage first, whoever
// is connected.
func (s *SMTP) Fail(faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, faults...)
}

// Messages returns what the relay has accepted so far.
func (s *SMTP) Messages() []Message { return s.messages.all() }

// Wait returns the accepted messages once there are n of them. It ends the test
// if they do not come.
func (s *SMTP) Wait(t testing.TB, n int) []Message {
	t.Helper()
	return s.messages.wait(t, n)
}

// WaitFaults returns once n faults have struck, those that still hold their
// conversation included. It ends the test if they do not.
func (s *SMTP) WaitFaults(t testing.TB, n int) {
	t.Helper()
	s.held.wait(t, n)
}

// Connections returns how many connections the relay has accepted so far.
func (s *SMTP) Connections() int { return s.listener.accepted() }

// strike runs the next fault of a stage on a connection.
func (s *SMTP) strike(at Stage, c *smtp.Conn) error {
	s.mu.Lock()
	i := slices.IndexFunc(s.faults, func(f Fault) bool { return f.At == at })
	if i < 0 {
		s.mu.Unlock()
		return nil
	}
	f := s.faults[i]
	s.faults = slices.Delete(s.faults, i, i+1)
	s.mu.Unlock()

	s.held.add(at)
	pause(f.Delay, f.Until, s.stop)
	switch {
	case f.Cut:
		_ = c.Conn().Close()
		return errors.New("the connection was cut")
	case f.Reply != nil:
		return f.Reply
	}
	return nil
}

func (s *SMTP) hello(c *smtp.Conn) (smtp.Session, error) {
	if err := s.strike(Hello, c); err != nil {
		return nil, err
	}
	return &session{relay: s, conn: c}, nil
}

// session is one conversation.
type session struct {
	relay    *SMTP
	conn     *smtp.Conn
	username string
	mails    int
	message  Message
}

func (s *session) Mail(from string, opts *smtp.MailOptions) error {
	if s.relay.opts.Username != "" && s.username == "" {
		return smtp.ErrAuthRequired
	}
	if s.message.From != "" {
		return &smtp.SMTPError{Code: 503, EnhancedCode: smtp.EnhancedCode{5, 5, 1}, Message: "MAIL within MAIL"}
	}
	if s.mails++; s.relay.opts.MailsEach > 0 && s.mails > s.relay.opts.MailsEach {
		return &smtp.SMTPError{Code: 452, EnhancedCode: smtp.EnhancedCode{4, 5, 3}, Message: "too many mails over this connection"}
	}
	if err := s.relay.strike(Mail, s.conn); err != nil {
		return err
	}
	state, secure := s.conn.TLSConnectionState()
	s.message = Message{From: from, UTF8: opts.UTF8, TLS: secure && state.HandshakeComplete, Username: s.username}
	return nil
}

func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	if err := s.relay.strike(Recipient, s.conn); err != nil {
		return err
	}
	s.message.To = append(s.message.To, to)
	return nil
}

func (s *session) Data(r io.Reader) error {
	data, err := io.ReadAll(r) // bounded by MaxMessageBytes
	if err != nil {
		return err
	}
	if err := s.relay.strike(Data, s.conn); err != nil {
		return err
	}
	s.message.Data = data
	s.relay.messages.add(s.message)
	return nil
}

func (s *session) Reset() { s.message = Message{} }

func (s *session) Logout() error { return nil }
