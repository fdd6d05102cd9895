package sms

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"text/template"
	"time"
	"unicode"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/internal/safehttp"
	"github.com/matrix-herald/herald/threepid"
	"github.com/matrix-herald/herald/threepid/sending"
)

// WebhookConfig is any gateway that takes messages over HTTP. URL, Headers and
// Body are templates with the fields .To (digits), .From, .Text and .Secret,
// and the functions json (a JSON string with its quotes) and form (a value in a
// form or query).
type WebhookConfig struct {
	// URL is where requests go; its query may have fields
	// ([templates](limits-and-brands.md#sms)).
	URL string `yaml:"url"`
	// Method is POST (the default), PUT or GET.
	Method string `yaml:"method"`
	// Headers are those of requests. Default: a Content-Type for the Body.
	Headers map[string]string `yaml:"headers"`
	// Body is the body of requests, a template.
	Body string `yaml:"body"`
	// Secret is for use in URL, Headers and Body as {{.Secret}}.
	Secret     conf.Secret `yaml:"secret"`
	SecretFile string      `yaml:"secret_file"`

	// SuccessStatus lists the status codes with which the gateway accepts a
	// message; default all from 200 to 299.
	SuccessStatus []int
	// SuccessPattern is a regular expression that the body of an accepting answer
	// must match.
	SuccessPattern string `yaml:"success_pattern"`

	// AllowNetworks lists private networks, as in 10.0.0.0/8, in which the gateway
	// may be.
	AllowNetworks []string `yaml:"test_allow_networks" conf:"hidden"`
	// RootCAs are the authorities that certificates may be signed by; nil is the
	// system's. It is no option.
	RootCAs *x509.CertPool
}

// fields are what the templates of a webhook are rendered with.
type fields struct {
	To, From, Text, Secret string
}

// webhook sends through a gateway.
type webhook struct {
	client  *safehttp.Client
	method  string
	url     *template.Template
	headers map[string]*template.Template
	body    *template.Template
	secret  conf.Secret
	status  []int // nil for 2xx
	pattern *regexp.Regexp
}

func newWebhook(c WebhookConfig, timeout time.Duration) (*webhook, error) {
	w, err := c.compile()
	if err != nil {
		return nil, err
	}
	networks, err := parseNetworks(c.AllowNetworks)
	if err != nil {
		return nil, err
	}
	w.client, err = newClient(timeout, networks, c.RootCAs)
	return w, err
}

func (w *webhook) send(ctx context.Context, m message) error {
	f, err := w.fill(fields{To: m.to, From: m.from, Text: m.text, Secret: w.secret.Reveal()})
	if err != nil {
		return sending.Failed(sending.Invalid, "no request could be made of it")
	}
	req, err := http.NewRequestWithContext(ctx, w.method, f.url.String(), strings.NewReader(f.body))
	if err != nil {
		return sending.Failed(sending.Invalid, "no request could be made of it")
	}
	req.Header = f.header
	got, err := roundTrip(w.client, req, m)
	switch {
	case err != nil:
		return err
	case w.status == nil && got.status/100 != 2, w.status != nil && !slices.Contains(w.status, got.status):
		return refused(got.status, 0, w.said(got, m))
	case w.pattern != nil && !w.pattern.Match(got.body):
		return &sending.Failure{
			Outcome: sending.Refused, Kind: threepid.ErrSend, Reason: "the provider's answer does not match success_pattern", Said: w.said(got, m),
		}
	}
	return nil
}

// probe connects to the gateway, which cannot be asked anything.
func (w *webhook) probe(ctx context.Context) error {
	f, err := w.fill(fields{Secret: w.secret.Reveal()})
	if err != nil {
		return sending.Failed(sending.Invalid, "no request could be made")
	}
	if err := w.client.Connect(ctx, f.url); err != nil {
		return noAnswer(ctx, err)
	}
	return nil
}

// said returns the words of an answer without the secret, which it may quote.
func (w *webhook) said(r response, m message) string {
	return sending.Redact(string(r.body), w.secret.Reveal(), m.to)
}

// filled is what a request is made of.
type filled struct {
	url    *url.URL
	header http.Header
	body   string
}

// fill renders the templates. Its errors may hold the secret.
func (w *webhook) fill(f fields) (filled, error) {
	out := filled{header: make(http.Header)}
	target, err := render(w.url, f)
	if err != nil {
		return filled{}, err
	}
	if out.url, err = url.Parse(target); err != nil {
		return filled{}, err
	}
	if out.body, err = render(w.body, f); err != nil {
		return filled{}, err
	}
	for name, t := range w.headers {
		value, err := render(t, f)
		if err != nil {
			return filled{}, err
		}
		if strings.ContainsFunc(value, unicode.IsControl) {
			return filled{}, fmt.Errorf("header %s has control characters", name)
		}
		out.header.Set(name, value)
	}
	return out, nil
}

func render(t *template.Template, f fields) (string, error) {
	var b strings.Builder
	err := t.Execute(&b, f)
	return b.String(), err
}

// compile parses the templates.
func (c WebhookConfig) compile() (*webhook, error) {
	w := &webhook{method: cmp.Or(c.Method, http.MethodPost), secret: c.Secret, status: c.SuccessStatus, headers: make(map[string]*template.Template)}
	parse := func(name, text string) (*template.Template, error) {
		functions := template.FuncMap{"json": quoteJSON, "form": url.QueryEscape}
		return template.New(name).Funcs(functions).Option("missingkey=error").Parse(text)
	}
	var err error
	if w.url, err = parse("url", c.URL); err != nil {
		return nil, err
	}
	if w.body, err = parse("body", c.Body); err != nil {
		return nil, err
	}
	// The part before the query is plain text, so where requests go is known.
	base, _, _ := strings.Cut(c.URL, "?")
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || u.User != nil || strings.Contains(base, "{{") {
		return nil, fmt.Errorf("url: must be an absolute URL with fields in its query only")
	}
	headers := maps.Clone(c.Headers)
	if headers == nil {
		headers = make(map[string]string)
	}
	if !slices.ContainsFunc(slices.Collect(maps.Keys(headers)), func(k string) bool { return strings.EqualFold(k, "Content-Type") }) && c.Body != "" {
		headers["Content-Type"] = c.contentType()
	}
	for name, text := range headers {
		if w.headers[name], err = parse("header "+name, text); err != nil {
			return nil, err
		}
	}
	if c.SuccessPattern != "" {
		w.pattern, err = regexp.Compile(c.SuccessPattern)
	}
	return w, err
}

// contentType guesses the type of Body from how it begins.
func (c WebhookConfig) contentType() string {
	if strings.HasPrefix(strings.TrimSpace(c.Body), "{") && !strings.HasPrefix(strings.TrimSpace(c.Body), "{{") {
		return "application/json"
	}
	return "application/x-www-form-urlencoded"
}

// quoteJSON returns s as a JSON string.
func quoteJSON(s string) (string, error) {
	b, err := json.Marshal(s)
	return string(b), err
}
