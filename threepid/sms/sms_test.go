package sms_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/threepid"
	"github.com/matrix-herald/herald/threepid/sending"
	"github.com/matrix-herald/herald/threepid/sms"
	"github.com/matrix-herald/herald/threepid/threepidtest"
)

const (
	account = "AC0123456789abcdef0123456789abcdef"
	service = "MG0123456789abcdef0123456789abcdef"
)

// twilio uses the gateway as if it were Twilio.
func twilio(gateway *threepidtest.SMS) sms.Config {
	return sms.Config{
		Provider: sms.ProviderTwilio,
		Twilio: sms.TwilioConfig{
			AccountSID: account, AuthToken: "hunter2", BaseURL: gateway.URL, AllowNetworks: []string{"127.0.0.0/8"},
		},
		Countries: []string{"GB", "US"}, Originators: map[string]string{"default": "+15005550006"},
	}
}

// webhook uses the gateway with a body in JSON.
func webhook(gateway *threepidtest.SMS) sms.Config {
	return sms.Config{
		Provider: sms.ProviderWebhook,
		Webhook: sms.WebhookConfig{
			URL: gateway.URL + "/send", Body: `{"to": {{json .To}}, "text": {{json .Text}}}`,
			Secret: "hunter2", AllowNetworks: []string{"127.0.0.0/8"},
		},
		Countries: []string{"GB"},
	}
}

// fixture is a sender with its metrics and its log.
type fixture struct {
	*sms.Sender
	reg *prometheus.Registry
	log *bytes.Buffer
}

func newSender(t *testing.T, config sms.Config) fixture {
	t.Helper()
	f := fixture{reg: prometheus.NewRegistry(), log: new(bytes.Buffer)}
	var err error
	f.Sender, err = sms.New(options(config, f.reg, f.log))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, secret := range secrets {
			if strings.Contains(f.log.String(), secret) {
				t.Errorf("the log tells %s: %s", secret, f.log)
			}
		}
	})
	return f
}

func options(config sms.Config, reg prometheus.Registerer, log io.Writer) sms.Options {
	return sms.Options{Config: config, Service: "id.example.org", Registerer: reg, Log: slog.New(slog.NewTextHandler(log, nil))}
}

// outcomes checks how often messages ended in an outcome.
func (f fixture) outcomes(t *testing.T, outcome string, want int) {
	t.Helper()
	families, err := f.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			for _, label := range m.GetLabel() {
				if label.GetName() == "outcome" && label.GetValue() == outcome {
					if got := int(m.GetCounter().GetValue()); got != want {
						t.Errorf("%d messages are counted as %s, want %d", got, outcome, want)
					}
					return
				}
			}
		}
	}
	t.Errorf("there is no outcome %s", outcome)
}

func challenge() threepid.Challenge {
	return threepid.Challenge{
		ID: threepid.ID{Medium: threepid.MediumMSISDN, Address: "447700900001"}, To: "447700900001", Region: "GB",
		Token: "123456", SID: "the-sid", ClientSecret: "the-secret", NextLink: "https://evil.example/", ValidFor: 10 * time.Minute,
	}
}

// secrets are what no error and no log may tell.
var secrets = []string{"447700900001", "7700900001", "123456", "the-sid", "the-secret", "hunter2", account}

// checkError checks that an error is of one kind, says why, and tells nobody's
// number or secret.
func checkError(t *testing.T, err, kind error, reason string) {
	t.Helper()
	for _, other := range []error{threepid.ErrSend, threepid.ErrDestinationRejected, threepid.ErrBusy} {
		if errors.Is(err, other) != errors.Is(kind, other) {
			t.Errorf("got %v, want %v", err, kind)
		}
	}
	if !errors.Is(err, kind) || errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), reason) {
		t.Errorf("got %v, want %q", err, reason)
	}
	for _, secret := range secrets {
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("%v tells %s", err, secret)
		}
	}
}

func TestTheMessageIsShortAndBeginsWithTheCode(t *testing.T) {
	t.Parallel()
	for preferences, want := range map[string]string{
		"":   "123456 is your code for id.example.org. It works for 10 minutes. Do not pass it on.",
		"de": "123456 ist Ihr Code für id.example.org. Er gilt 10 Minuten. Geben Sie ihn nicht weiter.",
	} {
		gateway := threepidtest.NewSMS(t)
		c := challenge()
		c.Language = preferences
		gateway.Answer(accepted())
		if err := newSender(t, twilio(gateway)).Send(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		got := gateway.Wait(t, 1)[0].Form(t).Get("Body")
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// TestTheMessageFitsIntoOneSegment uses the longest name of a service. A
// segment holds 160 characters if all are in the alphabet of GSM 03.38; the
// letters here are those of it that the templates need.
func TestTheMessageFitsIntoOneSegment(t *testing.T) {
	t.Parallel()
	const alphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,:-äöüß"
	for _, language := range []string{"en", "de"} {
		var out strings.Builder
		s, err := sms.NewPrinter(sms.Options{Service: strings.Repeat("long-name.", 20), Registerer: prometheus.NewRegistry()}, &out)
		if err != nil {
			t.Fatal(err)
		}
		c := challenge()
		c.Language = language
		if err := s.Send(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		text := strings.TrimSpace(strings.ReplaceAll(strings.TrimPrefix(out.String(), "--- SMS to +447700900001: "), "…", "."))
		if n := len([]rune(text)); n > 160 || n < 80 || strings.Trim(text, alphabet) != "" {
			t.Errorf("%d characters: %s", n, text)
		}
	}
}

// Conformance (requestToken): a country that is not texted | 400 `M_DESTINATION_REJECTED` (also TestFailedSending)
func TestCountries(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		countries []string
		region    string
		sent      bool
	}{
		"a country on the list":                  {[]string{"GB", "IE"}, "GB", true},
		"a country that is not on the list":      {[]string{"GB", "IE"}, "JM", false},
		"any country":                            {[]string{"*"}, "JM", true},
		"any country but one":                    {[]string{"*", "!JM"}, "JM", false},
		"any other country but one":              {[]string{"*", "!JM"}, "GB", true},
		"a country that is wanted and not":       {[]string{"GB", "!GB"}, "GB", false},
		"a number of no country":                 {[]string{"GB"}, "001", false},
		"a number of no country, on the list":    {[]string{"001"}, "001", true},
		"a number whose country nobody found":    {[]string{"*"}, "", false},
		"a country in small letters is not told": {[]string{"GB"}, "gb", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gateway := threepidtest.NewSMS(t)
			config := webhook(gateway)
			config.Countries = tc.countries
			s := newSender(t, config)
			c := challenge()
			c.Region = tc.region
			err := s.Send(t.Context(), c)
			if n := len(gateway.Requests()); (n == 1) != tc.sent {
				t.Errorf("%d requests", n)
			}
			if tc.sent {
				if err != nil {
					t.Error(err)
				}
				s.outcomes(t, "sent", 1)
				return
			}
			checkError(t, err, threepid.ErrDestinationRejected, "country")
			s.outcomes(t, "country", 1)
		})
	}
}

func TestOriginators(t *testing.T) {
	t.Parallel()
	gateway := threepidtest.NewSMS(t)
	config := twilio(gateway)
	config.Countries = []string{"*"}
	config.Originators = map[string]string{
		"default": "Herald", "1": "+15005550006", "US": "+15005550001", "CA": "+15005550002", "1876": "12345", "JM": "54321",
		"44": service, "447911": "Late", "DE": "Deutsch", "49": "+4915100000000", "001": "Nowhere",
	}
	s := newSender(t, config)
	for i, tc := range []struct{ to, from, messaging string }{
		{"12125550123", "+15005550001", ""}, // the United States
		{"14165550123", "+15005550002", ""}, // Canada, which has their calling code
		{"12425550123", "+15005550006", ""}, // the Bahamas: neither
		{"18765550123", "12345", ""},        // Jamaica, by digits that say as much
		{"447700900001", "", service},
		{"447911123456", "Late", ""},
		{"4915112345678", "Deutsch", ""}, // the country before its calling code
		{"33612345678", "Herald", ""},
		{"80012345678", "Nowhere", ""},
	} {
		phone, err := threepid.ParsePhone("", "+"+tc.to)
		if err != nil {
			t.Fatal(err)
		}
		c := challenge()
		c.To, c.Region = tc.to, phone.Region()
		gateway.Answer(accepted())
		if err := s.Send(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		form := gateway.Wait(t, i+1)[i].Form(t)
		if form.Get("From") != tc.from || form.Get("MessagingServiceSid") != tc.messaging || form.Get("To") != "+"+tc.to {
			t.Errorf("%s: %v", tc.to, form)
		}
	}
}

func TestWhatIsNoNumberIsNotSentTo(t *testing.T) {
	t.Parallel()
	gateway := threepidtest.NewSMS(t)
	s := newSender(t, webhook(gateway))
	for _, to := range []string{"", "+447700900001", "4477009&to=1", "447700900001\r\n", "447700900001447700900001"} {
		c := challenge()
		c.To = to
		checkError(t, s.Send(t.Context(), c), threepid.ErrSend, "not a telephone number")
	}
	s.outcomes(t, "invalid", 5)
	if n := len(gateway.Requests()); n != 0 {
		t.Errorf("%d requests", n)
	}
}

func TestWithoutAProviderEveryNumberIsRefused(t *testing.T) {
	t.Parallel()
	s := newSender(t, sms.Config{})
	checkError(t, s.Send(t.Context(), challenge()), threepid.ErrDestinationRejected, "no SMS provider")
	s.outcomes(t, "disabled", 1)
	if w := s.Warnings(); len(w) != 1 || !strings.Contains(w[0], "no SMS provider") {
		t.Errorf("warnings %q", w)
	}
}

func TestThePrinterShowsTheMessage(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	config := sms.Config{Provider: sms.ProviderTwilio, Twilio: sms.TwilioConfig{AccountSID: account, AuthToken: "x"}}
	s, err := sms.NewPrinter(options(config, prometheus.NewRegistry(), io.Discard), &out)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(t.Context(), challenge()); err != nil || !strings.HasPrefix(out.String(), "--- SMS to +447700900001: 123456 is your code") {
		t.Errorf("%v: %s", err, out.String())
	}
	if len(s.Warnings()) != 0 {
		t.Errorf("warnings %q", s.Warnings())
	}
	if _, err := sms.NewPrinter(options(sms.Config{Config: sending.Config{MaxSending: -1}}, prometheus.NewRegistry(), io.Discard), &out); err == nil {
		t.Error("a faulty configuration is taken")
	}
	broken, err := sms.NewPrinter(options(sms.Config{}, prometheus.NewRegistry(), io.Discard), brokenWriter{})
	if err != nil {
		t.Fatal(err)
	}
	checkError(t, broken.Send(t.Context(), challenge()), threepid.ErrSend, "could not be printed")
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("447700900001") }

func TestOwnTemplates(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "acme"), 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "acme", "verification.txt")
	if err := os.WriteFile(path, []byte("{{.Token}} for Acme ({{.Language}})\n\n@{{.Service}} #{{.Token}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	gateway := threepidtest.NewSMS(t)
	config := webhook(gateway)
	config.Templates = dir
	s := newSender(t, config)
	c := challenge()
	c.Brand = "acme"
	if err := s.Send(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if got := gateway.Wait(t, 1)[0].JSON(t)["text"]; got != "123456 for Acme (en)\n\n@id.example.org #123456" {
		t.Errorf("got %q", got)
	}
	if err := os.WriteFile(path, []byte("no code"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := sms.New(options(config, prometheus.NewRegistry(), io.Discard))
	if err == nil || !strings.Contains(err.Error(), "verification.txt: must show {{.Token}}") {
		t.Errorf("got %v", err)
	}
}
