package leaktest_test

import (
	"encoding/base64"
	"net/url"
	"slices"
	"testing"

	"github.com/matrix-herald/herald/internal/leaktest"
)

func TestSecretsAreFoundInEveryDisguise(t *testing.T) {
	t.Parallel()
	const address, code = "alice+herald@example.com", "123456"
	var s leaktest.Secrets
	s.Add("address", address)
	s.AddCode("code", code)
	for text, want := range map[string][]string{
		"mail to " + address + " failed":                             {"address"},
		"to ALICE+HERALD@EXAMPLE.COM":                                {"address"},
		"?a=" + url.QueryEscape(address):                             {"address"},
		"/alice+herald@example.com":                                  {"address"},
		"616c6963652b686572616c64406578616d706c652e636f6d":           {"address"},
		base64.StdEncoding.EncodeToString([]byte(address)):           {"address"},
		base64.StdEncoding.EncodeToString([]byte("x" + address)):     {"address"},
		base64.URLEncoding.EncodeToString([]byte("xy" + address)):    {"address"},
		base64.URLEncoding.EncodeToString([]byte(address + " mail")): {"address"},
		`{"token":"123456"}`:                                         {"code"},
		"code=123456":                                                {"code"},
		"123456 is the code":                                         {"code"},
		`{"took":123456,"time":"12.123456Z"}`:                        nil,
		`{"ts":1234567,"id":"0123456"}`:                              nil,
		"alice@example.com, herald@example.com":                      nil,
		"":                                                           nil,
	} {
		if got := s.In(text); !slices.Equal(got, want) {
			t.Errorf("%q: found %v, want %v", text, got, want)
		}
	}
}
