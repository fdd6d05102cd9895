package httpapi_test

import (
	"net/http"
	"testing"
)

// FuzzQueries sends any query to every endpoint that takes one, with an access
// token and without. Whatever it is, it must never be a fault of ours.
func FuzzQueries(f *testing.F) {
	paths := []string{
		"/_matrix/identity/v2/3pid/getValidated3pid", "/_matrix/identity/v2/pubkey/isvalid", "/_matrix/identity/v2/pubkey/ephemeral/isvalid",
		"/_matrix/identity/v2/hash_details", "/_matrix/identity/v2/validate/msisdn/submitToken", "/_matrix/identity/herald/v1/invite",
		v1 + "/lookup", v1 + "/3pid/getValidated3pid", v1 + "/pubkey/isvalid", v1 + "/validate/email/submitToken",
	}
	for i, seed := range []string{
		"sid=1234&client_secret=monkeys_are_GREAT", "public_key=ed25519%3A0", "public_key=AAAA%2BBBB_-%3D", "access_token=x&access_token=y",
		"sid=%00&client_secret=%zz&token=;", "token=a&private_key=b&email=c%40d&signurl=javascript%3Aalert(1)",
		"medium=email&address=alice%40example.org", "sid=1&sid=2&client_secret", "public_key=%FF%FE", "sid=a&client_secret=b&token=c",
	} {
		f.Add(uint8(i), true, seed)
		f.Add(uint8(i), false, seed)
	}
	w := newWorld(f, func(s *settings) { s.api.ConfirmPage, s.api.V1 = true, everything() })
	token := w.register(f, alice)
	f.Fuzz(func(t *testing.T, path uint8, known bool, query string) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.url+paths[int(path)%len(paths)], nil)
		check(t, err)
		r.URL.RawQuery = query
		if known {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		res, err := w.client.Do(r)
		if err != nil {
			t.Skip("net/http does not send this")
		}
		defer res.Body.Close()
		if res.StatusCode >= http.StatusInternalServerError {
			t.Errorf("%s?%s: %s", r.URL.Path, query, res.Status)
		}
	})
}
