package sms_test

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/threepid/sms"
)

// parse reads a configuration from YAML and validates it.
func parse(t testing.TB, yaml string) (sms.Config, error) {
	t.Helper()
	var file struct {
		SMS sms.Config `yaml:"sms"`
	}
	if err := conf.Load(conf.LoadOptions{Name: "identity.yaml", Data: []byte(yaml), Dir: t.TempDir()}, &file); err != nil {
		t.Fatal(err)
	}
	var p conf.Problems
	file.SMS.Validate("sms", &p)
	return file.SMS, p.Err()
}

const (
	twilioYAML = `sms:
  provider: twilio
  countries: [GB]
  from: {default: Herald}
  twilio: {account_sid: AC0123456789abcdef0123456789abcdef, auth_token: x}
`
	webhookYAML = `sms:
  provider: webhook
  countries: [GB]
  webhook:
    url: https://sms.example.org/send
    body: '{"to": {{json .To}}, "text": {{json .Text}}}'
`
)

func TestValidConfigurations(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		yaml     string
		warnings int
	}{
		"nothing at all":       {"sms: {}", 1},
		"Twilio":               {twilioYAML, 0},
		"a webhook":            {webhookYAML, 0},
		"senders of all kinds": {strings.Replace(twilioYAML, "default: Herald", "default: Herald, 44: '123', NO: Norge, 001: Nowhere, CA: '+15005550006'", 1), 0},
		"every country":        {strings.Replace(twilioYAML, "[GB]", "['*', '!JM', '!001']", 1), 1},
		"a webhook over http":  {strings.Replace(webhookYAML, "https://sms.example.org", "http://10.0.0.1", 1) + "    test_allow_networks: [10.0.0.0/8]\n", 1},
		"everything of Twilio": {strings.Replace(twilioYAML, "auth_token: x",
			"auth_token: x, key_sid: SK0123456789abcdef0123456789abcdef, base_url: 'https://api.ie1.twilio.com/'", 1), 0},
		"everything of a webhook": {strings.Replace(webhookYAML, "body:", "method: PUT\n    headers: {X-Key: '{{.Secret}}'}\n    body:", 1) +
			"    secret: s\n    success_pattern: ^ok\n", 0},
		"a body of another kind": {strings.Replace(webhookYAML, "body: '", "headers: {Content-Type: text/plain}\n    body: '", 1), 0},
		"fields in lists":        {strings.Replace(webhookYAML, "{{json .Text}}}", "[{{json .Text}}]}", 1), 0},
	} {
		c, err := parse(t, tc.yaml)
		if err != nil || len(c.Warnings()) != tc.warnings {
			t.Errorf("%s: %v, warnings %q", name, err, c.Warnings())
		}
	}
}

func TestFaultyConfigurations(t *testing.T) {
	t.Parallel()
	twilio := func(old, replacement string) string { return strings.Replace(twilioYAML, old, replacement, 1) }
	hook := func(old, replacement string) string { return strings.Replace(webhookYAML, old, replacement, 1) }
	body := func(text string) string { return hook(`'{"to": {{json .To}}, "text": {{json .Text}}}'`, text) }
	for name, tc := range map[string]struct{ yaml, want string }{
		"another provider":               {"sms: {provider: pigeon, countries: [GB]}", "sms.provider: value"},
		"no countries":                   {twilio("countries: [GB]", "countries: []"), "sms.countries: is missing"},
		"a webhook without countries":    {hook("countries: [GB]", "countries: []"), "sms.countries: is missing"},
		"a country that is none":         {twilio("[GB]", "[UK]"), "sms.countries: value"},
		"a country in small letters":     {twilio("[GB]", "[gb]"), "sms.countries: value"},
		"a country by its prefix":        {twilio("[GB]", "['44']"), "sms.countries: value"},
		"only those not to":              {twilio("[GB]", "['!GB']"), "sms.countries: is missing"},
		"no country at all":              {twilio("countries: [GB]", "countries: [GB, '!*']"), "sms.countries: value"},
		"no sender":                      {twilio("default: Herald", "'44': Herald"), "sms.from.default: is missing"},
		"a prefix with a plus":           {twilio("default: Herald", "default: Herald, '+44': Herald"), "sms.from: value"},
		"a sender for no country":        {twilio("default: Herald", "default: Herald, XX: Herald"), "sms.from: value"},
		"a sender for a country in full": {twilio("default: Herald", "default: Herald, Canada: Herald"), "sms.from: value"},
		"a sender for a small country":   {twilio("default: Herald", "default: Herald, ca: Herald"), "sms.from: value"},
		"a sender that is too long":      {twilio("Herald", "Heraldissimus"), "sms.from.default: value"},
		"no account":                     {twilio("account_sid: AC0123456789abcdef0123456789abcdef, ", ""), "sms.twilio.account_sid: value"},
		"an account that is a path":      {twilio("AC0123456789abcdef0123456789abcdef", "AC/../x"), "sms.twilio.account_sid: value"},
		"a key that is none":             {twilio("auth_token: x", "auth_token: x, key_sid: x"), "sms.twilio.key_sid: value"},
		"no token":                       {twilio(", auth_token: x", ""), "sms.twilio.auth_token: is missing"},
		"Twilio without encryption":      {twilio("auth_token: x", "auth_token: x, base_url: 'http://api.twilio.com'"), "sms.twilio.base_url: must"},
		"Twilio at no host":              {twilio("auth_token: x", "auth_token: x, base_url: 'https:///x'"), "sms.twilio.base_url: must"},
		"no URL":                         {hook("url: https://sms.example.org/send", ""), "sms.webhook.url: is missing"},
		"a URL without encryption":       {hook("https:", "http:"), "sms.webhook.url: must be an https URL"},
		"a URL of another kind":          {hook("https:", "ftp:"), "sms.webhook.url: must be an https URL"},
		"a URL without a host":           {hook("https://sms.example.org", "https://"), "sms.webhook: url: must be an absolute URL"},
		"a URL with a password":          {hook("https://", "https://a:b@"), "sms.webhook: url: must be an absolute URL"},
		"a field in the host":            {hook("https://sms.example.org/send", `"https://{{.To}}.example.org/"`), "sms.webhook: url: must be an absolute URL"},
		"a field in the path":            {hook("/send", `/{{.To}}`), "sms.webhook: url: must be an absolute URL"},
		"a method that is none":          {hook("body:", "method: BREW\n    body:"), "sms.webhook.method: value"},
		"GET with a body":                {hook("body:", "method: GET\n    body:"), "sms.webhook.body: must not be there"},
		"a pattern that is none":         {webhookYAML + "    success_pattern: '('", "sms.webhook: error parsing regexp"},
		"a secret of two lines":          {webhookYAML + `    secret: "a\nb"`, "sms.webhook.secret: must be one line"},
		"a template that is none":        {body(`'{{.To'`), "sms.webhook: template: body"},
		"a URL template that is none":    {hook("/send", `/?{{.To`), "sms.webhook: template: url"},
		"a header template that is none": {hook("body:", "headers: {X-Key: '{{.Key'}\n    body:"), "sms.webhook: template: header X-Key"},
		"a field there is not":           {body(`'{{.Number}}'`), "sms.webhook: does not work with a sample message"},
		"a header field there is not":    {hook("body:", "headers: {X-Key: '{{.Key}}'}\n    body:"), "sms.webhook: does not work with a sample message"},
		"a text that breaks a header":    {hook("body:", "headers: {X-Text: '{{.Text}}'}\n    body:"), "sms.webhook: does not work with a sample message"},
		"JSON without escaping":          {body(`'{"to": "{{.To}}", "text": "{{.Text}}"}'`), "sms.webhook.body: is not JSON"},
		"a form without escaping":        {body(`'to={{.To}}&text={{.Text}}'`), "sms.webhook"},
		"a body without the text":        {body(`'to={{.To}}'`), "sms.webhook: does not pass on the text"},
	} {
		if _, err := parse(t, tc.yaml); err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %s", name, err, tc.want)
		}
	}
}

func TestNewRefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ yaml, want string }{
		"a faulty configuration": {"sms: {provider: webhook}", "sms.countries: is missing"},
	} {
		c, _ := parse(t, tc.yaml) // New validates again
		if _, err := sms.New(sms.Options{Config: c, Service: "x", Registerer: prometheus.NewRegistry()}); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %s", name, err, tc.want)
		}
	}
}

// FuzzWebhookTemplates checks that whatever passes validation makes a sender.
func FuzzWebhookTemplates(f *testing.F) {
	f.Add("https://sms.example.org/?x={{form .Text}}", `{"text": {{json .Text}}}`, "Bearer {{.Secret}}")
	f.Add("https://sms.example.org", "text={{form .Text}}", "")
	f.Add("https://x{{", "{{range .To}}{{end}}", "\r\n")
	f.Fuzz(func(t *testing.T, url, body, header string) {
		if strings.Contains(url+body+header, "{{range") || strings.Contains(url+body+header, "{{template") {
			t.Skip("templates are the operator's own and may be endless")
		}
		c := sms.Config{
			Provider: sms.ProviderWebhook, Countries: []string{"GB"},
			Webhook: sms.WebhookConfig{URL: url, Body: body, Headers: map[string]string{"X-Key": header}},
		}
		var p conf.Problems
		c.Validate("sms", &p)
		_, err := sms.New(sms.Options{Config: c, Service: "x", Registerer: prometheus.NewRegistry()})
		if (err == nil) != (p.Len() == 0) {
			t.Errorf("problems %v, error %v", p.Err(), err)
		}
	})
}
