package httpapi_test

import (
	"html"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/identity/httpapi"
	"github.com/matrix-herald/herald/threepid"
)

// linkTo is the path of a mailed link.
func linkTo(path string, c threepid.Challenge) string {
	return path + "?" + linkQuery(c).Encode()
}

func linkQuery(c threepid.Challenge) url.Values {
	return url.Values{"sid": {c.SID}, "client_secret": {c.ClientSecret}, "token": {c.Token}}
}

// isPage fails the test unless the answer is a page with this heading, which
// the browser neither keeps nor tells others the address of.
func (a answer) isPage(t testing.TB, status int, heading string) {
	t.Helper()
	if a.status != status || !strings.Contains(string(a.body), "<h1>"+heading+"</h1>") {
		t.Fatalf("%d %s, want %d with %q", a.status, a.body, status, heading)
	}
	a.hasPageHeader(t)
	nonce := regexp.MustCompile(`<style nonce="([A-Z2-7]{26})">`).FindSubmatch(a.body)
	if nonce == nil {
		t.Fatalf("no nonce in %s", a.body)
	}
	policy := a.header.Get("Content-Security-Policy")
	if !strings.Contains(policy, "default-src 'none'; style-src 'nonce-"+string(nonce[1])+"';") {
		t.Errorf("Content-Security-Policy %q", policy)
	}
}

func (a answer) hasPageHeader(t testing.TB) {
	t.Helper()
	for name, want := range map[string]string{
		"Content-Type":           "text/html; charset=utf-8",
		"X-Content-Type-Options": "nosniff",
		"Referrer-Policy":        "no-referrer",
		"Cache-Control":          "no-store",
	} {
		if got := a.header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if !strings.HasPrefix(a.header.Get("Content-Security-Policy"), "default-src 'none';") {
		t.Errorf("Content-Security-Policy %q", a.header.Get("Content-Security-Policy"))
	}
}

// isValidated reports whether the session of c is.
func (w *world) isValidated(t testing.TB, token string, c threepid.Challenge) bool {
	t.Helper()
	a := w.send(t, get(getValidated+query(c), token))
	if a.status == http.StatusOK {
		return true
	}
	a.refused(t, 400, "M_SESSION_NOT_VALIDATED")
	return false
}

// Conformance (submitToken): GET: a page, or a redirect to next_link; failures are pages with a 4xx (≠ Sydent: 200; 500 for every number) (also TestTextedLinkRedirectsToo, TestFailedLinks)
func TestLinkValidates(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	token := w.register(t, alice)
	c := w.session(t, token, "alice@example.org", "secret")
	for range 2 { // people click twice
		w.send(t, get(linkTo(emailSubmit, c), "")).isPage(t, 200, "Email address confirmed")
		if !w.isValidated(t, token, c) {
			t.Fatal("not validated")
		}
	}
	w.send(t, post(msisdnRequest, token, `{"client_secret":"s","country":"GB","phone_number":"07700900001","send_attempt":1}`)).object(t)
	w.send(t, get(linkTo(msisdnSubmit, w.sms.last(t)), "")).isPage(t, 200, "Phone number confirmed")
}

// Conformance (submitToken): a mailed link (≠ the specification: GET validates) | shows a page with one button, and only its press validates, because mail scanners follow links; with `validation.confirm_page: false` as specified; HEAD changes nothing (also TestConfirmPageValidatesAtTheButton)
func TestHeadOfALinkChangesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	token := w.register(t, alice)
	c := w.session(t, token, "alice@example.org", "secret")
	a := w.send(t, request{method: "HEAD", path: linkTo(emailSubmit, c)})
	if a.status != http.StatusOK || len(a.body) != 0 {
		t.Errorf("%d %q", a.status, a.body)
	}
	a.hasPageHeader(t)
	if w.isValidated(t, token, c) {
		t.Error("HEAD validated the session")
	}
}

// Conformance (requestToken): a link that has proved its address already (≠ the specification: redirects again) | a page that says so; only the proof itself leads to next_link (also TestNextLinkCarriesTheSID)
func TestLinkRedirectsToTheStoredNextLink(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ next, want string }{
		"a page":              {"https://app.example.org/done", "https://app.example.org/done?sid="},
		"a page with a query": {"https://app.example.org/done?x=1", "https://app.example.org/done?x=1&sid="},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			body := encode(t, map[string]any{"client_secret": "s", "email": "a@b.org", "send_attempt": 1, "next_link": tt.next})
			w.send(t, post(emailRequest, w.register(t, alice), body)).object(t)
			c := w.mail.last(t)
			a := w.send(t, get(linkTo(emailSubmit, c), ""))
			if got := a.header.Get("Location"); a.status != http.StatusFound || got != tt.want+c.SID {
				t.Errorf("%d to %q, want 302 to %q", a.status, got, tt.want+c.SID)
			}
			if a.header.Get("Referrer-Policy") != "no-referrer" || a.header.Get("Cache-Control") != "no-store" {
				t.Errorf("header %v", a.header)
			}
			// A link of one's own would send others there for as long as its session lasts.
			w.send(t, get(linkTo(emailSubmit, c), "")).isPage(t, 200, "Email address confirmed")
		})
	}
}

func TestTextedLinkRedirectsToo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.send(t, post(msisdnRequest, w.register(t, alice), `{"client_secret":"s","country":"GB","phone_number":"07700900001",
		"send_attempt":1,"next_link":"https://app.example.org/done"}`)).object(t)
	c := w.sms.last(t)
	a := w.send(t, get(linkTo(msisdnSubmit, c), ""))
	if got := a.header.Get("Location"); a.status != http.StatusFound || got != "https://app.example.org/done?sid="+c.SID {
		t.Errorf("%d to %q", a.status, got)
	}
}

// Conformance (attacks): an open redirect: by the link, or by one's own link that has done its work | next_link is stored with the session, http or https only; only the proof itself leads there, once (also TestLinkRedirectsToTheStoredNextLink, FuzzCheckNextLink)
func TestLinkNeverSaysWhereItLeads(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	token := w.register(t, alice)
	c := w.session(t, token, "alice@example.org", "secret")
	evil := "&nextLink=https://evil.example/&next_link=https://evil.example/"
	a := w.send(t, get(linkTo(emailSubmit, c)+evil, ""))
	a.isPage(t, 200, "Email address confirmed")
	if strings.Contains(string(a.body), "evil") {
		t.Errorf("the page names the link's destination: %s", a.body)
	}
}

// Conformance (submitToken): a session of one medium at the other's endpoint (≠ Sydent: taken) | refused (also TestRefusedTokens)
func TestFailedLinks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	token := w.register(t, alice)
	c := w.session(t, token, "alice@example.org", "secret")
	without := func(name string) string {
		q := linkQuery(c)
		q.Del(name)
		return emailSubmit + "?" + q.Encode()
	}
	with := func(name, value string) string {
		q := linkQuery(c)
		q.Set(name, value)
		return emailSubmit + "?" + q.Encode()
	}
	const incomplete, void = "This link is incomplete", "This link is no longer valid"
	tests := map[string]struct{ path, heading string }{
		"without a sid":                  {without("sid"), incomplete},
		"without a client_secret":        {without("client_secret"), incomplete},
		"without a token":                {without("token"), incomplete},
		"without anything":               {emailSubmit, incomplete},
		"with a malformed sid":           {with("sid", "<script>"), incomplete},
		"with a malformed client_secret": {with("client_secret", ""), incomplete},
		"with an unknown sid":            {with("sid", "unknown"), void},
		"with a wrong client_secret":     {with("client_secret", "wrong"), void},
		"with a wrong token":             {with("token", "<script>"), void},
		"of another medium":              {linkTo(msisdnSubmit, c), void},
	}
	for name, tt := range tests {
		a := w.send(t, get(tt.path, ""))
		a.isPage(t, 400, tt.heading)
		if strings.Contains(string(a.body), "<script") {
			t.Errorf("a link %s: %s", name, a.body)
		}
	}
	if w.isValidated(t, token, c) {
		t.Error("a failed link validated the session")
	}
	w.clock.advance(24 * time.Hour)
	w.send(t, get(linkTo(emailSubmit, c), "")).isPage(t, 400, "This link has expired")
	check(t, w.db.Close())
	w.send(t, get(linkTo(emailSubmit, c), "")).isPage(t, 500, "Something went wrong")
	if !strings.Contains(w.log.String(), "level=ERROR") {
		t.Error("our own fault is not in the log")
	}
}

const confirmPath = "/_matrix/identity/v2/validate/email/confirm"

func (w *world) press(t testing.TB, form string) answer {
	t.Helper()
	return w.send(t, request{"POST", confirmPath, "", form, http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}})
}

// Conformance (attacks): a mail scanner follows the link of a session that somebody else began; another account binds the address with sid and client_secret | only the press of a button proves an address; a session is of the account, or by version 1 the homeserver, that began it (also TestHeadOfALinkChangesNothing, TestASessionIsOfWhoBeganIt)
func TestConfirmPageValidatesAtTheButton(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(s *settings) { s.api.ConfirmPage = true })
	token := w.register(t, alice)
	c := w.session(t, token, "alice@example.org", "secret")
	shown := w.send(t, get(linkTo(emailSubmit, c), ""))
	shown.isPage(t, 200, "Confirm your email address")
	if w.isValidated(t, token, c) {
		t.Fatal("the page validated the session without the button")
	}
	form := url.Values{}
	for _, input := range regexp.MustCompile(`<input type="hidden" name="(.*)" value="(.*)">`).FindAllStringSubmatch(string(shown.body), -1) {
		form.Set(input[1], html.UnescapeString(input[2]))
	}
	if diff := cmp.Diff(linkQuery(c), form); diff != "" {
		t.Errorf("form: %s", diff)
	}
	w.press(t, form.Encode()).isPage(t, 200, "Email address confirmed")
	if !w.isValidated(t, token, c) {
		t.Error("the button did not validate the session")
	}
}

func TestConfirmPageRedirectsAfterTheButton(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(s *settings) { s.api.ConfirmPage = true })
	w.send(t, post(emailRequest, w.register(t, alice),
		`{"client_secret":"s","email":"a@b.org","send_attempt":1,"next_link":"https://app.example.org/done"}`)).object(t)
	c := w.mail.last(t)
	w.send(t, get(linkTo(emailSubmit, c), "")).isPage(t, 200, "Confirm your email address")
	a := w.press(t, linkQuery(c).Encode())
	if got := a.header.Get("Location"); a.status != http.StatusSeeOther || got != "https://app.example.org/done?sid="+c.SID {
		t.Errorf("%d to %q", a.status, got)
	}
}

func TestConfirmPageRefusesForms(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(s *settings) { s.api.ConfirmPage = true })
	token := w.register(t, alice)
	c := w.session(t, token, "alice@example.org", "secret")
	const incomplete, void = "This link is incomplete", "This link is no longer valid"
	wrong := linkQuery(c)
	wrong.Set("token", "wrong")
	tests := map[string]struct{ form, heading string }{
		"an empty form":            {"", incomplete},
		"a form that is no form":   {"%zz", incomplete},
		"a form over 64 KiB":       {linkQuery(c).Encode() + "&x=" + strings.Repeat("x", 64<<10), incomplete},
		"a form with JSON":         {proof(t, c), incomplete},
		"a form with a wrong code": {wrong.Encode(), void},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w.press(t, tt.form).isPage(t, 400, tt.heading)
		})
	}
	// The query is not the form: a scanner that POSTs the link proves nothing.
	w.send(t, request{method: "POST", path: linkTo(confirmPath, c)}).isPage(t, 400, incomplete)
	w.send(t, get(emailSubmit, "")).isPage(t, 400, incomplete)
	w.send(t, request{method: "GET", path: linkTo(confirmPath, c)}).refused(t, 405, "M_UNRECOGNIZED")
	if w.isValidated(t, token, c) {
		t.Error("a refused form validated the session")
	}
}

func write(t testing.TB, dir, name, content string) {
	t.Helper()
	check(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
}

// Conformance (submitToken): pages are the operator's templates (also TestFaultyPagesAreFoundAtStart)
func TestOwnPages(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "success.html", `<style nonce="{{.Nonce}}">{{template "style.css"}}</style>Thanks for your {{.Medium}} <b>& more</b>`)
	write(t, dir, "style.css", `p { color: red }`)
	write(t, dir, ".hidden", `{{`)
	w := newWorld(t, func(s *settings) { s.pages = dir })
	c := w.session(t, w.register(t, alice), "alice@example.org", "secret")
	got := w.send(t, get(linkTo(emailSubmit, c), ""))
	nonce := regexp.MustCompile(`'nonce-(.*?)'`).FindStringSubmatch(got.header.Get("Content-Security-Policy"))
	if want := `<style nonce="` + nonce[1] + `">p { color: red }</style>Thanks for your email <b>& more</b>`; string(got.body) != want {
		t.Errorf("%s, want %s", got.body, want)
	}
	w.send(t, get(emailSubmit, "")).isPage(t, 400, "This link is incomplete") // not overridden
}

// TestPagesOfBrands follows links of a brand: what it has no page for is shown as
// for everybody.
//
// Conformance (homeservers): pages of a brand; a link may name any brand, and nothing else by that | what the brand lacks, and unknown brands, as for everybody
func TestPagesOfBrands(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	check(t, os.Mkdir(filepath.Join(dir, "acme"), 0o700))
	write(t, dir, "failure.html", `{{template "style.css"}} failed: {{.Reason}}`)
	write(t, dir, "style.css", `p { color: red }`)
	write(t, dir, "acme/success.html", `Acme thanks`)
	write(t, dir, "acme/style.css", `p { color: blue }`)
	write(t, dir, "acme/invite.html", `Acme: {{.Sender}}`)
	pages, err := httpapi.LoadPages(dir)
	check(t, err)
	if diff := cmp.Diff([]string{"acme"}, pages.Brands()); diff != "" {
		t.Error(diff)
	}
	w := newWorld(t, func(s *settings) { s.pages, s.api.ConfirmPage = dir, true })
	token := w.register(t, alice)
	show := func(r request) string { return string(w.send(t, r).body) }
	c := w.session(t, token, "alice@example.org", "secret")
	confirm := show(get(linkTo(emailSubmit, c)+"&brand=acme", ""))
	if !strings.Contains(confirm, `action="confirm?brand=acme"`) || !strings.Contains(confirm, "color: blue") {
		t.Errorf("the page with the button: %s", confirm)
	}
	button := request{"POST", confirmPath + "?brand=acme", "", "", http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}}
	button.body = url.Values{"sid": {c.SID}, "client_secret": {c.ClientSecret}, "token": {c.Token}}.Encode()
	if got := show(button); got != "Acme thanks" {
		t.Errorf("after the button: %s", got)
	}
	if got := show(get(emailSubmit+"?brand=acme", "")); got != "p { color: blue } failed: broken" {
		t.Errorf("a broken link of the brand: %s", got)
	}
	for _, brand := range []string{"", "other", "../acme", "acme/"} {
		if got := show(get(emailSubmit+"?brand="+url.QueryEscape(brand), "")); got != "p { color: red } failed: broken" {
			t.Errorf("a broken link of %q: %s", brand, got)
		}
	}
	_, mail := w.invite(t, token, nil)
	invite := invitePath + "?" + url.Values{"token": {mail.Token}, "private_key": {mail.PrivateKey}, "brand": {"acme"}}.Encode()
	if got := show(get(invite, "")); got != "Acme: "+alice {
		t.Errorf("the invite of the brand: %s", got)
	}
	write(t, dir, "acme/success.html", `{{.Adress}}`)
	if _, err := httpapi.LoadPages(dir); err == nil || !strings.Contains(err.Error(), "brand acme: ") {
		t.Errorf("a faulty page of a brand: %v", err)
	}
	check(t, os.Mkdir(filepath.Join(dir, "acme", "more"), 0o700))
	if _, err := httpapi.LoadPages(dir); err == nil || !strings.Contains(err.Error(), "more") {
		t.Errorf("a brand in a brand: %v", err)
	}
}

func TestFaultyPagesAreFoundAtStart(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ name, content, want string }{
		"a file with another name":        {"sucess.html", "", "sucess.html"},
		"a template that does not parse":  {"success.html", "{{", "success.html"},
		"a field that does not exist":     {"confirm.html", "{{.Adress}}", "Adress"},
		"a field behind one reason":       {"failure.html", `{{if eq .Reason "unavailable"}}{{.Adress}}{{end}}`, "Adress"},
		"a field behind one medium":       {"success.html", `{{if eq .Medium "msisdn"}}{{.Adress}}{{end}}`, "Adress"},
		"a template that does not exist":  {"success.html", `{{template "header.html"}}`, "header.html"},
		"a value where none can be safe":  {"success.html", `<script>{{.Medium}}`, "success.html"},
		"a page that ends inside a quote": {"failure.html", `<p title="x`, "failure.html"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, dir, tt.name, tt.content)
			if _, err := httpapi.LoadPages(dir); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
	if _, err := httpapi.LoadPages(filepath.Join(t.TempDir(), "missing")); err == nil {
		t.Error("a folder that does not exist was taken")
	}
}
