package main

import (
	"fmt"
	"html"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/identity/storetest"
)

// Conformance (homeservers): brand: the client's (`?brand=`), if there is such a brand, else the homeserver's | in mails, text messages and pages (also TestHomeserversAreToldApart)
func TestWhatAClientAsksForGoesBeforeTheHomeservers(t *testing.T) {
	t.Parallel()
	w := words{brands: []string{"acme", "ajax"}, settings: map[string]HomeserverSettings{
		"a.example": {Brand: "acme", Language: "de"}, "b.example": {Language: "pt-BR"},
	}}
	for name, c := range map[string]struct {
		homeserver, brand, preferences string
		want                           [2]string
	}{
		"nothing":                             {"a.example", "", "", [2]string{"acme", "de"}},
		"a brand":                             {"a.example", "ajax", "", [2]string{"ajax", "de"}},
		"a brand that there is not":           {"a.example", "other", "", [2]string{"acme", "de"}},
		"a language":                          {"a.example", "", "fr", [2]string{"acme", "fr\nde"}},
		"languages that are none":             {"a.example", "", "français;;", [2]string{"acme", "français;;\nde"}},
		"a brand of a homeserver without one": {"b.example", "other", "", [2]string{"other", "pt-BR"}},
		"both of one without settings":        {"c.example", "other", "fr", [2]string{"other", "fr"}},
		"nothing of nobody in particular":     {"", "", "", [2]string{"", ""}},
	} {
		brand, language := w.choose(c.homeserver, c.brand, c.preferences)
		if diff := cmp.Diff(c.want, [2]string{brand, language}); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// Conformance (homeservers): brands that there are not | a fault of the configuration (also TestEveryFaultIsReportedAtOnce)
func TestSettingsOfHomeserversThatWork(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, folder := range []string{"mail/lettered", "sms/texted", "pages/paged", "pages/.git"} {
		if err := os.MkdirAll(filepath.Join(dir, folder), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	const rest = `
templates: .
email: {host: localhost, tls: none, from: a@example.org}
brands: {sending: {from: b@example.org}, answering: {reply_to: c@example.org}, inviting: {clients: [App <https://app.example.org>]}}
`
	for name, c := range map[string]struct{ settings, fault string }{
		"brands that send":             {"{brand: sending}", ""},
		"brands with letters":          {"{brand: lettered}", ""},
		"brands with text messages":    {"{brand: texted}", ""},
		"brands with pages":            {"{brand: paged}", ""},
		"brands that nobody has":       {"{brand: acme}", `brand: value "acme": there is no such brand: name it in brands, or give it a folder among the templates or the pages; known here: answering, inviting, lettered, paged, sending, texted`},
		"brands of tools":              {"{brand: .git}", `".git": there is no such brand`},
		"brands with clients":          {"{brand: inviting}", ""},
		"a sender of a former version": {"{from: d@example.org}", `settings["example.org"].from: is one of a brand now`},
		"nothing":                      {"{}", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(dir, strings.ReplaceAll(name, " ", "_")+".yaml")
			writeFile(t, file, rest+"homeservers: {settings: {example.org: "+c.settings+"}}\n")
			_, err := loadConfig(file, nil, false)
			if (c.fault == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.fault) {
				t.Errorf("error %v, want %q", err, c.fault)
			}
		})
	}
}

// TestHomeserversAreToldApart runs the program for two homeservers, one with a
// brand with words and one with a sender and a language, and turns a third away.
func TestHomeserversAreToldApart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, storetest.SQLite(t))
	dir := t.TempDir()
	for name, text := range map[string]string{
		"mail/acme/verification.txt": "Subject: Acme\n\nAcme asks you to follow {{.Link}}\n",
		"mail/acme/invitation.txt":   "Subject: Acme invites you\n\n{{.Sender}} is waiting for you: {{.Link}}\n",
		"pages/acme/success.html":    "Acme thanks you",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, name), text)
	}
	config, err := os.ReadFile(w.config)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(config), "homeservers: {", fmt.Sprintf(`homeservers: {allow: [%q, two.example], settings: {
  %q: {brand: acme},
  two.example: {brand: two, language: de}}, `, w.homeserver, w.homeserver), 1)
	writeFile(t, w.config, text+fmt.Sprintf("brands: {acme: {clients: ['Acme <https://chat.acme.example>']}, two: {from: Two <id@two.example>}}\ntemplates: %q\ntrusted_homeservers: {127.0.0.1: [two.example]}\n", dir))
	w.start(t)

	one := w.register(t, w.front.URL, "alice")
	one.post(t, "/validate/email/requestToken", `{"client_secret":"a","email":"alice@example.com","send_attempt":1}`)
	one.post(t, "/validate/email/requestToken?brand=unknown", `{"client_secret":"b","email":"alice@example.com","send_attempt":1}`)
	for i := range 2 {
		mail, link := w.relay.Wait(t, i+1)[i], w.mailed(t, i+1)
		if mail.Header(t, "Subject") != "Acme" || mail.From != "noreply@id.example.org" {
			t.Errorf("the mail of the brand: %q from %s", mail.Header(t, "Subject"), mail.From)
		}
		if _, page := press(t, link); page != "Acme thanks you" {
			t.Errorf("the page of the brand: %s", page)
		}
	}
	one.post(t, "/store-invite", `{"medium":"email","address":"carol@example.net","room_id":"!r","sender":%q}`, "@alice:"+w.homeserver)
	if _, page := send(t, http.MethodGet, w.mailed(t, 3).String(), "", ""); !strings.Contains(html.UnescapeString(page), `href="https://chat.acme.example/#/room/`) ||
		strings.Contains(page, "app.element.io") {
		t.Errorf("the page of the invite: %s", page)
	}
	if mail := w.relay.Wait(t, 3)[2]; mail.Header(t, "Subject") != "Acme invites you" {
		t.Errorf("the invite of the brand: %q", mail.Header(t, "Subject"))
	}

	request := url.Values{"client_secret": {"a"}, "email": {"bob@example.com"}, "send_attempt": {"1"}}
	for i, c := range []struct{ language, subject string }{
		{"", "Bitte bestätigen Sie Ihre E-Mail-Adresse"}, {"fr", "Bitte bestätigen Sie Ihre E-Mail-Adresse"}, {"en-GB", "Confirm your email address"},
	} {
		request.Set("client_secret", fmt.Sprint("secret", i))
		if status, answer := form(t, w.front.URL, "/validate/email/requestToken", request, http.Header{"Accept-Language": {c.language}}); status != http.StatusOK {
			t.Fatalf("%d %s", status, answer)
		}
		mail := w.relay.Wait(t, 4+i)[3+i]
		if mail.Header(t, "Subject") != c.subject || mail.Header(t, "From") != `"Two" <id@two.example>` || mail.From != "id@two.example" {
			t.Errorf("language %q: %q from %s", c.language, mail.Header(t, "Subject"), mail.Header(t, "From"))
		}
	}
	invite := url.Values{"medium": {"email"}, "address": {"dora@example.net"}, "room_id": {"!r"}, "sender": {"@bob:two.example"}, "room_name": {"Tee"}}
	if status, answer := form(t, w.front.URL, "/store-invite", invite, nil); status != http.StatusOK {
		t.Fatalf("%d %s", status, answer)
	}
	if mail := w.relay.Wait(t, 7)[6]; mail.Header(t, "Subject") != "Sie sind eingeladen: Tee" || mail.From != "id@two.example" {
		t.Errorf("the invite of a homeserver with a sender and a language: %q from %s", mail.Header(t, "Subject"), mail.From)
	}
	number := url.Values{"client_secret": {"a"}, "country": {"GB"}, "phone_number": {"07700900001"}, "send_attempt": {"1"}}
	if status, answer := form(t, w.front.URL, "/validate/msisdn/requestToken", number, nil); status != http.StatusOK {
		t.Fatalf("%d %s", status, answer)
	}
	if text := fmt.Sprint(w.gateway.Wait(t, 1)[0].JSON(t)["text"]); !strings.Contains(text, "ist Ihr Code") {
		t.Errorf("the text message: %s", text)
	}

	status, refusal := client{base: w.front.URL}.ask(t, http.MethodPost, "/account/register", `{"access_token":"x","matrix_server_name":"three.example"}`)
	if status != http.StatusForbidden || refusal["errcode"] != "M_FORBIDDEN" {
		t.Errorf("another homeserver: %d %v", status, refusal)
	}
}
