package validation_test

import (
	"errors"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/matrix-herald/herald/identity/storetest"
	"github.com/matrix-herald/herald/threepid/validation"
)

// Conformance (requestToken): `client_secret` is 1 to 255 of `0-9a-zA-Z.=_-`, all of it (≠ Sydent: a newline at the end) | else 400 `M_INVALID_PARAM` (also TestRefusals)
func TestCheckClientSecretAndSID(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		s  string
		ok bool
	}{
		"the specification's example":     {"monkeys_are_GREAT", true},
		"every kind of character":         {"azAZ09.=_-", true},
		"one character":                   {".", true},
		"255 characters":                  {strings.Repeat("a", 255), true},
		"nothing":                         {"", false},
		"256 characters":                  {strings.Repeat("a", 256), false},
		"a newline at the end":            {"abc\n", false},
		"a newline at the beginning":      {"\nabc", false},
		"a good line after a bad one":     {"a b\nabc", false},
		"a space":                         {"a b", false},
		"a character beside the allowed":  {"a/b", false},
		"a NUL":                           {"a\x00b", false},
		"a letter beyond ASCII":           {"ä", false},
		"a full-width digit":              {"１", false},
		"invalid UTF-8":                   {"a\xff", false},
		"a plus sign that a form decodes": {"a+b", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := validation.CheckClientSecret(tc.s); (err == nil) != tc.ok || err != nil && !errors.Is(err, validation.ErrInvalidSecret) {
				t.Errorf("client_secret: %v", err)
			}
			if err := validation.CheckSID(tc.s); (err == nil) != tc.ok || err != nil && !errors.Is(err, validation.ErrInvalidSID) {
				t.Errorf("sid: %v", err)
			}
		})
	}
}

// Conformance (requestToken): next_link: http and https only, stored with the session (≠ Sydent: whatever the link says, an open redirect), with the sid in the query, and in the fragment's own query if it has one (also TestNextLinkCarriesTheSID, TestLinkNeverSaysWhereItLeads, TestLinkRedirectsToTheStoredNextLink)
// Conformance (security): `next_link` leads to the web, is kept with the session and may be restricted to hosts (also TestLinkNeverSaysWhereItLeads)
func TestCheckNextLink(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		link  string
		hosts []string
		ok    bool
	}{
		"https":                               {"https://example.org/congratulations.html", nil, true},
		"http":                                {"http://example.org", nil, true},
		"a scheme in capitals":                {"HTTPS://example.org", nil, true},
		"a client's route in the fragment":    {"https://app.example.org/#/register?client_secret=a&hs_url=https%3A%2F%2Fexample.org", nil, true},
		"an address and a port":               {"http://127.0.0.1:8080/", nil, true},
		"2048 bytes":                          {"https://example.org/" + strings.Repeat("a", 2028), nil, true},
		"an allowed host":                     {"https://app.example.org/x", []string{"other.example", "app.example.org"}, true},
		"an allowed host in other case":       {"https://APP.example.org/x", []string{"app.Example.org"}, true},
		"an allowed host on a port":           {"https://app.example.org:8443/x", []string{"app.example.org"}, true},
		"2049 bytes":                          {"https://example.org/" + strings.Repeat("a", 2029), nil, false},
		"nothing":                             {"", nil, false},
		"a path":                              {"/congratulations.html", nil, false},
		"a host without scheme":               {"//example.org/", nil, false},
		"a host name":                         {"example.org", nil, false},
		"a file":                              {"file:///etc/passwd", nil, false},
		"a script":                            {"javascript:alert(1)", nil, false},
		"a script that looks like a host":     {"javascript://example.org/%0aalert(1)", nil, false},
		"data":                                {"data:text/html,x", nil, false},
		"an application's own scheme":         {"element://vector/webapp", nil, false},
		"no host":                             {"https:///x", nil, false},
		"a port alone":                        {"https://:80/x", nil, false},
		"no slashes":                          {"https:example.org", nil, false},
		"user information":                    {"https://bank.example@evil.example/", nil, false},
		"a backslash in the path":             {`https://example.org/\evil.example`, nil, false},
		"backslashes for slashes":             {`https:\\evil.example/`, nil, false},
		"a backslash before the allowed host": {`https://evil.example\@app.example.org/`, []string{"app.example.org"}, false},
		"a line break":                        {"https://example.org/\r\nSet-Cookie: a=b", nil, false},
		"a leading space":                     {" https://example.org/", nil, false},
		"a space inside":                      {"https://example.org/a b", nil, false},
		"a tab in the scheme":                 {"ht\ttps://example.org/", nil, false},
		"a letter beyond ASCII":               {"https://example.org/ü", nil, false},
		"invalid UTF-8":                       {"https://example.org/\xff", nil, false},
		"a broken escape in the host":         {"https://example.org%zz/", nil, false},
		"another host than the allowed":       {"https://evil.example/", []string{"app.example.org"}, false},
		"a host below the allowed":            {"https://evil.app.example.org/", []string{"app.example.org"}, false},
		"a host that begins like the allowed": {"https://app.example.org.evil.example/", []string{"app.example.org"}, false},
		"the allowed host in the query":       {"https://evil.example/?app.example.org", []string{"app.example.org"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := validation.CheckNextLink(tc.link, tc.hosts)
			if (err == nil) != tc.ok || err != nil && !errors.Is(err, validation.ErrInvalidNextLink) {
				t.Errorf("%v", err)
			}
			if err != nil && len(tc.link) > 3 && strings.Contains(err.Error(), tc.link) {
				t.Error("the error quotes the link")
			}
		})
	}
}

func TestNextLinkCarriesTheSID(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string][2]string{
		"no query":                        {"https://example.org/done", "https://example.org/done?sid=SID"},
		"no path":                         {"https://example.org", "https://example.org?sid=SID"},
		"a query":                         {"https://example.org/?a=b", "https://example.org/?a=b&sid=SID"},
		"an empty query":                  {"https://example.org/?", "https://example.org/?sid=SID"},
		"a query that goes on":            {"https://example.org/?a=b&", "https://example.org/?a=b&sid=SID"},
		"a route in the fragment":         {"https://example.org/#/done", "https://example.org/?sid=SID#/done"},
		"a route with query":              {"https://example.org/#/register?a=b", "https://example.org/?sid=SID#/register?a=b&sid=SID"},
		"a query and a fragment after it": {"https://example.org/?a=b#/done", "https://example.org/?a=b&sid=SID#/done"},
		"a query and a route with query":  {"https://example.org/?a=b#/done?c=d", "https://example.org/?a=b&sid=SID#/done?c=d&sid=SID"},
		"an empty fragment":               {"https://example.org/#", "https://example.org/?sid=SID#"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := storetest.NewValidation(t, open(t))
			r := storetest.Email("s", 1)
			r.NextLink = tc[0]
			c := v.Sent(t, r)
			submitted, err := v.Submit(t.Context(), c.ID.Medium, c.SID, "s", c.Token)
			if err != nil {
				t.Fatal(err)
			}
			read, err := v.Validated(t.Context(), storetest.Owner, c.SID, "s")
			if err != nil {
				t.Fatal(err)
			}
			if want := strings.ReplaceAll(tc[1], "SID", c.SID); submitted.NextLink != want || read.NextLink != want {
				t.Errorf("submitted %q, read %q, want %q", submitted.NextLink, read.NextLink, want)
			}
			if again, err := v.Submit(t.Context(), c.ID.Medium, c.SID, "s", c.Token); err != nil || again.NextLink != "" {
				t.Errorf("submitted again: %q, %v", again.NextLink, err)
			}
			if c.NextLink != tc[0] {
				t.Errorf("the message has %q", c.NextLink)
			}
		})
	}
}

func FuzzCheckClientSecret(f *testing.F) {
	for _, s := range []string{"", "monkeys_are_GREAT", "abc\n", "a b", "ä", "a\xff", "\x00", strings.Repeat("a", 256)} {
		f.Add(s)
	}
	rule := regexp.MustCompile(`\A[0-9a-zA-Z.=_-]{1,255}\z`)
	f.Fuzz(func(t *testing.T, s string) {
		if err := validation.CheckClientSecret(s); (err == nil) != rule.MatchString(s) {
			t.Errorf("%q: %v", s, err)
		}
	})
}

func FuzzCheckNextLink(f *testing.F) {
	for _, s := range []string{
		"https://example.org/?a=b#c", "http://a", "https://a@b", `https:\\a`, "//a", "javascript://a/%0a", "https://[::1]:8/", "https://a\n",
		"https://%61.example", "https://a:b", "https:///a", "HTTP://A",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, link string) {
		if validation.CheckNextLink(link, nil) != nil {
			if validation.CheckNextLink(link, []string{"a"}) == nil {
				t.Errorf("%q is refused anywhere and allowed on one host", link)
			}
			return
		}
		for _, r := range link {
			if r <= ' ' || r > '~' || r == '\\' {
				t.Fatalf("%q lets %q through", link, r)
			}
		}
		// What a browser does: the scheme up to the first colon, then the authority
		// up to the first of /?#.
		scheme, rest, _ := strings.Cut(link, ":")
		rest, slashes := strings.CutPrefix(rest, "//")
		end := strings.IndexAny(rest+"/", "/?#")
		authority := rest[:end]
		if s := strings.ToLower(scheme); s != "http" && s != "https" || !slashes || authority == "" || strings.Contains(authority, "@") {
			t.Fatalf("%q leads elsewhere", link)
		}
		u, err := url.Parse(link)
		if err != nil {
			t.Fatal(err)
		}
		if validation.CheckNextLink(link, []string{u.Hostname()}) != nil || validation.CheckNextLink(link, []string{"x" + u.Hostname()}) == nil {
			t.Errorf("%q: the list of hosts does not decide", link)
		}
	})
}
