package email_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
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
	return &smtp.SMTPError{Code: code, EnhancedCode: enhanced, Message: "<Alice@xn--bcher-kva.example>: no, ALICE is unknown"}
}

// TestOnlyWhatTheRelayRefusesFails is about what relays do to connections they have had
// enough of, and to mails they want to see again: the mail goes out all the same.
//
// Conformance (requestToken): what a relay does to a connection that idled or carried many mails; a cut, silence or a 4xx before it has the mail | one connection a mail; tried once more over a new one. Only what the relay refuses fails (also TestWhatTheRelayRefusesIsAnError)
func TestOnlyWhatTheRelayRefusesFails(t *testing.T) {
	t.Parallel()
	never := make(chan struct{})
	busy := reply(421, smtp.EnhancedCode{4, 3, 2})
	for name, tc := range map[string]struct {
		relay  threepidtest.SMTPOptions
		faults []threepidtest.Fault
		again  int // connections beside one for each mail
	}{
		"one mail a connection, as some allow":      {threepidtest.SMTPOptions{MailsEach: 1}, nil, 0},
		"421 at EHLO, and at HELO":                  {faults: []threepidtest.Fault{{At: threepidtest.Hello, Reply: busy}, {At: threepidtest.Hello, Reply: busy}}, again: 1},
		"451 at MAIL, as after some idle time":      {faults: []threepidtest.Fault{{At: threepidtest.Mail, Reply: reply(451, smtp.EnhancedCode{4, 4, 2})}}, again: 1},
		"452 at MAIL, as after some mails":          {faults: []threepidtest.Fault{{At: threepidtest.Mail, Reply: reply(452, smtp.EnhancedCode{4, 5, 3})}}, again: 1},
		"421 at MAIL":                               {faults: []threepidtest.Fault{{At: threepidtest.Mail, Reply: busy}}, again: 1},
		"451 at RCPT, greylisting for a moment":     {faults: []threepidtest.Fault{{At: threepidtest.Recipient, Reply: reply(451, smtp.EnhancedCode{4, 7, 1})}}, again: 1},
		"452 after DATA":                            {faults: []threepidtest.Fault{{At: threepidtest.Data, Reply: reply(452, smtp.EnhancedCode{4, 3, 1})}}, again: 1},
		"a cut at EHLO":                             {faults: []threepidtest.Fault{{At: threepidtest.Hello, Cut: true}}, again: 1},
		"a cut at MAIL":                             {faults: []threepidtest.Fault{{At: threepidtest.Mail, Cut: true}}, again: 1},
		"a cut at RCPT":                             {faults: []threepidtest.Fault{{At: threepidtest.Recipient, Cut: true}}, again: 1},
		"silence at EHLO":                           {faults: []threepidtest.Fault{{At: threepidtest.Hello, Until: never}}, again: 1},
		"silence at MAIL":                           {faults: []threepidtest.Fault{{At: threepidtest.Mail, Until: never}}, again: 1},
		"silence at RCPT":                           {faults: []threepidtest.Fault{{At: threepidtest.Recipient, Until: never}}, again: 1},
		"a long look at the mail, which is not cut": {faults: []threepidtest.Fault{{At: threepidtest.Data, Delay: 600 * time.Millisecond}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			relay := threepidtest.NewSMTP(t, tc.relay)
			relay.Fail(tc.faults...)
			c := config(relay)
			if slices.ContainsFunc(tc.faults, func(f threepidtest.Fault) bool { return f.Until != nil || f.Delay > 0 }) {
				c.Timeout = conf.Duration(time.Second)
			}
			s := newSender(t, c)
			for range 3 {
				if err := s.Send(t.Context(), challenge()); err != nil {
					t.Error(err)
				}
			}
			if m, n := len(relay.Messages()), relay.Connections(); m != 3 || n != 3+tc.again {
				t.Errorf("%d mails over %d connections", m, n)
			}
			if s.log.Len() > 0 {
				t.Errorf("log: %s", s.log)
			}
		})
	}
}

func TestWhatTheRelayRefusesIsAnError(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		at      threepidtest.Stage
		reply   *smtp.SMTPError // nil for a cut
		again   bool            // asked once more
		reason  string
		outcome string
	}{
		"421 at EHLO": {threepidtest.Hello, reply(421, smtp.EnhancedCode{4, 3, 2}), true, "421 4.3.2 at EHLO", "deferred"},
		"452 at MAIL": {threepidtest.Mail, reply(452, smtp.EnhancedCode{4, 5, 3}), true, "452 4.5.3 at MAIL", "deferred"},
		"550 at MAIL": {threepidtest.Mail, reply(550, smtp.EnhancedCode{5, 7, 1}), false, "550 5.7.1 at MAIL", "refused"},
		"450 at RCPT": {threepidtest.Recipient, reply(450, smtp.EnhancedCode{4, 2, 0}), true, "450 4.2.0 at RCPT", "deferred"},
		"550 at RCPT": {threepidtest.Recipient, reply(550, smtp.EnhancedCode{5, 7, 1}), false, "550 5.7.1 at RCPT", "refused"},
		"no enhanced code": {
			threepidtest.Recipient, reply(550, smtp.NoEnhancedCode), false, "answered 550 at RCPT", "refused",
		},
		"no such mailbox":             {threepidtest.Recipient, reply(550, smtp.EnhancedCode{5, 1, 1}), false, "no such mailbox", "no_recipient"},
		"no such mailbox, Exchange":   {threepidtest.Recipient, reply(550, smtp.EnhancedCode{5, 1, 10}), false, "no such mailbox", "no_recipient"},
		"a disabled mailbox":          {threepidtest.Data, reply(550, smtp.EnhancedCode{5, 2, 1}), false, "no such mailbox", "no_recipient"},
		"the sender's mailbox":        {threepidtest.Mail, reply(550, smtp.EnhancedCode{5, 1, 1}), false, "550 5.1.1 at MAIL", "refused"},
		"451 after DATA":              {threepidtest.Data, reply(451, smtp.EnhancedCode{4, 7, 1}), true, "451 4.7.1 at the end of DATA", "deferred"},
		"554 after DATA":              {threepidtest.Data, reply(554, smtp.EnhancedCode{5, 7, 0}), false, "554 5.7.0 at the end of DATA", "refused"},
		"a cut at MAIL":               {threepidtest.Mail, nil, true, "broke at MAIL", "lost"},
		"a cut after DATA, which may": {threepidtest.Data, nil, false, "broke at the end of DATA", "lost"}, // have been taken
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			relay := threepidtest.NewSMTP(t, threepidtest.SMTPOptions{})
			for range 4 { // HELO after a refused EHLO, and both once more
				relay.Fail(threepidtest.Fault{At: tc.at, Reply: tc.reply, Cut: tc.reply == nil})
			}
			s := newSender(t, config(relay))
			err := s.Send(t.Context(), challenge())
			checkSendError(t, err, tc.reason)
			if errors.Is(err, threepid.ErrNoMailbox) != (tc.outcome == "no_recipient") {
				t.Errorf("got %v", err)
			}
			s.outcomes(t, tc.outcome, 1)
			if m, n := len(relay.Messages()), relay.Connections(); m != 0 || n != map[bool]int{false: 1, true: 2}[tc.again] {
				t.Errorf("%d mails over %d connections", m, n)
			}
			// The log has the relay's own words, without the address that they quote.
			if log := s.log.String(); !strings.Contains(log, "level=WARN") || !strings.Contains(log, "outcome="+tc.outcome) ||
				tc.reply != nil && !strings.Contains(log, `<…>: no, … is unknown"`) {
				t.Errorf("log: %s", log)
			}
		})
	}
}

func TestSilenceEndsWithTheTime(t *testing.T) {
	t.Parallel()
	for name, at := range map[string]threepidtest.Stage{"EHLO": threepidtest.Hello, "MAIL": threepidtest.Mail, "the end of DATA": threepidtest.Data} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			relay := threepidtest.NewSMTP(t, threepidtest.SMTPOptions{})
			relay.Fail(threepidtest.Fault{At: at, Until: make(chan struct{})})
			s := newSender(t, config(relay))
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			result := make(chan error)
			go func() { result <- s.Send(ctx, challenge()) }()
			relay.WaitFaults(t, 1)
			cancel() // the client has gone, or its time is up
			checkSendError(t, <-result, "time ran out at "+name)
			s.outcomes(t, "timeout", 1)
			if m, n := len(relay.Messages()), relay.Connections(); m != 0 || n != 1 {
				t.Errorf("%d mails over %d connections", m, n)
			}
		})
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
	return email.Config{Host: l.Addr().String(), From: "noreply@id.example.org"}
}

func TestARelayThatIsNone(t *testing.T) {
	t.Parallel()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	gone := email.Config{Host: closed.Addr().String(), From: "noreply@id.example.org"}
	implicit := script(t, "220 hello")
	implicit.TLS = email.TLSImplicit
	beforeData := []string{"220 hello", "250 hello", "250 sender", "250 recipient"}
	full, cut := script(t, append(beforeData, "452 4.3.1 the disk is full")...), script(t, beforeData...)
	full.TLS, cut.TLS = email.TLSNone, email.TLSNone
	for name, tc := range map[string]struct {
		config  email.Config
		reason  string
		outcome string
	}{
		"452 instead of 354":           {full, "452 4.3.1 at DATA", "deferred"},
		"a cut instead of 354":         {cut, "broke at DATA", "lost"},
		"nobody listens":               {gone, "connection refused", "unreachable"},
		"421 on connecting":            {script(t, "421 4.3.2 alice go away"), "421 4.3.2 at the greeting", "deferred"},
		"554 on connecting":            {script(t, "554 no service"), "554 at the greeting", "refused"},
		"a cut on connecting":          {script(t), "broke at the greeting", "lost"},
		"another protocol":             {script(t, "SSH-2.0-OpenSSH"), "broke at the greeting", "lost"},
		"no STARTTLS":                  {script(t, "220 hello", "250 hello", ""), "does not offer STARTTLS", "tls"},
		"STARTTLS is refused":          {script(t, "220 hello", "250-hello\r\n250 STARTTLS", "454 4.7.0 no TLS"), "454 4.7.0 at STARTTLS", "deferred"},
		"STARTTLS leads nowhere":       {script(t, "220 hello", "250-hello\r\n250 STARTTLS", "220 go", "not TLS"), "no safe TLS connection", "tls"},
		"plain text where TLS belongs": {implicit, "no safe TLS connection", "tls"},
		"an answer without end":        {script(t, "220 "+strings.Repeat("x", 300<<10)), "broke at the greeting", "lost"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSender(t, tc.config)
			checkSendError(t, s.Send(t.Context(), challenge()), "")
			s.outcomes(t, tc.outcome, 1)
			if !strings.Contains(s.log.String(), tc.reason) {
				t.Errorf("log: %s", s.log)
			}
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
		unknown.RootCAs = nil
		s := newSender(t, unknown)
		checkSendError(t, s.Send(t.Context(), challenge()), "no safe TLS connection")
		s.outcomes(t, "tls", 1)
		if !strings.Contains(s.log.String(), "unknown authority") {
			t.Errorf("log: %s", s.log)
		}
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
				c.RootCAs = nil
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
	for _, mechanism := range []string{"PLAIN", "LOGIN"} {
		for name, tc := range map[string]struct {
			plainText bool
			auth      string
			password  conf.Secret
			reason    string // "" for success
		}{
			"in its way":              {false, strings.ToLower(mechanism), "hunter2", ""},
			"in whatever way":         {false, email.AuthAuto, "hunter2", ""},
			"without TLS, when told":  {true, strings.ToLower(mechanism), "hunter2", ""}, // to this machine
			"with the wrong password": {false, email.AuthAuto, "hunter22", "at AUTH"},
			"in another way":          {false, map[string]string{"PLAIN": "login", "LOGIN": "plain"}[mechanism], "hunter2", "no suitable way"},
		} {
			t.Run(mechanism+" "+name, func(t *testing.T) {
				t.Parallel()
				relay := threepidtest.NewSMTP(t, threepidtest.SMTPOptions{Username: "is", Password: "hunter2", Mechanism: mechanism, PlainText: tc.plainText})
				c := config(relay)
				c.Username, c.Password, c.Auth = "is", tc.password, tc.auth
				if tc.plainText {
					c.TLS, c.RootCAs = email.TLSNone, nil
				}
				s := newSender(t, c)
				probed := s.Probe(t.Context())
				if relay.Connections() != 1 || len(relay.Messages()) != 0 {
					t.Error("a probe is more than a connection")
				}
				err := s.Send(t.Context(), challenge())
				if (probed == nil) != (err == nil) || err != nil && probed.Error() != err.Error() {
					t.Errorf("a probe says %v, and sending %v", probed, err)
				}
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
		Host: l.Addr().String(), TLS: email.TLSImplicit, RootCAs: ca.Pool(), From: "noreply@id.example.org",
	})
	checkSendError(t, s.Send(t.Context(), challenge()), "no safe TLS connection")
	s.outcomes(t, "tls", 1)
	if !strings.Contains(s.log.String(), "certificate is not valid for any names, but wanted to match 127.0.0.1") && !strings.Contains(s.log.String(), "cannot validate certificate for 127.0.0.1") {
		t.Errorf("log: %s", s.log)
	}
}
