package threepid_test

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/matrix-herald/herald/threepid"
)

// Vectors of the Identity Service API and of MSC2134; the pepper is theirs.
//
// Conformance (lookup): the specification's hashes (also TestTheLinesOfStartIdentityWork)
func TestLookupHash(t *testing.T) {
	t.Parallel()
	const pepper = "matrixrocks"
	for name, tc := range map[string]struct {
		address string
		medium  threepid.Medium
		want    string
	}{
		"alice":          {"alice@example.com", threepid.MediumEmail, "4kenr7N9drpCJ4AfalmlGQVsOn3o2RHjkADUpXJWZUc"},
		"bob":            {"bob@example.com", threepid.MediumEmail, "LJwSazmv46n0hlMlsb_iYxI0_HXEqy_yj6Jm636cdT8"},
		"carl":           {"carl@example.com", threepid.MediumEmail, "jDh2YLwYJg3vg9pEn3kaaXAP9jx-LlcotoH51Zgb9MA"},
		"a phone number": {"18005552067", threepid.MediumMSISDN, "nlo35_T5fzSGZzJApqu8lgIudJvmOQtDaHtr-I4rU7I"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := threepid.LookupHash(tc.address, tc.medium, pepper); got != tc.want {
				t.Errorf("hash %q, want %q", got, tc.want)
			}
			digest, ok := threepid.ParseLookupHash(tc.want)
			if !ok || digest != threepid.LookupDigest(tc.address, tc.medium, pepper) {
				t.Errorf("ParseLookupHash: %x, %v", digest, ok)
			}
		})
	}
}

func TestParseLookupHashRefuses(t *testing.T) {
	t.Parallel()
	const good = "nlo35_T5fzSGZzJApqu8lgIudJvmOQtDaHtr-I4rU7I"
	for name, in := range map[string]string{
		"nothing":                     "",
		"padding":                     good + "=",
		"the standard alphabet":       strings.NewReplacer("-", "+", "_", "/").Replace(good),
		"one character less":          good[:42],
		"one character more":          good + "A",
		"bits beyond the last byte":   good[:42] + "J",
		"a newline in place of a bit": good[:42] + "\n",
		"newlines inside":             good[:20] + "\n" + good[20:42],
		"a space before":              " " + good[:42],
		"hexadecimal":                 strings.Repeat("ab", 32),
		"a plain address":             "alice@example.com email",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if digest, ok := threepid.ParseLookupHash(in); ok {
				t.Errorf("%q is taken as %x", in, digest)
			}
		})
	}
}

func FuzzParseLookupHash(f *testing.F) {
	f.Add("nlo35_T5fzSGZzJApqu8lgIudJvmOQtDaHtr-I4rU7I")
	f.Add("nlo35/T5fzSGZzJApqu8lgIudJvmOQtDaHtr+I4rU7I=")
	f.Add("\r\n")
	f.Fuzz(func(t *testing.T, s string) {
		digest, ok := threepid.ParseLookupHash(s)
		if ok && base64.RawURLEncoding.EncodeToString(digest[:]) != s {
			t.Errorf("%q is a second spelling of %x", s, digest)
		}
	})
}
