package threepid_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/nyaruka/phonenumbers"

	"github.com/matrix-herald/herald/threepid"
)

// Conformance (requestToken): numbers: E.164 by country in whatever case, the specification's examples; possible ones only (≠ Sydent: 19 digits are texted) | else 400 `M_INVALID_ADDRESS` (also TestParsePhoneRefuses, TestEveryRegionsExampleNumberHasOneIdentifier)
// Conformance (requestToken): characters that cannot be seen, and signs behind a number, as they are pasted along | dropped (also FuzzParsePhone)
func TestParsePhone(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ country, number, msisdn, international, region string }{
		"the specification's example":                      {"GB", "07700900001", "447700900001", "+44 7700 900001", "GB"},
		"an international number from its own country":     {"GB", "+447700900001", "447700900001", "+44 7700 900001", "GB"},
		"an international number from another country":     {"US", "+447700900001", "447700900001", "+44 7700 900001", "GB"},
		"a country in lower case":                          {"gb", "07700900001", "447700900001", "+44 7700 900001", "GB"},
		"an international number with an unknown country":  {"zz", "+447700900001", "447700900001", "+44 7700 900001", "GB"},
		"an international number without a country":        {"", "+44 7700 900001", "447700900001", "+44 7700 900001", "GB"},
		"a full-width plus sign":                           {"", "＋447700900001", "447700900001", "+44 7700 900001", "GB"},
		"a trunk zero after the calling code":              {"", "+44 (0)7700 900001", "447700900001", "+44 7700 900001", "GB"},
		"a national number of North America":               {"US", "8005552067", "18005552067", "+1 800-555-2067", "US"},
		"another country of the same calling code":         {"US", "(876) 123-4567", "18761234567", "+1 876-123-4567", "JM"},
		"a leading zero that Italy keeps":                  {"IT", "06 1234 5678", "390612345678", "+39 06 1234 5678", "IT"},
		"an Argentine mobile number":                       {"AR", "011 15 2345-6789", "5491123456789", "+54 9 11 2345-6789", "AR"},
		"letters":                                          {"US", "1-800-FLOWERS", "18003569377", "+1 800-356-9377", "US"},
		"Arabic digits":                                    {"GB", "٠٧٧٠٠٩٠٠٠٠١", "447700900001", "+44 7700 900001", "GB"},
		"full-width digits":                                {"CH", "０７９ ６４０ ００ ００", "41796400000", "+41 79 640 00 00", "CH"},
		"a tel: URI":                                       {"GB", "tel:07700900001", "447700900001", "+44 7700 900001", "GB"},
		"a tel: URI with a calling code":                   {"", "tel:07700900001;phone-context=+44", "447700900001", "+44 7700 900001", "GB"},
		"an international prefix dialled from home":        {"GB", "00 1 800 555 2067", "18005552067", "+1 800-555-2067", "US"},
		"an extension, which is dropped":                   {"GB", "07700900001 ext. 5", "447700900001", "+44 7700 900001", "GB"},
		"an extension of a tel: URI, dropped too":          {"GB", "tel:07700900001;ext=5", "447700900001", "+44 7700 900001", "GB"},
		"isolates around it, as an address book puts them": {"GB", "\u2068+44 7400 123456\u2069", "447400123456", "+44 7400 123456", "GB"},
		"the end of a direction":                           {"", "+447400123456\u202c", "447400123456", "+44 7400 123456", "GB"},
		"marks of direction and of the text's order":       {"", "\ufeff\u200e+44\u200f 7400\u2060 123\u200b456\u061c", "447400123456", "+44 7400 123456", "GB"},
		"a comma behind it":                                {"GB", "07400 123456,", "447400123456", "+44 7400 123456", "GB"},
		"all that may stand behind a number in a text":     {"GB", "(+44 7400 123456) – ”…;!\u00a0", "447400123456", "+44 7400 123456", "GB"},
		"an extension with its sign, dropped":              {"US", "(800) 555-2067 ext. 5#", "18005552067", "+1 800-555-2067", "US"},
		"a tel: URI with a semicolon behind it":            {"", "tel:+44-7400-123456;", "447400123456", "+44 7400 123456", "GB"},
		"a number of no country":                           {"", "+800 1234 5678", "80012345678", "+800 1234 5678", "001"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, err := threepid.ParsePhone(tc.country, tc.number)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := p.ID(), (threepid.ID{Medium: "msisdn", Address: tc.msisdn}); got != want {
				t.Errorf("MSISDN %q, want %q", got.Address, want.Address)
			}
			if p.International() != tc.international || p.Region() != tc.region {
				t.Errorf("%q in %q, want %q in %q", p.International(), p.Region(), tc.international, tc.region)
			}
		})
	}
}

func TestParsePhoneRefuses(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		country, number string
		err             error
	}{
		"a country that does not exist":          {"ZZ", "07700900001", threepid.ErrInvalidCountry},
		"no country":                             {"", "07700900001", threepid.ErrInvalidCountry},
		"a country in words":                     {"United Kingdom", "07700900001", threepid.ErrInvalidCountry},
		"a calling code as country":              {"44", "07700900001", threepid.ErrInvalidCountry},
		"a three-letter country":                 {"GBR", "07700900001", threepid.ErrInvalidCountry},
		"the world as country":                   {"001", "12345678", threepid.ErrInvalidCountry},
		"no number":                              {"GB", "", threepid.ErrInvalidPhone},
		"words":                                  {"GB", "hello", threepid.ErrInvalidPhone},
		"a plus sign alone":                      {"GB", "+", threepid.ErrInvalidPhone},
		"an unassigned calling code":             {"GB", "+999123456789", threepid.ErrInvalidPhone},
		"too few digits":                         {"GB", "077", threepid.ErrInvalidPhone},
		"too many digits":                        {"GB", "077009000011", threepid.ErrInvalidPhone},
		"19 digits":                              {"US", "1234567890123456789", threepid.ErrInvalidPhone},
		"a number without its area code":         {"US", "555-2067", threepid.ErrInvalidPhone},
		"another country's international prefix": {"US", "00447700900001", threepid.ErrInvalidPhone},
		"format characters alone":                {"GB", "\u2068\u2069", threepid.ErrInvalidPhone},
		"two numbers":                            {"GB", "07700900001 or 07700900002", threepid.ErrInvalidPhone},
		"a line break":                           {"GB", "07700900001\r\n", threepid.ErrInvalidPhone},
		"a NUL":                                  {"GB", "07700\x00900001", threepid.ErrInvalidPhone},
		"invalid UTF-8":                          {"GB", "07700900001\xff", threepid.ErrInvalidPhone},
		"a megabyte":                             {"GB", strings.Repeat("1", 1<<20), threepid.ErrInvalidPhone},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, err := threepid.ParsePhone(tc.country, tc.number)
			if !errors.Is(err, tc.err) {
				t.Fatalf("ParsePhone: %q, %v; want %v", p.ID().Address, err, tc.err)
			}
			if (p != threepid.Phone{}) || (p.ID() != threepid.ID{}) {
				t.Error("a refused number has an identifier")
			}
		})
	}
}

// The example numbers of the metadata stand for each region's real ranges.
func TestEveryRegionsExampleNumberHasOneIdentifier(t *testing.T) {
	t.Parallel()
	tried := 0
	for region := range phonenumbers.GetSupportedRegions() {
		for _, typ := range []phonenumbers.PhoneNumberType{phonenumbers.FIXED_LINE, phonenumbers.MOBILE} {
			n := phonenumbers.GetExampleNumberForType(region, typ)
			if n == nil {
				continue
			}
			tried++
			e164 := phonenumbers.Format(n, phonenumbers.E164)
			fromAbroad, err := threepid.ParsePhone("", e164)
			if err != nil {
				t.Errorf("%s %s: %v", region, e164, err)
				continue
			}
			if got := "+" + fromAbroad.ID().Address; got != e164 {
				t.Errorf("%s: %s became %s", region, e164, got)
			}
			// Neighbours share ranges: a mobile number of Jersey may be British.
			if code := phonenumbers.GetCountryCodeForRegion(fromAbroad.Region()); code != int(n.GetCountryCode()) {
				t.Errorf("%s: %s is in %s", region, e164, fromAbroad.Region())
			}
			if region == "AR" { // the library writes its mobile numbers as nobody dials them
				continue
			}
			atHome, err := threepid.ParsePhone(region, phonenumbers.Format(n, phonenumbers.NATIONAL))
			if err != nil || atHome != fromAbroad {
				t.Errorf("%s: %s at home is %q (%v)", region, e164, atHome.ID().Address, err)
			}
		}
	}
	if tried < 400 {
		t.Errorf("only %d numbers were tried", tried)
	}
}

func FuzzParsePhone(f *testing.F) {
	for _, s := range [][2]string{
		{"GB", "07700900001"}, {"US", "1-800-FLOWERS"}, {"IT", "06 1234 5678"}, {"AR", "011 15 2345-6789"}, {"", "+447700900001"},
		{"", "tel:+44-7700-900001;ext=5"}, {"GB", "tel:07700900001;phone-context=+44;isub=1"}, {"RU", "88005553535"}, {"MX", "+52 1 55 1234 5678"},
		{"BR", "0 15 11 96123-4567"}, {"SM", "0549 886377"}, {"GB", "٠٧٧٠٠٩٠٠٠٠١"}, {"ZZ", ";;;"}, {"US", "5552067"},
		{"", "\u2068+44 7400 123456\u2069,"}, {"GB", "07400123456 x5#)"},
	} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, country, number string) {
		p, err := threepid.ParsePhone(country, number)
		if err != nil {
			return
		}
		id := p.ID()
		if len(id.Address) > 15 || strings.Trim(id.Address, "0123456789") != "" || id.Address == "" {
			t.Fatalf("%q became %q", number, id.Address)
		}
		if p.Region() == "" || p.Region() == "ZZ" || p.International() == "" {
			t.Errorf("%q is %q in %q", number, p.International(), p.Region())
		}
		for _, again := range []string{"+" + id.Address, p.International()} {
			if q, err := threepid.ParsePhone(country, again); err != nil || q != p {
				t.Errorf("%q is %s, but %q is %s (%v)", number, id.Address, again, q.ID().Address, err)
			}
		}
		for _, again := range []string{id.Address, "+" + id.Address} {
			if got, err := threepid.ParseAddress("msisdn", again); err != nil || got != id {
				t.Errorf("the address %q is %q (%v)", again, got.Address, err)
			}
		}
	})
}
