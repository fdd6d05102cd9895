package threepid_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/text/cases"
	"golang.org/x/text/language"

	"github.com/matrix-herald/herald/threepid"
)

// Conformance (requestToken): addresses are folded before anything else (≠ Sydent: `Alice@` and `alice@` are two sessions) (also TestEmailIsValidated)
// Conformance (canonical forms): folding as Unicode has it, Cherokee included; no normalisation (also TestEveryCaseVariantOfEveryCharacterIsOneMailbox, FuzzParseEmail)
// Conformance (canonical forms): domains: one identifier for U-label and A-label; mail to the A-label (also TestAddressesBeyondASCII)
func TestParseEmail(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		in, address, mail string
		spellings         []string
	}{
		"a plain address stays as it is": {
			"alice@example.org", "alice@example.org", "alice@example.org", []string{"alice@example.org"},
		},
		"both parts are folded": {
			"Alice.B@Example.ORG", "alice.b@example.org", "alice.b@example.org", []string{"alice.b@example.org"},
		},
		"the example of the specification, with JavaScript's lower case as a second spelling": {
			"Strauß@Example.com", "strauss@example.com", "strauss@example.com",
			[]string{"strauss@example.com", "strauß@example.com"},
		},
		"a long s is an s in both parts": {
			"ſmith@ſmith.example", "smith@smith.example", "smith@smith.example",
			[]string{"smith@smith.example", "ſmith@ſmith.example"},
		},
		"a Kelvin sign and a ligature": {
			"Kﬁ@example.com", "kfi@example.com", "kfi@example.com",
			[]string{"kfi@example.com", "kﬁ@example.com"},
		},
		"the Turkish capital I with dot keeps its dot, so that it is no other mailbox": {
			"İ@example.com", "i̇@example.com", "i̇@example.com", []string{"i̇@example.com"},
		},
		"the Turkish dotless i stays dotless": {
			"ı@example.com", "ı@example.com", "ı@example.com", []string{"ı@example.com"},
		},
		"a final sigma is a sigma": {
			"ΑΣ@example.com", "ασ@example.com", "ασ@example.com", []string{"ασ@example.com", "ας@example.com"},
		},
		"small Cherokee letters fold to the capitals": {
			"ꭰᏸ@example.com", "ᎠᏰ@example.com", "ᎠᏰ@example.com", []string{"ᎠᏰ@example.com", "ꭰᏸ@example.com"},
		},
		"capital Cherokee letters stay": {
			"ᎠᏰ@example.com", "ᎠᏰ@example.com", "ᎠᏰ@example.com", []string{"ᎠᏰ@example.com", "ꭰᏸ@example.com"},
		},
		"an internationalised domain is kept in Unicode and mailed to in ASCII": {
			"Zoë@Bücher.Example", "zoë@bücher.example", "zoë@xn--bcher-kva.example",
			[]string{"zoë@bücher.example", "zoë@xn--bcher-kva.example"},
		},
		"an A-label domain is the same mailbox as its U-label": {
			"a@XN--BCHER-KVA.example", "a@bücher.example", "a@xn--bcher-kva.example",
			[]string{"a@bücher.example", "a@xn--bcher-kva.example"},
		},
		"a decomposed domain is composed and a decomposed local part is not": {
			"e\u0301@bu\u0308cher.example", "e\u0301@bücher.example", "e\u0301@xn--bcher-kva.example",
			[]string{"e\u0301@bücher.example", "e\u0301@xn--bcher-kva.example", "e\u0301@bu\u0308cher.example"},
		},
		"an eszett in the domain leads to that very domain": {
			"a@straße.example", "a@straße.example", "a@xn--strae-oqa.example",
			[]string{"a@straße.example", "a@xn--strae-oqa.example"},
		},
		"a lower case that is another domain is no spelling of this one": {
			// UTS 46 maps the last Σ to σ; toLowerCase makes it ς, another domain.
			"a@ΒΌΛΟΣ.example", "a@βόλοσ.example", "a@xn--nxasmq6b.example",
			[]string{"a@βόλοσ.example", "a@xn--nxasmq6b.example"},
		},
		"an ideographic full stop separates labels": {
			"a@example。com", "a@example.com", "a@example.com", []string{"a@example.com", "a@example。com"},
		},
		"every character of a dot-atom": {
			"!#$%&'*+-/=?^_`{|}~.x@example.com", "!#$%&'*+-/=?^_`{|}~.x@example.com", "!#$%&'*+-/=?^_`{|}~.x@example.com",
			[]string{"!#$%&'*+-/=?^_`{|}~.x@example.com"},
		},
		"a subaddress is an address of its own": {
			"a+news@example.com", "a+news@example.com", "a+news@example.com", []string{"a+news@example.com"},
		},
		"the longest address": {
			strings.Repeat("a", 488) + "@example.com", strings.Repeat("a", 488) + "@example.com",
			strings.Repeat("a", 488) + "@example.com", []string{strings.Repeat("a", 488) + "@example.com"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, err := threepid.ParseEmail(tc.in)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := e.ID(), (threepid.ID{Medium: "email", Address: tc.address}); got != want {
				t.Errorf("address %q, want %q", got.Address, want.Address)
			}
			if got := e.MailAddress(); got != tc.mail {
				t.Errorf("mail address %q, want %q", got, tc.mail)
			}
			if d := cmp.Diff(tc.spellings, e.Spellings()); d != "" {
				t.Errorf("spellings (-want +got):\n%s", d)
			}
			viaAPI, err := threepid.Spellings("email", tc.in)
			if err != nil || !slices.Equal(viaAPI, tc.spellings) {
				t.Errorf("Spellings answers %q, %v", viaAPI, err)
			}
		})
	}
}

// Conformance (requestToken): two `@`, names, lists, line breaks, no `@` (≠ Sydent: some taken, some 500); too long | 400 `M_INVALID_EMAIL` (also FuzzParseEmail, TestRefusals)
// Conformance (attacks): mail to one reading of an address, proof of another (CVE-2019-11340) | one parser; the canonical address is mailed, stored and proved (also TestEveryCaseVariantOfEveryCharacterIsOneMailbox, FuzzParseEmail)
func TestParseEmailRefuses(t *testing.T) {
	t.Parallel()
	for name, in := range map[string]string{
		"nothing":                                   "",
		"an at sign alone":                          "@",
		"no at sign":                                "noat",
		"no local part":                             "@b.example",
		"no domain":                                 "a@",
		"two at signs":                              "a@bad.example@good.example",
		"two at signs side by side":                 "a@@b.example",
		"angle brackets":                            "<a@b.example>",
		"a display name":                            "A <a@b.example>",
		"a comment":                                 "a(comment)@b.example",
		"a mailto URI":                              "mailto:a@b.example",
		"a list with commas":                        "a@b.example,c@d.example",
		"a list with semicolons":                    "a@b.example;c@d.example",
		"a leading space":                           " a@b.example",
		"a trailing space":                          "a@b.example ",
		"a space inside":                            "a b@c.example",
		"a no-break space":                          "a\u00a0b@c.example",
		"a trailing newline":                        "a@b.example\n",
		"a header after a line break":               "a@b.example\r\nBcc: c@d.example",
		"a carriage return in the local part":       "a\rb@c.example",
		"a NUL":                                     "a\x00@b.example",
		"a C1 control":                              "a\u0085@b.example",
		"a DEL":                                     "a\x7f@b.example",
		"invalid UTF-8":                             "a\xff@b.example",
		"a zero-width space":                        "a\u200b@b.example",
		"a right-to-left override":                  "a\u202eb@c.example",
		"a private-use character":                   "\ue000@b.example",
		"an unassigned character":                   "\u0378@b.example",
		"a quoted local part":                       `"a b"@c.example`,
		"a backslash":                               `a\b@c.example`,
		"a leading dot":                             ".a@b.example",
		"a trailing dot in the local part":          "a.@b.example",
		"two dots":                                  "a..b@c.example",
		"an IPv4 literal":                           "a@[127.0.0.1]",
		"an IPv6 literal":                           "a@[IPv6:::1]",
		"a bare IPv4 address":                       "a@127.0.0.1",
		"a full-width IPv4 address":                 "a@１２７.0.0.1",
		"a top-level domain of digits":              "a@b.123",
		"a port":                                    "a@b.example:25",
		"one label":                                 "a@localhost",
		"an empty label":                            "a@b..example",
		"a leading dot in the domain":               "a@.example",
		"a trailing dot in the domain":              "a@b.example.",
		"a trailing ideographic full stop":          "a@b.example。",
		"a label that begins with a hyphen":         "a@-b.example",
		"a label that ends with a hyphen":           "a@b-.example",
		"an underscore in the domain":               "a@b_c.example",
		"a full-width at sign in the domain":        "a@b＠c.example",
		"a percent sign in the domain":              "a@b%c.example",
		"Punycode that decodes to ASCII":            "a@xn--example-.com",
		"Punycode that decodes to nothing":          "a@xn--.com",
		"broken Punycode":                           "a@xn--a.example",
		"a joiner without a script that needs it":   "a@b\u200dc.example",
		"a domain whose reading depends on Unicode": "a@STRAẞE.example",
		"a label of 64 characters":                  "a@" + strings.Repeat("b", 64) + ".example",
		"a domain of more than 253 characters":      "a@" + strings.Repeat("abcdefg.", 32) + "example",
		"501 bytes":                                 strings.Repeat("a", 489) + "@example.com",
		"an address that folding makes too long":    strings.Repeat("ΐ", 240) + "@example.com",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, err := threepid.ParseEmail(in)
			if !errors.Is(err, threepid.ErrInvalidEmail) {
				t.Fatalf("ParseEmail: address %q, error %v", e.ID().Address, err)
			}
			if len(in) > 1 && strings.Contains(err.Error(), in) {
				t.Error("the error quotes the address")
			}
			if (e.ID() != threepid.ID{}) || e.Spellings() != nil {
				t.Error("a refused address has an identifier")
			}
			if _, err := threepid.Spellings("email", in); !errors.Is(err, threepid.ErrInvalidEmail) {
				t.Errorf("Spellings: %v", err)
			}
		})
	}
}

// Case folding must join what Unicode says differs only in case, for every
// letter there is, and must stay put when it is done twice.
//
// Conformance (requestToken): mail goes to the canonical address, so that nobody captures another's mailbox (CVE-2019-11340) (also TestAMailArrives)
// Conformance (security): one reading of an address: what is mailed to is what is stored and bound (CVE-2019-11340) (also TestAddressesBeyondASCII, TestAMailArrives)
func TestEveryCaseVariantOfEveryCharacterIsOneMailbox(t *testing.T) {
	t.Parallel()
	parse := func(local string) (string, bool) {
		e, err := threepid.ParseEmail(local + "@example.com")
		return e.ID().Address, err == nil
	}
	lower := cases.Lower(language.Und)
	accepted := 0
	for r := rune(0x80); r <= unicode.MaxRune; r++ {
		if !unicode.IsPrint(r) {
			continue
		}
		want, ok := parse(string(r))
		if !ok {
			t.Fatalf("%U is refused", r)
		}
		accepted++
		for v := unicode.SimpleFold(r); v != r; v = unicode.SimpleFold(v) {
			if got, _ := parse(string(v)); got != want {
				t.Errorf("%U is %q, %U is %q", r, want, v, got)
			}
		}
		for _, again := range []string{lower.String(string(r)), strings.TrimSuffix(want, "@example.com")} {
			if got, _ := parse(again); got != want {
				t.Errorf("%U is %q, %+q is %q", r, want, again, got)
			}
		}
	}
	if accepted < 100_000 {
		t.Errorf("only %d characters were tried", accepted)
	}
}

func FuzzParseEmail(f *testing.F) {
	for _, s := range []string{
		"alice@example.org", "Strauß@Example.com", "a@straße.de", "ſ@ſ.example", "İ@İ.example", "a@ΒΌΛΟΣ.gr", "ꭰᎠ@Ꭰ.example",
		"a@b@c", "<a@b.example>", "a@xn--bcher-kva.example", "a@example。com", "ΐ@ΐ.example", "a@[1.2.3.4]", "a\r\n@b.example", "a@STRAẞE.de",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e, err := threepid.ParseEmail(s)
		if err != nil {
			return
		}
		id := e.ID()
		same := func(what, other string) {
			t.Helper()
			o, err := threepid.ParseEmail(other)
			if err != nil || o.ID() != id || o.MailAddress() != e.MailAddress() {
				t.Errorf("%q is %q, but %s %q is %q (%v)", s, id.Address, what, other, o.ID().Address, err)
			}
		}
		same("the canonical form", id.Address)
		same("the mail address", e.MailAddress())
		for _, spelling := range e.Spellings() {
			same("the spelling", spelling)
		}
		for _, r := range id.Address + e.MailAddress() {
			if unicode.IsControl(r) || unicode.IsSpace(r) || strings.ContainsRune(`<>,;:"()[]\`, r) {
				t.Errorf("%q lets %q through", s, r)
			}
		}
		if strings.Count(id.Address, "@") != 1 || len(id.Address) > threepid.MaxEmailBytes {
			t.Errorf("%q became %q", s, id.Address)
		}
		local, domain, _ := strings.Cut(s, "@")
		// Lower, upper and folded local parts are fold-equal to the given one.
		for _, c := range []cases.Caser{cases.Lower(language.Und), cases.Upper(language.Und), cases.Fold()} {
			if v := c.String(local); cases.Fold().String(v) == cases.Fold().String(local) && len(v)+1+len(domain) <= threepid.MaxEmailBytes {
				same("the variant", v+"@"+domain)
			}
		}
		// So is the whole address folded, unless its domain has one of the two
		// letters that are no case variants in a domain name.
		if folded := cases.Fold().String(s); !strings.ContainsAny(id.Address[strings.IndexByte(id.Address, '@'):], "ßς") && len(folded) <= threepid.MaxEmailBytes {
			same("the folded address", folded)
		}
	})
}
