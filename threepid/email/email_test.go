package email_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/mail"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/threepid"
	"github.com/matrix-herald/herald/threepid/email"
	"github.com/matrix-herald/herald/threepid/threepidtest"
)

// sent is when all mails of the tests are sent.
var sent = time.Date(2026, 11, 22, 12, 30, 0, 0, time.UTC)

// config uses a relay of threepidtest.
func config(relay *threepidtest.SMTP) email.Config {
	return email.Config{Host: relay.Addr, RootCAs: relay.RootCAs, From: "Matrix ID <noreply@id.example.org>"}
}

// fixture is a sender with its metrics and its log.
type fixture struct {
	*email.Sender
	reg *prometheus.Registry
	log *bytes.Buffer
}

func newSender(t *testing.T, config email.Config) fixture {
	t.Helper()
	f := fixture{reg: prometheus.NewRegistry(), log: new(bytes.Buffer)}
	opts := options(config)
	opts.Registerer, opts.Log = f.reg, slog.New(slog.NewTextHandler(f.log, nil))
	s, err := email.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { checkSecrets(t, f.log.String()) })
	f.Sender = s
	return f
}

func options(config email.Config) email.Options {
	return email.Options{
		Config: config, BaseURL: "https://id.example.org", Registerer: prometheus.NewRegistry(),
		Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return sent },
	}
}

// checkSecrets checks that a log or an error tells nobody's address or secret.
func checkSecrets(t *testing.T, text string) {
	t.Helper()
	for _, secret := range []string{"alice", "bcher-kva", "zoë", "TOKEN+", "sid-1", "secret.1", "s3cret-key_", "hunter2"} {
		if strings.Contains(strings.ToLower(text), strings.ToLower(secret)) {
			t.Errorf("%s tells %s", text, secret)
		}
	}
}

// outcomes checks how often mails ended in an outcome.
func (f fixture) outcomes(t *testing.T, outcome string, want int) {
	t.Helper()
	families, err := f.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	known, got := false, 0
	for _, family := range families {
		for _, m := range family.GetMetric() {
			for _, label := range m.GetLabel() {
				if label.GetName() == "outcome" && label.GetValue() == outcome {
					known = true
					got += int(m.GetCounter().GetValue())
				}
			}
		}
	}
	if !known || got != want {
		t.Errorf("%d mails are counted as %s, want %d", got, outcome, want)
	}
}

func challenge() threepid.Challenge {
	return threepid.Challenge{
		ID: threepid.ID{Medium: threepid.MediumEmail, Address: "alice@bücher.example"}, To: "alice@xn--bcher-kva.example",
		Token: "TOKEN+&=", SID: "sid-1", ClientSecret: "secret.1", ValidFor: 24 * time.Hour,
		NextLink: "https://evil.example/next",
	}
}

func to(address string) threepid.Challenge {
	c := challenge()
	c.To = address
	return c
}

// checkSendError checks that an error is ErrSend, says why, and tells nobody's
// address or secret.
func checkSendError(t *testing.T, err error, reason string) {
	t.Helper()
	switch {
	case !errors.Is(err, threepid.ErrSend), errors.Is(err, threepid.ErrBusy), errors.Is(err, context.DeadlineExceeded):
		t.Errorf("got %v", err)
	case !strings.Contains(err.Error(), reason):
		t.Errorf("got %v, which does not say %q", err, reason)
	}
	if err != nil {
		checkSecrets(t, err.Error())
	}
}

func TestAMailArrives(t *testing.T) {
	t.Parallel()
	relay := threepidtest.NewSMTP(t, threepidtest.SMTPOptions{})
	s := newSender(t, config(relay))
	if err := s.Send(t.Context(), challenge()); err != nil {
		t.Fatal(err)
	}
	m := relay.Wait(t, 1)[0]
	if m.From != "noreply@id.example.org" || len(m.To) != 1 || m.To[0] != "alice@xn--bcher-kva.example" || !m.TLS || m.UTF8 {
		t.Errorf("envelope from %s to %s, TLS %v, SMTPUTF8 %v", m.From, m.To, m.TLS, m.UTF8)
	}
	for name, want := range map[string]string{
		"From":             `"Matrix ID" <noreply@id.example.org>`,
		"To":               "<alice@xn--bcher-kva.example>",
		"Subject":          "Confirm your email address",
		"Date":             "Sun, 22 Nov 2026 12:30:00 +0000",
		"Auto-Submitted":   "auto-generated",
		"Content-Language": "en",
		// What Exchange heeds instead of Auto-Submitted.
		"X-Auto-Response-Suppress": "All",
		"MIME-Version":             "1.0",
		"Reply-To":                 "", "X-Mailer": "", "User-Agent": "", "Bcc": "", "Cc": "",
	} {
		if got := m.Header(t, name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	link := "https://id.example.org/_matrix/identity/v2/validate/email/submitToken?client_secret=secret.1&sid=sid-1&token=TOKEN%2B%26%3D"
	for half, body := range map[string]string{"text": m.Text(t), "HTML": strings.ReplaceAll(m.HTML(t), "&amp;", "&")} {
		for _, want := range []string{link, "alice@bücher.example", "24 hours", "id.example.org"} {
			if !strings.Contains(body, want) {
				t.Errorf("the %s does not show %s:\n%s", half, want, body)
			}
		}
		if strings.Contains(body, "evil.example") || strings.Contains(strings.ReplaceAll(body, link, ""), "TOKEN") {
			t.Errorf("the %s shows more than it should:\n%s", half, body)
		}
	}
	s.outcomes(t, "sent", 1)
}

// TestFieldsOfTheHeader is about texts that have to be encoded or folded: each field
// begins on the line of its name, no line is too long, and it reads as it was meant.
//
// Conformance (requestToken): the mail's header: no field begins with an empty line, nobody's words are decoded, no out-of-office notes, from Exchange neither (also TestAMailArrives)
// Conformance (attacks): a room's name that mail programs decode (`=?utf-8?…`) or turn round | not decoded, set apart (also TestName)
func TestFieldsOfTheHeader(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ from, room, subject string }{
		"plain":                      {"Matrix ID", "Tea", "Bob invites you to Tea"},
		"not ASCII":                  {"Matrix Ü", "Kaffee & Küche", "Bob invites you to Kaffee & Küche"},
		"long":                       {"The Identity Service of a Company with a very long Name, Incorporated in Spain", "A room of thirty letters, just", "Bob invites you to A room of thirty letters, just"},
		"long and not ASCII":         {"Сервис проверки адресов с очень длинным названием", "Комната с длинным названием 30", "Bob invites you to Комната с длинным названием 30"},
		"words that seem encoded":    {"=?utf-8?q?a?=", "=?utf-8?q?evil=2Eexample?=", "Bob invites you to =\u2060?utf-8?q?evil=2Eexample?="},
		"commas, colons and quotes":  {`A "B", C: <D>`, `"a" <b>, c`, `Bob invites you to "a" <b>, c`},
		"a name that is an encoding": {"=", "_ ?=", "Bob invites you to _ ?="},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			relay := threepidtest.NewSMTP(t, threepidtest.SMTPOptions{})
			c := config(relay)
			c.From = (&mail.Address{Name: tc.from, Address: "noreply@id.example.org"}).String()
			i := invitation()
			i.RoomName, i.To = tc.room, strings.Repeat("long.", 12)+"x@"+strings.Repeat("long-domain.", 4)+"example.org"
			if err := newSender(t, c).SendInvitation(t.Context(), i); err != nil {
				t.Fatal(err)
			}
			m := relay.Wait(t, 1)[0]
			header, _, _ := strings.Cut(string(m.Data), "\r\n\r\n")
			for line := range strings.SplitSeq(header, "\r\n") {
				if strings.HasSuffix(line, ":") || len(line) > 76 && !strings.HasPrefix(line, "To: ") {
					t.Errorf("%d characters: %s", len(line), line)
				}
			}
			if got := m.Header(t, "Subject"); got != tc.subject {
				t.Errorf("subject %q, want %q", got, tc.subject)
			}
			parsed, err := mail.ReadMessage(bytes.NewReader(m.Data))
			if err != nil {
				t.Fatal(err)
			}
			from, err := parsed.Header.AddressList("From")
			if err != nil || len(from) != 1 || from[0].Address != "noreply@id.example.org" || strings.ReplaceAll(from[0].Name, "\u2060", "") != tc.from {
				t.Errorf("from %v (%v)", from, err)
			}
			if to, err := parsed.Header.AddressList("To"); err != nil || len(to) != 1 || to[0].Address != i.To {
				t.Errorf("to %v (%v)", to, err)
			}
		})
	}
}

func TestNoTwoMailsAreAlike(t *testing.T) {
	t.Parallel()
	relay := threepidtest.NewSMTP(t, threepidtest.SMTPOptions{})
	s := newSender(t, config(relay))
	boundary := regexp.MustCompile(`boundary=\S{20,}`)
	seen := make(map[string]bool)
	for i := range 2 {
		if err := s.Send(t.Context(), challenge()); err != nil {
			t.Fatal(err)
		}
		m := relay.Wait(t, i+1)[i]
		id := m.Header(t, "Message-ID")
		if !regexp.MustCompile(`^<[A-Z2-7]{26}@id\.example\.org>$`).MatchString(id) {
			t.Errorf("message ID %s", id)
		}
		seen[id], seen[boundary.FindString(string(m.Data))] = true, true
	}
	if len(seen) != 4 {
		t.Errorf("message IDs and boundaries: %v", seen)
	}
}

func TestTheMailIsInThePersonsLanguage(t *testing.T) {
	t.Parallel()
	relay := threepidtest.NewSMTP(t, threepidtest.SMTPOptions{})
	s := newSender(t, config(relay))
	c := challenge()
	c.Language, c.ValidFor = "de-CH, en;q=0.5", 90*time.Minute
	if err := s.Send(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	m := relay.Wait(t, 1)[0]
	if got := m.Header(t, "Subject"); got != "Bitte bestätigen Sie Ihre E-Mail-Adresse" {
		t.Errorf("subject %q", got)
	}
	if got := m.Header(t, "Content-Language"); got != "de" {
		t.Errorf("language %q", got)
	}
	for half, body := range map[string]string{"text": m.Text(t), "HTML": m.HTML(t)} {
		if !strings.Contains(body, "gilt 90 Minuten") || !strings.Contains(body, "möchte") {
			t.Errorf("%s:\n%s", half, body)
		}
	}
	if !strings.Contains(m.HTML(t), `<html lang="de">`) {
		t.Error("the HTML does not name its language")
	}
}

func TestHTMLHasNothingRemoteInIt(t *testing.T) {
	t.Parallel()
	relay := threepidtest.NewSMTP(t, threepidtest.SMTPOptions{})
	s := newSender(t, config(relay))
	if err := s.Send(t.Context(), challenge()); err != nil {
		t.Fatal(err)
	}
	html := relay.Wait(t, 1)[0].HTML(t)
	for _, m := range regexp.MustCompile(`(?i)(src|href|action|background|url)\s*[=(]\s*["']?([^"')\s>]*)`).FindAllStringSubmatch(html, -1) {
		if u, err := url.Parse(m[2]); err != nil || m[1] != "href" || u.Host != "id.example.org" {
			t.Errorf("the mail refers to %s", m[0])
		}
	}
	if regexp.MustCompile(`(?i)<(script|img|link|iframe|form|object)|@import`).MatchString(html) {
		t.Error("the mail has active or remote content")
	}
}

// Conformance (homeservers): sender: the brand's, else everybody's
func TestBrands(t *testing.T) {
	t.Parallel()
	relay := threepidtest.NewSMTP(t, threepidtest.SMTPOptions{})
	c := config(relay)
	c.ReplyTo = "help@example.org"
	c.Brands = map[string]email.Brand{"acme": {From: "Acmé <id@acme.example>"}, "quiet": {ReplyTo: "quiet@example.org"}}
	opts := options(c)
	opts.PageBrands = []string{"acme"}
	s, err := email.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	const everybody = `"Matrix ID" <noreply@id.example.org>`
	for i, tc := range []struct{ brand, from, replyTo, envelope string }{
		{"acme", `Acmé <id@acme.example>`, "<help@example.org>", "id@acme.example"},
		{"quiet", everybody, "<quiet@example.org>", "noreply@id.example.org"},
		{"../unknown", everybody, "<help@example.org>", "noreply@id.example.org"},
		{"", everybody, "<help@example.org>", "noreply@id.example.org"},
	} {
		ch, invite := challenge(), invitation()
		ch.Brand, invite.Brand = tc.brand, tc.brand
		if err := errors.Join(s.Send(t.Context(), ch), s.SendInvitation(t.Context(), invite)); err != nil {
			t.Fatal(err)
		}
		for _, m := range relay.Wait(t, 2*i+2)[2*i:] {
			if m.Header(t, "From") != tc.from || m.Header(t, "Reply-To") != tc.replyTo || m.From != tc.envelope {
				t.Errorf("%s: from %s, replies to %s, envelope %s", tc.brand, m.Header(t, "From"), m.Header(t, "Reply-To"), m.From)
			}
			// The link leads to the brand's pages if there are any.
			if strings.Contains(m.Text(t), "brand=") != (tc.brand == "acme") || tc.brand == "acme" && !strings.Contains(m.Text(t), "brand=acme") {
				t.Errorf("brand %s: %s", tc.brand, m.Text(t))
			}
		}
	}
}

// Conformance (security): mail: no header and no markup by injection, random boundaries, short names, links to ourselves or listed clients (CVE-2021-29432, CVE-2021-29433); STARTTLS and certificates by default (CVE-2023-38686) (also TestNoTwoMailsAreAlike, TestStrangersWordsInInvitations, TestInvitePageOfNoInvite, TestTLSModes, TestCertificatesAreVerified)
func TestNothingInAChallengeBecomesAHeaderOrMarkup(t *testing.T) {
	t.Parallel()
	const bad = "\r\nBcc: mallory@evil.example\r\n\r\n<script>alert(1)</script>\u202e"
	for name, tc := range map[string]struct {
		change  func(c *threepid.Challenge)
		refused bool
	}{
		"the recipient ends early":          {func(c *threepid.Challenge) { c.To = "a@example.org\r\nBcc: mallory@evil.example" }, true},
		"two recipients":                    {func(c *threepid.Challenge) { c.To = "a@example.org, mallory@evil.example" }, true},
		"a recipient in angle brackets":     {func(c *threepid.Challenge) { c.To = "a@example.org> ORCPT=<mallory@evil.example" }, true},
		"a recipient with a name":           {func(c *threepid.Challenge) { c.To = "Mallory <mallory@evil.example>" }, true},
		"a recipient that is not canonical": {func(c *threepid.Challenge) { c.To = "Alice@example.org" }, true},
		"a recipient's domain in Unicode":   {func(c *threepid.Challenge) { c.To = "alice@bücher.example" }, true},
		"no recipient":                      {func(c *threepid.Challenge) { c.To = "" }, true},
		"a token with markup":               {func(c *threepid.Challenge) { c.Token = bad }, false},
		"a session with markup":             {func(c *threepid.Challenge) { c.SID = bad }, false},
		"a secret with markup":              {func(c *threepid.Challenge) { c.ClientSecret = bad }, false},
		"a brand with markup":               {func(c *threepid.Challenge) { c.Brand = bad }, false},
		"a language with markup":            {func(c *threepid.Challenge) { c.Language = bad }, false},
		"a next link with markup":           {func(c *threepid.Challenge) { c.NextLink = bad }, false},
		"an address of atoms and quotes":    {func(c *threepid.Challenge) { c.To = "'{{.token}}'=`x`&y@example.org" }, false},
		"a token that is too long":          {func(c *threepid.Challenge) { c.Token = strings.Repeat("é", 256) }, true},
		"a session that is too long":        {func(c *threepid.Challenge) { c.SID = strings.Repeat("x", 256) }, true},
		"no token":                          {func(c *threepid.Challenge) { c.Token = "" }, true},
		"no secret":                         {func(c *threepid.Challenge) { c.ClientSecret = "" }, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			relay := threepidtest.NewSMTP(t, threepidtest.SMTPOptions{})
			s := newSender(t, config(relay))
			c := challenge()
			tc.change(&c)
			err := s.Send(t.Context(), c)
			if tc.refused {
				checkSendError(t, err, "")
				s.outcomes(t, "invalid", 1)
				if relay.Connections() != 0 {
					t.Error("the relay was asked")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			m := relay.Wait(t, 1)[0]
			if len(m.To) != 1 || m.To[0] != c.To || m.Header(t, "Bcc") != "" || m.Header(t, "To") == "" {
				t.Errorf("recipients %q, Bcc %q", m.To, m.Header(t, "Bcc"))
			}
			header, _, _ := strings.Cut(string(m.Data), "\r\n\r\n")
			if strings.Contains(header, "mallory") || strings.Contains(header, "script") {
				t.Errorf("header:\n%s", header)
			}
			if body := m.Text(t) + m.HTML(t); strings.Contains(body, "<script") || strings.Contains(body, "\u202e") {
				t.Errorf("body:\n%s", body)
			}
		})
	}
}

// Conformance (requestToken): the mailed link works in a browser without an access token, by the v2 path (≠ Sydent: a 404 without v1) (also TestFromRegistrationToLogout)
func TestTheLinkCarriesWhatTheClientChose(t *testing.T) {
	t.Parallel()
	relay := threepidtest.NewSMTP(t, threepidtest.SMTPOptions{})
	opts := options(config(relay))
	opts.BaseURL = "https://example.org:8448/id/"
	s, err := email.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	c := challenge()
	c.Token, c.SID, c.ClientSecret = "a b&c=d", "#?%2F", "é=."
	if err := s.Send(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	text := relay.Wait(t, 1)[0].Text(t)
	u, err := url.Parse(regexp.MustCompile(`https://\S+`).FindString(text))
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	if u.Host != "example.org:8448" || u.Path != "/id/_matrix/identity/v2/validate/email/submitToken" ||
		len(q) != 3 || q.Get("token") != c.Token || q.Get("sid") != c.SID || q.Get("client_secret") != c.ClientSecret {
		t.Errorf("link %s", u)
	}
}

func TestWithoutARelayNothingIsSent(t *testing.T) {
	t.Parallel()
	s := newSender(t, email.Config{})
	checkSendError(t, s.Send(t.Context(), challenge()), "no mail relay is configured")
	s.outcomes(t, "disabled", 1)
	if w := s.Warnings(); len(w) != 1 || !strings.Contains(w[0], "no mail relay") {
		t.Errorf("warnings %q", w)
	}
}

func TestThePrinterShowsTheMail(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	s, err := email.NewPrinter(options(email.Config{}), &out)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(t.Context(), challenge()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"alice@xn--bcher-kva.example", "Confirm your email address", "https://id.example.org/_matrix/identity/v2/"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s is missing in:\n%s", want, out.String())
		}
	}
	if len(s.Warnings()) != 0 {
		t.Errorf("warnings %q", s.Warnings())
	}
	broken, err := email.NewPrinter(options(email.Config{}), brokenWriter{})
	if err != nil {
		t.Fatal(err)
	}
	checkSendError(t, broken.Send(t.Context(), challenge()), "could not be printed")
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("alice") }

func FuzzLink(f *testing.F) {
	var out strings.Builder
	s, err := email.NewPrinter(options(email.Config{}), &out)
	if err != nil {
		f.Fatal(err)
	}
	f.Add("token", "sid", "secret")
	f.Add("a b&c=d#", "%2F\r\n.", "<script>\u202e\xff")
	f.Fuzz(func(t *testing.T, token, sid, secret string) {
		out.Reset()
		c := challenge()
		c.Token, c.SID, c.ClientSecret = token, sid, secret
		if err := s.Send(t.Context(), c); err != nil {
			checkSendError(t, err, "")
			return
		}
		links := regexp.MustCompile(`https://\S+`).FindAllString(out.String(), -1)
		if len(links) != 1 {
			t.Fatalf("links %q", links)
		}
		u, err := url.Parse(links[0])
		if err != nil || u.Host != "id.example.org" {
			t.Fatal(links, err)
		}
		if q := u.Query(); q.Get("token") != token || q.Get("sid") != sid || q.Get("client_secret") != secret {
			t.Errorf("link %s", u)
		}
	})
}
