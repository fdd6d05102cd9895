package main

import (
	"regexp"
	"strings"
	"testing"

	"github.com/emersion/go-smtp"

	"github.com/matrix-herald/herald/threepid/threepidtest"
)

// Conformance (requestToken): `identity test-mail`, `identity test-sms` | the relay's or provider's own words, each step with its time, a remedy (also TestMessagesWithoutAnywhereToSendThem)
func TestTestMessages(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "sqlite:"+t.TempDir()+"/identity.db")
	for name, tc := range map[string]struct {
		args    []string
		prepare func()
		code    int
		shows   []string // in this order
	}{
		"a mail": {
			[]string{"test-mail", "-to", "Alice@example.com"}, func() {}, 0,
			[]string{
				"connecting to localhost:", "connected to 127.0.0.1:", "greeted", "> EHLO ", "< 250 ", "< STARTTLS", "> STARTTLS", "< 220 ", "> EHLO ", "TLS 1.3",
				"> MAIL FROM:<noreply@id.example.org>", "> RCPT TO:<alice@example.com>", "> DATA", "< 354 ", "> (the mail)", "< 250 ", "> QUIT", "has taken the mail",
			},
		},
		"a mail to no mailbox": {
			[]string{"test-mail", "-to", "alice@example.com"}, func() {
				w.relay.Fail(threepidtest.Fault{At: threepidtest.Recipient, Reply: &smtp.SMTPError{
					Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "<alice@example.com> is \x1b[2Junknown here",
				}})
			}, 1,
			[]string{"> RCPT TO", "< 550 5.1.1 <alice@example.com> is [2Junknown here", "> QUIT", "answered 550 5.1.1 at RCPT", "What to do: the relay knows no such mailbox"},
		},
		"a mail to nobody":      {[]string{"test-mail", "-to", "alice"}, func() {}, 1, []string{"no email address"}},
		"a mail without an -to": {[]string{"test-mail"}, func() {}, 2, []string{"usage: identity -config FILE test-mail -to ADDRESS"}},
		"a text message": {
			[]string{"test-sms", "-to", "+44 7700 900001"}, func() {}, 0,
			[]string{"> POST " + w.gateway.URL, "< 200 OK", "< {}", "has accepted the message"},
		},
		"a text message that is refused": {
			[]string{"test-sms", "-to", "+447700900001"},
			func() {
				w.gateway.Answer(threepidtest.SMSAnswer{Status: 402, Body: `{"error": "no money for 447700900001"}`})
			}, 1,
			[]string{"< 402 ", `< {"error": "no money for 447700900001"}`, "answered 402", "What to do: what the provider said tells why"},
		},
		"a text message abroad":         {[]string{"test-sms", "-to", "+33601020304"}, func() {}, 1, []string{"its country is not on the list", "What to do: the number's country is not in sms.countries"}},
		"a text message to some number": {[]string{"test-sms", "-to", "07700900001"}, func() {}, 1, []string{"code of its country"}},
	} {
		tc.prepare()
		code, out, errs := command(t, nil, append([]string{"-config", w.config}, tc.args...)...)
		rest, missing := out+errs, ""
		for _, want := range tc.shows {
			var found bool
			if _, rest, found = strings.Cut(rest, want); !found {
				missing = want
				break
			}
		}
		if code != tc.code || missing != "" {
			t.Errorf("%s: exit status %d, %q is missing in\n%s%s", name, code, missing, out, errs)
		}
		if strings.Contains(out, "\x1b") || strings.Contains(errs, "lice@") || strings.Contains(errs, "7700") || strings.Contains(errs, "level=") {
			t.Errorf("%s: standard error %q, standard output %q", name, errs, out)
		}
		if tc.code == 0 && !regexp.MustCompile(`^  0\.\d{3} s  `).MatchString(out) {
			t.Errorf("%s: no times in\n%s", name, out)
		}
	}
	if m, n := len(w.relay.Messages()), len(w.gateway.Requests()); m != 1 || n != 2 {
		t.Errorf("%d mails, %d text messages", m, n)
	}
}

// TestMessagesWithoutAnywhereToSendThem needs no database either.
func TestMessagesWithoutAnywhereToSendThem(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{"test-mail": "What to do: set email.host", "test-sms": "What to do: set sms.provider"} {
		to := map[string]string{"test-mail": "alice@example.com", "test-sms": "+447700900001"}[name]
		code, _, errs := command(t, nil, "-config", writeFile(t, t.TempDir()+"/identity.yaml", "data_dir: x\n"), name, "-to", to)
		if code != 1 || !strings.Contains(errs, want) {
			t.Errorf("%s: exit status %d: %s", name, code, errs)
		}
	}
}
