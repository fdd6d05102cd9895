package threepidtest_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/threepid/threepidtest"
)

const mail = "From: is@is.example\r\nTo: alice@example.org\r\nSubject: =?utf-8?q?Zo=C3=AB?=\r\n" +
	"Content-Type: multipart/alternative; boundary=x\r\n\r\n" +
	"--x\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\ncode =C3=A9=\r\n42\r\n" +
	"--x\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\nPGI+NDI8L2I+\r\n--x--\r\n"

func dial(t *testing.T, relay *threepidtest.SMTP, opts threepidtest.SMTPOptions) (*smtp.Client, error) {
	t.Helper()
	addr := net.JoinHostPort(relay.Host, strconv.Itoa(relay.Port))
	config := &tls.Config{ServerName: relay.Host, RootCAs: relay.RootCAs}
	switch {
	case opts.PlainText:
		return smtp.Dial(addr)
	case opts.ImplicitTLS:
		return smtp.DialTLS(addr, config)
	default:
		return smtp.DialStartTLS(addr, config)
	}
}

func send(t *testing.T, relay *threepidtest.SMTP, opts threepidtest.SMTPOptions, to string) error {
	t.Helper()
	c, err := dial(t, relay, opts)
	if err != nil {
		return err
	}
	defer c.Close()
	if opts.Username != "" {
		if err := c.Auth(sasl.NewPlainClient("", opts.Username, opts.Password)); err != nil {
			return err
		}
	}
	if err := c.Mail("is@is.example", &smtp.MailOptions{UTF8: opts.UTF8}); err != nil {
		return err
	}
	if err := c.Rcpt(to, nil); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write([]byte(mail)); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return c.Quit()
}

func TestTheRelayKeepsWhatItAccepts(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		opts threepidtest.SMTPOptions
		to   string
		want threepidtest.Message
	}{
		"with STARTTLS":     {threepidtest.SMTPOptions{}, "alice@example.org", threepidtest.Message{TLS: true}},
		"with implicit TLS": {threepidtest.SMTPOptions{ImplicitTLS: true}, "alice@example.org", threepidtest.Message{TLS: true}},
		"without TLS":       {threepidtest.SMTPOptions{PlainText: true}, "alice@example.org", threepidtest.Message{}},
		"with a password": {
			threepidtest.SMTPOptions{Username: "is", Password: "secret"}, "alice@example.org", threepidtest.Message{TLS: true, Username: "is"},
		},
		"with a password and without TLS": {
			threepidtest.SMTPOptions{PlainText: true, Username: "is", Password: "secret"}, "alice@example.org", threepidtest.Message{Username: "is"},
		},
		"with SMTPUTF8": {threepidtest.SMTPOptions{UTF8: true}, "zoë@example.org", threepidtest.Message{TLS: true, UTF8: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			relay := threepidtest.NewSMTP(t, tc.opts)
			if err := send(t, relay, tc.opts, tc.to); err != nil {
				t.Fatal(err)
			}
			tc.want.From, tc.want.To, tc.want.Data = "is@is.example", []string{tc.to}, []byte(mail)
			if d := cmp.Diff([]threepidtest.Message{tc.want}, relay.Wait(t, 1)); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			got := relay.Messages()[0]
			if got.Header(t, "subject") != "Zoë" || got.Text(t) != "code é42" || got.HTML(t) != "<b>42</b>" {
				t.Errorf("subject %q, text %q, HTML %q", got.Header(t, "subject"), got.Text(t), got.HTML(t))
			}
		})
	}
}

func TestTheRelayRefusesWhatItDoesNotOffer(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ server, client threepidtest.SMTPOptions }{
		"a wrong password": {
			threepidtest.SMTPOptions{Username: "is", Password: "secret"}, threepidtest.SMTPOptions{Username: "is", Password: "wrong"},
		},
		"no password":                    {threepidtest.SMTPOptions{Username: "is", Password: "secret"}, threepidtest.SMTPOptions{}},
		"STARTTLS on a plain-text relay": {threepidtest.SMTPOptions{PlainText: true}, threepidtest.SMTPOptions{}},
		"SMTPUTF8":                       {threepidtest.SMTPOptions{}, threepidtest.SMTPOptions{UTF8: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			relay := threepidtest.NewSMTP(t, tc.server)
			if err := send(t, relay, tc.client, "alice@example.org"); err == nil {
				t.Error("the mail was accepted")
			}
			if n := len(relay.Messages()); n != 0 {
				t.Errorf("%d messages", n)
			}
		})
	}
}

func TestOnlyTheRelaysOwnCAVouchesForIt(t *testing.T) {
	t.Parallel()
	relay, other := threepidtest.NewSMTP(t, threepidtest.SMTPOptions{}), threepidtest.NewSMTP(t, threepidtest.SMTPOptions{})
	pem, err := os.ReadFile(relay.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	fromFile := x509.NewCertPool()
	if !fromFile.AppendCertsFromPEM(pem) {
		t.Fatal("no certificate in the CA file")
	}
	for name, tc := range map[string]struct {
		roots *x509.CertPool
		ok    bool
	}{
		"the pool": {relay.RootCAs, true}, "the file": {fromFile, true}, "another relay's": {other.RootCAs, false},
	} {
		c, err := smtp.DialStartTLS(net.JoinHostPort("127.0.0.1", strconv.Itoa(relay.Port)), &tls.Config{ServerName: "127.0.0.1", RootCAs: tc.roots})
		if err == nil {
			err = errors.Join(c.Noop(), c.Close())
		}
		if (err == nil) != tc.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFaultsStrikeOnceAtTheirStage(t *testing.T) {
	t.Parallel()
	relay := threepidtest.NewSMTP(t, threepidtest.SMTPOptions{})
	for _, stage := range []threepidtest.Stage{threepidtest.Hello, threepidtest.Mail, threepidtest.Recipient, threepidtest.Data} {
		relay.Fail(
			threepidtest.Fault{At: stage, Reply: &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 7, 1}, Message: "later"}},
			threepidtest.Fault{At: stage, Cut: true},
		)
		var refusal *smtp.SMTPError
		if err := send(t, relay, threepidtest.SMTPOptions{}, "alice@example.org"); !errors.As(err, &refusal) || refusal.Code != 451 {
			t.Errorf("stage %d, refusal: %v", stage, err)
		}
		if err := send(t, relay, threepidtest.SMTPOptions{}, "alice@example.org"); err == nil || errors.As(err, &refusal) {
			t.Errorf("stage %d, cut: %v", stage, err)
		}
		if err := send(t, relay, threepidtest.SMTPOptions{}, "alice@example.org"); err != nil {
			t.Errorf("stage %d, without a fault: %v", stage, err)
		}
	}
	relay.WaitFaults(t, 8)
	if n := len(relay.Messages()); n != 4 {
		t.Errorf("%d messages", n)
	}
}

func TestAHeldConversationGoesOnWhenItIsReleased(t *testing.T) {
	t.Parallel()
	relay := threepidtest.NewSMTP(t, threepidtest.SMTPOptions{})
	release, sent := make(chan struct{}), make(chan error, 1)
	relay.Fail(threepidtest.Fault{At: threepidtest.Data, Until: release}, threepidtest.Fault{At: threepidtest.Mail, Delay: time.Millisecond})
	go func() { sent <- send(t, relay, threepidtest.SMTPOptions{}, "alice@example.org") }()
	relay.WaitFaults(t, 2)
	if n := len(relay.Messages()); n != 0 {
		t.Errorf("%d messages while the conversation is held", n)
	}
	close(release)
	if err := <-sent; err != nil {
		t.Error(err)
	}
	relay.Wait(t, 1)
}

func TestTheEndOfATestEndsHeldConversations(t *testing.T) {
	t.Parallel()
	sent := make(chan error, 1)
	t.Run("inner", func(t *testing.T) {
		relay := threepidtest.NewSMTP(t, threepidtest.SMTPOptions{PlainText: true})
		relay.Fail(threepidtest.Fault{At: threepidtest.Hello, Until: make(chan struct{})}, threepidtest.Fault{At: threepidtest.Hello, Delay: time.Hour})
		for range 2 {
			c, err := net.Dial("tcp", net.JoinHostPort(relay.Host, strconv.Itoa(relay.Port)))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Write([]byte("EHLO x\r\n")); err != nil {
				t.Fatal(err)
			}
			go func() {
				_, err := c.Read(make([]byte, 1<<10))
				for err == nil {
					_, err = c.Read(make([]byte, 1<<10))
				}
				sent <- c.Close()
			}()
		}
		relay.WaitFaults(t, 2)
	})
	for range 2 {
		if err := <-sent; err != nil {
			t.Error(err)
		}
	}
}

func TestAMessageThatHasNoSuchPart(t *testing.T) {
	t.Parallel()
	m := threepidtest.Message{Data: []byte(strings.Replace(mail, "text/html", "text/plain", 1))}
	if got := m.HTML(t); got != "" {
		t.Errorf("HTML %q", got)
	}
	plain := threepidtest.Message{Data: []byte("Content-Type: text/plain\r\n\r\nhello\r\n")}
	if got := plain.Text(t); got != "hello\r\n" {
		t.Errorf("text %q", got)
	}
	if got := plain.Header(t, "Subject"); got != "" {
		t.Errorf("subject %q", got)
	}
}

func TestTheRelayAsksForItsPasswordAndCountsConnections(t *testing.T) {
	t.Parallel()
	opts := threepidtest.SMTPOptions{Username: "is", Password: "secret", Mechanism: "LOGIN"}
	relay := threepidtest.NewSMTP(t, opts)
	for _, password := range []string{"secret", "wrong"} {
		c, err := dial(t, relay, opts)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.Auth(sasl.NewLoginClient("is", password)); (err == nil) != (password == "secret") {
			t.Errorf("password %s: %v", password, err)
		}
	}
	if n := relay.Connections(); n != 2 {
		t.Errorf("%d connections", n)
	}
}
