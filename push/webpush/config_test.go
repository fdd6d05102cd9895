package webpush_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/push/webpush"
)

// Conformance (Web Push): keys in PEM (PKCS #8, SEC 1) and base64url (raw, DER); several | the first signs (also TestVAPIDShowsWhatWebPagesSubscribeWith)
func TestFormsOfAVAPIDKey(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sec1, _ := x509.MarshalECPrivateKey(key)
	pkcs8, _ := x509.MarshalPKCS8PrivateKey(key)
	raw, _ := key.Bytes()
	public, _ := key.PublicKey.Bytes()
	want := base64.RawURLEncoding.EncodeToString(public)
	block := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	other, otherPublic := newKey(t)
	foreign, _ := rsa.GenerateKey(rand.Reader, 2048)
	foreignDER, _ := x509.MarshalPKCS8PrivateKey(foreign)
	for name, tc := range map[string]struct {
		text string
		want string
	}{
		"PKCS #8":                  {block("PRIVATE KEY", pkcs8), want},
		"SEC 1 as openssl has it":  {block("EC PARAMETERS", []byte{6, 8}) + block("EC PRIVATE KEY", sec1), want},
		"32 bytes":                 {base64.RawURLEncoding.EncodeToString(raw), want},
		"DER as Sygnal takes it":   {base64.URLEncoding.EncodeToString(pkcs8) + "\n", want},
		"several, the first signs": {other + block("PRIVATE KEY", pkcs8), otherPublic + " " + want},
		"lines":                    {base64.RawURLEncoding.EncodeToString(raw) + "\n" + base64.RawURLEncoding.EncodeToString(sec1), want + " " + want},
		"nothing":                  {"", ""},
		"another kind of key":      {block("PRIVATE KEY", foreignDER), ""},
		"a broken one among good":  {block("PRIVATE KEY", pkcs8) + block("PRIVATE KEY", pkcs8[:40]), ""},
		"no key":                   {"hunter2", ""},
	} {
		list, err := webpush.PublicKeys(tc.text)
		if got := strings.Join(list, " "); (err == nil) != (tc.want != "") || err == nil && got != tc.want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestConfigFaults(t *testing.T) {
	t.Parallel()
	day := conf.Duration(29 * 24 * time.Hour)
	for name, tc := range map[string]struct {
		change func(*webpush.Config)
		want   string // part of the only fault; "" for none
	}{
		"nothing wrong":               {func(*webpush.Config) {}, ""},
		"a contact by https":          {func(c *webpush.Config) { c.VAPIDContact = "https://example.org/contact" }, ""},
		"no contact":                  {func(c *webpush.Config) { c.VAPIDContact = "" }, "vapid_contact"},
		"a contact without its kind":  {func(c *webpush.Config) { c.VAPIDContact = "push@example.org" }, "vapid_contact"},
		"a contact with signs":        {func(c *webpush.Config) { c.VAPIDContact = "mailto:<push@example.org>" }, "vapid_contact"},
		"a contact with a space":      {func(c *webpush.Config) { c.VAPIDContact = "mailto: push@example.org" }, "vapid_contact"},
		"a contact nobody reaches":    {func(c *webpush.Config) { c.VAPIDContact = "mailto:root@localhost" }, "vapid_contact"},
		"a contact on the local net":  {func(c *webpush.Config) { c.VAPIDContact = "https://push.local" }, "vapid_contact"},
		"a contact at an address":     {func(c *webpush.Config) { c.VAPIDContact = "https://192.0.2.1" }, "vapid_contact"},
		"no key":                      {func(c *webpush.Config) { c.VAPIDKey = "" }, "vapid_key"},
		"a key that is none":          {func(c *webpush.Config) { c.VAPIDKey = "hunter2" }, "vapid_key"},
		"a TTL that nobody keeps":     {func(c *webpush.Config) { c.KeepFor = &day }, "keep_for"},
		"another payload":             {func(c *webpush.Config) { c.Payload = "dart" }, "payload"},
		"declarative without a page":  {func(c *webpush.Config) { c.Payload = webpush.PayloadDeclarative }, "navigate"},
		"an endpoint that is a URL":   {func(c *webpush.Config) { c.AllowedEndpoints = []string{"https://x"} }, "allowed_endpoints[0]"},
		"a network that is a name":    {func(c *webpush.Config) { c.AllowNetworks = []string{"x"} }, "allow_networks[0]"},
		"an endpoint without a host":  {func(c *webpush.Config) { c.DeniedEndpoints = []string{"x", ""} }, "denied_endpoints[1]"},
		"a page with a room in it":    {func(c *webpush.Config) { c.Payload, c.Navigate = webpush.PayloadDeclarative, "https://x/#/{room_id}" }, ""},
		"a page that is not by https": {func(c *webpush.Config) { c.Payload, c.Navigate = webpush.PayloadDeclarative, "javascript:x" }, "navigate"},
	} {
		cfg := webpush.Config{Common: common(t)}
		tc.change(&cfg)
		var p conf.Problems
		cfg.Validate("app", &p)
		err := p.Err()
		if (err == nil) != (tc.want == "") || err != nil && (p.Len() != 1 || !strings.Contains(err.Error(), "app."+tc.want) || strings.Contains(err.Error(), "hunter2")) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
