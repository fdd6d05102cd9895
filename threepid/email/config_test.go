package email_test

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/threepid/email"
	"github.com/matrix-herald/herald/threepid/threepidtest"
)

// parse reads a configuration from YAML and validates it.
func parse(t *testing.T, yaml string) (email.Config, error) {
	t.Helper()
	var file struct {
		Email  email.Config           `yaml:"email"`
		Brands map[string]email.Brand `yaml:"brands"`
	}
	if err := conf.Load(conf.LoadOptions{Name: "identity.yaml", Data: []byte(yaml), Dir: t.TempDir()}, &file); err != nil {
		t.Fatal(err)
	}
	var p conf.Problems
	file.Email.Brands = file.Brands
	file.Email.Validate("email", &p)
	return file.Email, p.Err()
}

func TestValidConfigurations(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		yaml     string
		warnings int
	}{
		"nothing at all": {"email: {}", 1},
		"the least":      {"email: {host: mail.example.org, from: noreply@example.org}", 0},
		"everything": {`email:
  host: "[2001:db8::25]:2525"
  tls: starttls
  username: id
  password: p
  auth: login
  from: "Matrix Ü <NoReply@bücher.example>"
  reply_to: help@example.org
  max_sending: 1000
brands: {acme: {from: acme@example.org, reply_to: "Acme <help@acme.example>"}}
`, 0},
		"a relay on this machine without TLS": {"email: {host: localhost, from: a@example.org, tls: none, username: x, password: y, auth: plain}", 0},
		"access tokens":                       {"email: {host: mail.example.org, from: a@example.org, username: x, oauth2: {token_url: 'https://x.example', client_id: x, client_secret: y, scopes: [z]}}", 0},
		"a relay elsewhere without TLS":       {"email: {host: mail.example.org, from: a@example.org, tls: none}", 1},
	} {
		c, err := parse(t, tc.yaml)
		if err != nil || len(c.Warnings()) != tc.warnings {
			t.Errorf("%s: %v, warnings %q", name, err, c.Warnings())
		}
	}
}

// Conformance (requestToken): the password, without TLS | never to another machine, and to this one only if `email.auth` says how (also TestLoggingIn)
func TestFaultyConfigurations(t *testing.T) {
	t.Parallel()
	const relay = "email: {host: mail.example.org, from: noreply@example.org, "
	const oauth = relay + "username: noreply@example.org, "
	const tokens = "{token_url: 'https://x.example', client_id: x, client_secret: y, scopes: [z]}"
	for name, tc := range map[string]struct{ yaml, want string }{
		"options without a host":               {"email: {from: noreply@example.org}", "email.host: is missing"},
		"no sender":                            {"email: {host: mail.example.org}", "email.from: is missing"},
		"a host with two ports":                {"email: {host: 'mail.example.org:25:25', from: a@example.org}", "email.host: value"},
		"a host that is an address and more":   {"email: {host: '2001:db8::25:x', from: a@example.org}", "email.host: value"},
		"a host that is a URL":                 {"email: {host: 'smtp://mail.example.org', from: a@example.org}", "email.host: value"},
		"a sender that is none":                {"email: {host: m.example.org, from: Matrix}", "email.from: value"},
		"a sender without a full domain":       {"email: {host: m.example.org, from: id@localhost}", "email.from: value"},
		"a sender beyond ASCII":                {"email: {host: m.example.org, from: zoë@example.org}", "email.from: value"},
		"two senders":                          {"email: {host: m.example.org, from: 'a@example.org, b@example.org'}", "email.from: value"},
		"a sender with a line break":           {`email: {host: m.example.org, from: "a@example.org\r\nBcc: b@example.org"}`, "email.from: value"},
		"a name with an encoded line break":    {`email: {host: m.example.org, from: "=?utf-8?q?a=0D=0ABcc:_b@example.org?= <a@example.org>"}`, "email.from: value"},
		"answers to nowhere":                   {relay + "reply_to: x}", "email.reply_to: value"},
		"a brand's sender that is none":        {relay + "}\nbrands: {acme: {from: x}}", `brands."acme".from: value`},
		"a brand without a name":               {relay + "}\nbrands: {'': {from: a@example.org}}", "brands: has a brand without a name"},
		"a way of TLS that there is not":       {relay + "tls: insecure}", "email.tls: value"},
		"a way to log in that there is not":    {relay + "username: x, password: y, auth: ntlm}", "email.auth: value"},
		"a port beyond all ports":              {"email: {host: 'm.example.org:65536', from: a@example.org}", "email.host: value"},
		"no port":                              {"email: {host: 'm.example.org:', from: a@example.org}", "email.host: value"},
		"a user name without a password":       {relay + "username: x}", "email.password: is missing"},
		"a password without a user name":       {relay + "password: x}", "email.username: is missing"},
		"a password in clear text":             {relay + "username: x, password: y, tls: none}", "email.tls: value"},
		"a password to this machine by chance": {"email: {host: localhost, from: a@example.org, tls: none, username: x, password: y}", "email.auth: value"},
		"tokens without an endpoint":           {oauth + "oauth2: {client_id: x, client_secret: y, scopes: [z]}}", "email.oauth2.token_url: must be"},
		"tokens from an endpoint without TLS":  {oauth + "oauth2: {token_url: 'http://x.example', client_id: x, client_secret: y, scopes: [z]}}", "email.oauth2.token_url: must be"},
		"tokens for nobody":                    {oauth + "oauth2: {token_url: 'https://x.example', client_secret: y, scopes: [z]}}", "email.oauth2.client_id: is missing"},
		"tokens without a secret":              {oauth + "oauth2: {token_url: 'https://x.example', client_id: x, scopes: [z]}}", "email.oauth2.client_secret: is missing"},
		"tokens for nothing":                   {oauth + "oauth2: {token_url: 'https://x.example', client_id: x, client_secret: y}}", "email.oauth2.scopes: is missing"},
		"a key that is none":                   {oauth + `oauth2: {token_url: "https://x.example", client_secret: '{"type":"x"}', scopes: [z]}}`, "email.oauth2.client_secret: is not"},
		"tokens and a password":                {oauth + "password: x, oauth2: " + tokens + "}", "email.password: is not"},
		"tokens without a mailbox":             {relay + "oauth2: " + tokens + "}", "email.username: is missing"},
		"tokens in clear text":                 {oauth + "tls: none, oauth2: " + tokens + "}", "email.tls: value"},
		"tokens for another way to log in":     {oauth + "auth: plain, password: x, oauth2: " + tokens + "}", "email.oauth2: is not"},
	} {
		if _, err := parse(t, tc.yaml); err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %s", name, err, tc.want)
		}
	}
}

func TestThePasswordComesFromAFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(path, []byte("hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := parse(t, "email: {host: m.example.org, from: a@example.org, username: x, password_file: "+path+"}")
	if err != nil || c.Password.Reveal() != "hunter2" {
		t.Errorf("%v", err)
	}
}

func TestNewRefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	good := email.Config{Host: "mail.example.org", From: "a@example.org"}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "verification.txt"), []byte("Subject: x\n\nno link\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	but := func(change func(c *email.Config)) email.Config { c := good; change(&c); return c }
	with := func(c email.Config, base string) email.Options { o := options(c); o.BaseURL = base; return o }
	for name, tc := range map[string]struct {
		config email.Config
		base   string
		want   string
	}{
		"a faulty configuration":        {but(func(c *email.Config) { c.TLS = "x" }), "https://id.example.org", "email.tls"},
		"a folder that is not there":    {but(func(c *email.Config) { c.Templates = filepath.Join(dir, "x") }), "https://id.example.org", "mail templates: template folder " + filepath.Join(dir, "x") + ": no such file"},
		"a template without its link":   {but(func(c *email.Config) { c.Templates = dir }), "https://id.example.org", "verification.txt: must show {{.Link}}"},
		"a language without a template": {but(func(c *email.Config) { c.DefaultLanguage = "eo" }), "https://id.example.org", "default language eo"},
		"no base URL":                   {good, "", "base URL"},
		"a base URL without a host":     {good, "https:///id", "base URL"},
		"a base URL with a line break":  {good, "https://id.example.org\r\n", "base URL"},
	} {
		_, err := email.New(with(tc.config, tc.base))
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %s", name, err, tc.want)
		}
		if _, err := email.NewPrinter(with(tc.config, tc.base), io.Discard); err == nil {
			t.Errorf("%s: the printer refuses nothing", name)
		}
	}
}

func TestOwnTemplates(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, content := range map[string]string{
		"verification.txt":      "Subject: Welcome to {{.Service}}\n\n.{{.Link}}\n.\nToken {{.Token}}, {{.Minutes}} minutes\n",
		"acme/verification.txt": "Subject: Acme\n\n{{.Link}}\n", "acme/verification.html": `<p lang="{{.Language}}"><a href="{{.Link}}">{{.Address}}</a>`,
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	relay := threepidtest.NewSMTP(t, threepidtest.SMTPOptions{})
	c := config(relay)
	c.Templates = dir
	s := newSender(t, c)
	if w := s.Warnings(); len(w) != 1 || !strings.Contains(w[0], "verification.txt has no .html beside it") {
		t.Errorf("warnings %q", w)
	}
	plain, acme := challenge(), challenge()
	acme.Brand, plain.Language, plain.ValidFor = "acme", "de", 90*time.Second
	if err := s.Send(t.Context(), plain); err != nil {
		t.Fatal(err)
	}
	if err := s.Send(t.Context(), acme); err != nil {
		t.Fatal(err)
	}
	link := "https://id.example.org/_matrix/identity/v2/validate/email/submitToken?client_secret=secret.1&sid=sid-1&token=TOKEN%2B%26%3D"
	m := relay.Wait(t, 2)
	if kind := m[0].Header(t, "Content-Type"); !strings.HasPrefix(kind, "text/plain") || m[0].Header(t, "Subject") != "Welcome to id.example.org" {
		t.Errorf("type %s, subject %s", kind, m[0].Header(t, "Subject"))
	}
	// A line with a single dot would end the mail, were it not for its escaping.
	if d := cmp.Diff("."+link+"\r\n.\r\nToken TOKEN+&=, 1 minutes\r\n", strings.ReplaceAll(strings.ReplaceAll(m[0].Text(t), "\r\n", "\n"), "\n", "\r\n")); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if d := cmp.Diff(`<p lang="en"><a href="`+strings.ReplaceAll(link, "&", "&amp;")+`">alice@bücher.example</a>`, strings.TrimSpace(m[1].HTML(t))); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
