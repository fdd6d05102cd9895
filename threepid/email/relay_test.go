package email_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/internal/safehttp/safehttptest"
	"github.com/matrix-herald/herald/threepid"
	"github.com/matrix-herald/herald/threepid/email"
	"github.com/matrix-herald/herald/threepid/threepidtest"
)

// reply refuses with a text that quotes the recipient, as relays do.
func reply(code int, enhanced smtp.EnhancedCode) *smtp.SMTPError {
	return &smtp.SMTPError{Code: code, EnhancedCode: enhanced, Message: "<alice@example.org>: no"}
}

func TestWhatTheRelayRefusesIsAnError(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		fault   threepidtest.Fault
		reason  string
		outcome string
	}{
		"421 at EHLO": {threepidtest.Fault{At: threepidtest.Hello, Reply: reply(421, smtp.EnhancedCode{4, 3, 2})}, "421 4.3.2 at EHLO", "deferred"},
		"550 at MAIL": {threepidtest.Fault{At: threepidtest.Mail, Reply: reply(550, smtp.EnhancedCode{5, 7, 1})}, "550 5.7.1 at MAIL", "refused"},
		"421 at MAIL": {threepidtest.Fault{At: threepidtest.Mail, Reply: reply(421, smtp.EnhancedCode{4, 3, 2})}, "421 4.3.2 at MAIL", "deferred"},
		"450 at RCPT": {threepidtest.Fault{At: threepidtest.Recipient, Reply: reply(450, smtp.EnhancedCode{4, 2, 0})}, "450 4.2.0 at RCPT", "deferred"},
		"550 at RCPT": {threepidtest.Fault{At: threepidtest.Recipient, Reply: reply(550, smtp.EnhancedCode{5, 1, 1})}, "550 5.1.1 at RCPT", "refused"},
		"550 in RCPT without an enhanced code": {
			threepidtest.Fault{At: threepidtest.Recipient, Reply: reply(550, smtp.NoEnhancedCode)}, "answered 550 at RCPT", "refused",
		},
		"451 after DATA":     {threepidtest.Fault{At: threepidtest.Data, Reply: reply(451, smtp.EnhancedCode{4, 7, 1})}, "451 4.7.1 at DATA", "deferred"},
		"554 after DATA":     {threepidtest.Fault{At: threepidtest.Data, Reply: reply(554, smtp.EnhancedCode{5, 7, 0})}, "554 5.7.0 at DATA", "refused"},
		"a cut at EHLO":      {threepidtest.Fault{At: threepidtest.Hello, Cut: true}, "broke at EHLO", "lost"},
		"a cut at MAIL":      {threepidtest.Fault{At: threepidtest.Mail, Cut: true}, "broke at MAIL", "lost"},
		"a cut at RCPT":      {threepidtest.Fault{At: threepidtest.Recipient, Cut: true}, "broke at RCPT", "lost"},
		"a cut after DATA":   {threepidtest.Fault{At: threepidtest.Data, Cut: true}, "broke at DATA", "lost"},
		"silence at EHLO":    {threepidtest.Fault{At: threepidtest.Hello, Until: make(chan struct{})}, "time ran out at EHLO", "timeout"},
		"silence at MAIL":    {threepidtest.Fault{At: threepidtest.Mail, Until: make(chan struct{})}, "time ran out at MAIL", "timeout"},
		"silence after DATA": {threepidtest.Fault{At: threepidtest.Data, Until: make(chan struct{})}, "time ran out at DATA", "timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			relay := threepidtest.NewSMTP(t, threepidtest.SMTPOptions{})
			relay.Fail(tc.fault)
			if tc.fault.At == threepidtest.Hello && tc.fault.Reply != nil {
				relay.Fail(tc.fault) // HELO after a refused EHLO
			}
			s := newSender(t, config(relay))
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			result := make(chan error)
			go func() { result <- s.Send(ctx, challenge()) }()
			if tc.fault.Until != nil {
				relay.WaitFaults(t, 1)
				cancel() // the client has gone, or its time is up
			}
			checkSendError(t, <-result, tc.reason)
			s.outcomes(t, tc.outcome, 1)
			if n := len(relay.Messages()); n != 0 {
				t.Errorf("%d mails", n)
			}
			// The next mail does not suffer.
			if err := s.Send(t.Context(), challenge()); err != nil {
				t.Errorf("the next mail: %v", err)
			}
			s.outcomes(t, "sent", 1)
		})
	}
}

func TestSlowIsNotTooSlow(t *testing.T) {
	t.Parallel()
	relay := threepidtest.NewSMTP(t, threepidtest.SMTPOptions{})
	for _, at := range []threepidtest.Stage{threepidtest.Hello, threepidtest.Mail, threepidtest.Recipient, threepidtest.Data} {
		relay.Fail(threepidtest.Fault{At: at, Delay: 20 * time.Millisecond})
	}
	if err := newSender(t, config(relay)).Send(t.Context(), challenge()); err != nil {
		t.Error(err)
	}
}

func TestAMailTakesNoLongerThanItsTimeout(t *testing.T) {
	t.Parallel()
	c := script(t, "")
	c.Timeout = conf.Duration(50 * time.Millisecond)
	s := newSender(t, c)
	checkSendError(t, s.Send(t.Context(), challenge()), "time ran out")
	s.outcomes(t, "timeout", 1)
}

// script runs a relay that says lines: one on connecting and one for each line
// it reads. It then hangs up, or stays silent with "" at the end.
func script(t *testing.T, lines ...string) email.Config {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	stop := make(chan struct{})
	t.Cleanup(func() { close(stop); l.Close(); running.Wait() })
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer c.Close()
				buf := make([]byte, 4096)
				for i, line := range lines {
					if line == "" {
						<-stop
						return
					}
					if _, err := fmt.Fprintf(c, "%s\r\n", line); err != nil {
						return
					}
					if i < len(lines)-1 {
						if _, err := c.Read(buf); err != nil {
							return
						}
					}
				}
			})
		}
	})
	return email.Config{Host: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port, From: "noreply@id.example.org"}
}

func TestARelayThatIsNone(t *testing.T) {
	t.Parallel()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	gone := email.Config{Host: "127.0.0.1", Port: closed.Addr().(*net.TCPAddr).Port, From: "noreply@id.example.org"}
	implicit := script(t, "220 hello")
	implicit.TLS = email.TLSImplicit
	for name, tc := range map[string]struct {
		config  email.Config
		reason  string
		outcome string
	}{
		"nobody listens":               {gone, "connection refused", "unreachable"},
		"421 on connecting":            {script(t, "421 4.3.2 alice go away"), "421 4.3.2 at the greeting", "deferred"},
		"554 on connecting":            {script(t, "554 no service"), "554 at the greeting", "refused"},
		"a cut on connecting":          {script(t), "broke at the greeting", "lost"},
		"another protocol":             {script(t, "SSH-2.0-OpenSSH"), "broke at the greeting", "lost"},
		"no STARTTLS":                  {script(t, "220 hello", "250 hello", ""), "does not offer STARTTLS", "tls"},
		"STARTTLS is refused":          {script(t, "220 hello", "250-hello\r\n250 STARTTLS", "454 4.7.0 no TLS"), "454 4.7.0 at STARTTLS", "deferred"},
		"STARTTLS leads nowhere":       {script(t, "220 hello", "250-hello\r\n250 STARTTLS", "220 go", "not TLS"), "no TLS connection", "tls"},
		"plain text where TLS belongs": {implicit, "no TLS connection", "tls"},
		"an answer without end":        {script(t, "220 "+strings.Repeat("x", 300<<10)), "broke at the greeting", "lost"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSender(t, tc.config)
			checkSendError(t, s.Send(t.Context(), challenge()), tc.reason)
			s.outcomes(t, tc.outcome, 1)
		})
	}
}

func TestCertificatesAreVerified(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string]threepidtest.SMTPOptions{"with STARTTLS": {}, "with TLS": {ImplicitTLS: true}} {
		relay := threepidtest.NewSMTP(t, opts)
		good := config(relay)
		if opts.ImplicitTLS {
			good.TLS = email.TLSImplicit
		}
		if err := newSender(t, good).Send(t.Context(), challenge()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		unknown := good
		unknown.CAFile = ""
		s := newSender(t, unknown)
		checkSendError(t, s.Send(t.Context(), challenge()), "unknown authority")
		s.outcomes(t, "tls", 1)
		if n := len(relay.Messages()); n != 1 {
			t.Errorf("%s: %d mails", name, n)
		}
	}
}

func TestTLSModes(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		relay threepidtest.SMTPOptions
		mode  string
		ok    bool
	}{
		"STARTTLS":                     {threepidtest.SMTPOptions{}, email.TLSStart, true},
		"STARTTLS where there is none": {threepidtest.SMTPOptions{PlainText: true}, email.TLSStart, false},
		"TLS":                          {threepidtest.SMTPOptions{ImplicitTLS: true}, email.TLSImplicit, true},
		"none":                         {threepidtest.SMTPOptions{PlainText: true}, email.TLSNone, true},
		"none although there is some":  {threepidtest.SMTPOptions{}, email.TLSNone, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			relay := threepidtest.NewSMTP(t, tc.relay)
			c := config(relay)
			c.TLS = tc.mode
			if tc.mode == email.TLSNone {
				c.CAFile = ""
			}
			if err := newSender(t, c).Send(t.Context(), challenge()); (err == nil) != tc.ok {
				t.Errorf("got %v", err)
			}
			if m := relay.Messages(); tc.ok && m[0].TLS != (tc.mode != email.TLSNone) {
				t.Errorf("TLS: %v", m[0].TLS)
			}
		})
	}
}

func TestLoggingIn(t *testing.T) {
	t.Parallel()
	for _, mechanism := range []string{"PLAIN", "LOGIN", "CRAM-MD5"} {
		for name, tc := range map[string]struct {
			plainText bool
			auth      string
			password  conf.Secret
			reason    string // "" for success
		}{
			"in its way":                   {false, strings.ToLower(mechanism), "hunter2", ""},
			"in whatever way":              {false, email.AuthAuto, "hunter2", ""},
			"in whatever way, without TLS": {true, email.AuthAuto, "hunter2", ""}, // this machine
			"with the wrong password":      {false, email.AuthAuto, "hunter22", "at AUTH"},
			"in another way":               {false, map[string]string{"PLAIN": "login", "LOGIN": "plain", "CRAM-MD5": "plain"}[mechanism], "hunter2", "no suitable way"},
		} {
			t.Run(mechanism+" "+name, func(t *testing.T) {
				t.Parallel()
				relay := threepidtest.NewSMTP(t, threepidtest.SMTPOptions{Username: "is", Password: "hunter2", Mechanism: mechanism, PlainText: tc.plainText})
				c := config(relay)
				c.Username, c.Password, c.Auth = "is", tc.password, tc.auth
				if tc.plainText {
					c.TLS, c.CAFile = email.TLSNone, ""
				}
				s := newSender(t, c)
				err := s.Send(t.Context(), challenge())
				if tc.reason != "" {
					checkSendError(t, err, tc.reason)
					s.outcomes(t, "auth", 1)
					return
				}
				if err != nil || relay.Messages()[0].Username != "is" {
					t.Errorf("got %v", err)
				}
			})
		}
	}
}

func TestWithoutTLSThePasswordIsNotShownIfItNeedNotBe(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	login := make(chan string, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		lines := bufio.NewScanner(c)
		for _, line := range []string{"220 hello", "250-hello\r\n250 AUTH PLAIN LOGIN CRAM-MD5"} {
			_, _ = fmt.Fprintf(c, "%s\r\n", line)
			lines.Scan()
		}
		login <- lines.Text()
	}()
	t.Cleanup(func() { l.Close(); <-done })
	s := newSender(t, email.Config{
		Host: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port, TLS: email.TLSNone, Username: "is", Password: "hunter2", From: "noreply@id.example.org",
	})
	checkSendError(t, s.Send(t.Context(), challenge()), "broke at AUTH")
	if got := <-login; got != "AUTH CRAM-MD5" {
		t.Errorf("the sender logs in with %q", got)
	}
}

func TestARelayThatAsksForAPassword(t *testing.T) {
	t.Parallel()
	relay := threepidtest.NewSMTP(t, threepidtest.SMTPOptions{Username: "is", Password: "hunter2"})
	s := newSender(t, config(relay))
	checkSendError(t, s.Send(t.Context(), challenge()), "at MAIL")
	s.outcomes(t, "refused", 1)
}

func TestAddressesBeyondASCII(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		utf8    bool // of the relay
		address string
		sent    bool
		asked   bool // for SMTPUTF8
	}{
		"a relay with SMTPUTF8":                            {true, "zoë@example.org", true, true},
		"a relay without SMTPUTF8":                         {false, "zoë@example.org", false, false},
		"an ASCII address needs no SMTPUTF8":               {true, "zoe@example.org", true, false},
		"a domain in A-labels needs no SMTPUTF8":           {true, "zoe@xn--bcher-kva.example", true, false},
		"a domain in A-labels on a relay without SMTPUTF8": {false, "zoe@xn--bcher-kva.example", true, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			relay := threepidtest.NewSMTP(t, threepidtest.SMTPOptions{UTF8: tc.utf8})
			s := newSender(t, config(relay))
			err := s.Send(t.Context(), to(tc.address))
			if !tc.sent {
				checkSendError(t, err, "SMTPUTF8")
				s.outcomes(t, "no_smtputf8", 1)
				if err := s.Send(t.Context(), to("zoe@example.org")); err != nil || relay.Connections() != 1 {
					t.Errorf("the next mail: %v over %d connections", err, relay.Connections())
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			m := relay.Messages()[0]
			if m.UTF8 != tc.asked || m.To[0] != tc.address || !strings.Contains(m.Header(t, "To"), tc.address) {
				t.Errorf("SMTPUTF8 %v, to %s, header %s", m.UTF8, m.To, m.Header(t, "To"))
			}
		})
	}
}

func TestConnectionsAreReused(t *testing.T) {
	t.Parallel()
	relay := threepidtest.NewSMTP(t, threepidtest.SMTPOptions{})
	s := newSender(t, config(relay))
	relay.Fail(threepidtest.Fault{At: threepidtest.Recipient, Reply: reply(550, smtp.EnhancedCode{5, 1, 1})})
	for i := range 5 {
		if err := s.Send(t.Context(), challenge()); (err != nil) != (i == 0) {
			t.Errorf("mail %d: %v", i, err)
		}
	}
	if n := relay.Connections(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

func TestADeadIdleConnectionIsReplacedOnce(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		kill func(relay *threepidtest.SMTP)
		sent bool
	}{
		"the relay has closed it": {func(r *threepidtest.SMTP) { r.Disconnect() }, true},
		"it breaks at MAIL":       {func(r *threepidtest.SMTP) { r.Fail(threepidtest.Fault{At: threepidtest.Mail, Cut: true}) }, true},
		"the relay says 421": {func(r *threepidtest.SMTP) {
			r.Fail(threepidtest.Fault{At: threepidtest.Mail, Reply: reply(421, smtp.EnhancedCode{4, 4, 2})})
		}, true},
		"it breaks at MAIL and so does the next one": {func(r *threepidtest.SMTP) {
			r.Fail(threepidtest.Fault{At: threepidtest.Mail, Cut: true}, threepidtest.Fault{At: threepidtest.Mail, Cut: true})
		}, false},
		// The relay may have taken the mail: a second one would be a duplicate.
		"it breaks after DATA": {func(r *threepidtest.SMTP) { r.Fail(threepidtest.Fault{At: threepidtest.Data, Cut: true}) }, false},
		"it breaks at RCPT":    {func(r *threepidtest.SMTP) { r.Fail(threepidtest.Fault{At: threepidtest.Recipient, Cut: true}) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			relay := threepidtest.NewSMTP(t, threepidtest.SMTPOptions{})
			s := newSender(t, config(relay))
			if err := s.Send(t.Context(), challenge()); err != nil {
				t.Fatal(err)
			}
			tc.kill(relay)
			if err := s.Send(t.Context(), challenge()); (err == nil) != tc.sent {
				t.Errorf("got %v", err)
			} else if err != nil {
				checkSendError(t, err, "broke")
			}
			if n, want := len(relay.Messages()), map[bool]int{true: 2, false: 1}[tc.sent]; n != want {
				t.Errorf("%d mails, want %d", n, want)
			}
		})
	}
}

func TestIdleConnectionsAreGivenUp(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(s fixture){
		"after a while": func(fixture) {},
		"when asked to": func(s fixture) { s.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			relay := threepidtest.NewSMTP(t, threepidtest.SMTPOptions{})
			c := config(relay)
			if name == "after a while" {
				c.IdleTimeout = conf.Duration(time.Millisecond)
			}
			s := newSender(t, c)
			if err := s.Send(t.Context(), challenge()); err != nil {
				t.Fatal(err)
			}
			leave(s)
			relay.WaitClosed(t, 1)
			if err := s.Send(t.Context(), challenge()); err != nil {
				t.Errorf("a mail after that: %v", err)
			}
			if n := relay.Connections(); n != 2 {
				t.Errorf("%d connections", n)
			}
		})
	}
}

func TestFullSlots(t *testing.T) {
	t.Parallel()
	relay := threepidtest.NewSMTP(t, threepidtest.SMTPOptions{})
	c := config(relay)
	c.MaxSending, c.MaxWait = 2, conf.Duration(20*time.Millisecond)
	s := newSender(t, c)
	release := make(chan struct{})
	hold := threepidtest.Fault{At: threepidtest.Data, Until: release}
	relay.Fail(hold, hold)
	var sending sync.WaitGroup
	for range 2 {
		sending.Go(func() {
			if err := s.Send(t.Context(), challenge()); err != nil {
				t.Error(err)
			}
		})
	}
	relay.WaitFaults(t, 2)
	if got := gauge(t, s, "herald_identity_mails_in_flight"); got != 2 {
		t.Errorf("%v slots in use", got)
	}
	err := s.Send(t.Context(), challenge())
	var busy *threepid.BusyError
	if !errors.As(err, &busy) || busy.RetryAfter != 20*time.Millisecond || errors.Is(err, threepid.ErrSend) {
		t.Errorf("got %v", err)
	}
	s.outcomes(t, "busy", 1)
	if n := relay.Connections(); n != 2 {
		t.Errorf("%d connections for two slots", n)
	}
	close(release)
	sending.Wait()
	if err := s.Send(t.Context(), challenge()); err != nil {
		t.Errorf("once there is a free slot: %v", err)
	}
	if got := gauge(t, s, "herald_identity_mails_in_flight"); got != 0 {
		t.Errorf("%v slots in use in the end", got)
	}
}

func gauge(t *testing.T, s fixture, name string) float64 {
	t.Helper()
	families, err := s.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no gauge %s", name)
	return 0
}

func TestManyMailsAtOnce(t *testing.T) {
	t.Parallel()
	relay := threepidtest.NewSMTP(t, threepidtest.SMTPOptions{})
	c := config(relay)
	c.MaxSending = 8
	s := newSender(t, c)
	var sending sync.WaitGroup
	for i := range 40 {
		sending.Go(func() {
			if err := s.Send(t.Context(), to(fmt.Sprintf("user%d@example.org", i))); err != nil {
				t.Error(err)
			}
		})
	}
	sending.Wait()
	seen := make(map[string]bool)
	for _, m := range relay.Messages() {
		if !strings.Contains(m.Text(t), m.To[0]) {
			t.Errorf("the mail to %s is about somebody else", m.To[0])
		}
		seen[m.To[0]] = true
	}
	if len(seen) != 40 {
		t.Errorf("%d people got mail", len(seen))
	}
	s.outcomes(t, "sent", 40)
}

func TestACertificateForAnotherName(t *testing.T) {
	t.Parallel()
	ca := safehttptest.NewCA(t)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{ca.Certificate(t, "other.example")}, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err == nil {
			_, _ = c.Write([]byte("220 hello\r\n"))
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	s := newSender(t, email.Config{
		Host: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port, TLS: email.TLSImplicit, CAFile: ca.File(t), From: "noreply@id.example.org",
	})
	checkSendError(t, s.Send(t.Context(), challenge()), "certificate is for another name")
	s.outcomes(t, "tls", 1)
}

func TestNoMoreThanAFewConnectionsStayIdle(t *testing.T) {
	t.Parallel()
	relay := threepidtest.NewSMTP(t, threepidtest.SMTPOptions{})
	s := newSender(t, config(relay))
	release := make(chan struct{})
	hold := threepidtest.Fault{At: threepidtest.Data, Until: release}
	relay.Fail(hold, hold, hold, hold, hold, hold)
	var sending sync.WaitGroup
	for range 6 {
		sending.Go(func() {
			if err := s.Send(t.Context(), challenge()); err != nil {
				t.Error(err)
			}
		})
	}
	relay.WaitFaults(t, 6)
	close(release)
	sending.Wait()
	relay.WaitClosed(t, 2) // four of the six stay
	// All four are dead now; a mail that meets one tries no other.
	relay.Disconnect()
	if err := s.Send(t.Context(), challenge()); err != nil {
		t.Error(err)
	}
	if n := relay.Connections(); n != 7 {
		t.Errorf("%d connections", n)
	}
}
