package httpapi_test

import (
	"net/http"
	"testing"
)

// FuzzBodies sends any body to every endpoint that takes one. Whatever it is,
// it must be answered as the specification says and never be a fault of ours.
func FuzzBodies(f *testing.F) {
	paths := []string{
		"/_matrix/identity/v2/account/register", termsPath, lookupPath, emailRequest, msisdnRequest, emailSubmit,
		msisdnSubmit, bindPath, unbindPath, confirmPath,
		v1 + "/sign-ed25519", v1 + "/validate/email/requestToken", v1 + "/3pid/bind", v1 + "/store-invite",
	}
	for i, seed := range []string{
		`{"access_token":"x","token_type":"Bearer","matrix_server_name":"example.org","expires_in":3600}`,
		`{"user_accepts":["https://example.org/terms-2.0-en.html"]}`,
		`{"algorithm":"none","pepper":"matrixrocks","addresses":["alice@example.com email",null]}`,
		`{"client_secret":"monkeys_are_GREAT","email":"alice@example.org","send_attempt":"1","next_link":"https://example.org/"}`,
		`{"client_secret":"monkeys_are_GREAT","country":"GB","phone_number":"07700900001","send_attempt":1}`,
		`{"sid":"1234","client_secret":"monkeys_are_GREAT","token":"atoken"}`,
		`{"sid":"1234","client_secret":"monkeys_are_GREAT","token":"123456"}`,
		`{"sid":"1234","client_secret":"monkeys_are_GREAT","mxid":"@ears:matrix.org"}`,
		`{"sid":"1234","client_secret":"s","mxid":"@e:example.org","threepid":{"medium":"email","address":"m@example.org"}}`,
		`sid=1234&client_secret=monkeys_are_GREAT&token=atoken`,
		`token=x&private_key=a+b&mxid=@ears:matrix.org`,
		`client_secret=monkeys_are_GREAT&email=alice%40example.org&send_attempt=1`,
		`sid=1234&client_secret=s&mxid=%40e%3Aexample.org&mxid=%FF`,
		`medium=email&address=a%40example.net&room_id=!r&sender=%40e%3Aexample.org`,
	} {
		f.Add(uint8(i), seed)
	}
	w := newWorld(f, func(s *settings) { s.api.ConfirmPage, s.api.V1 = true, everything() })
	token := w.register(f, alice)
	f.Fuzz(func(t *testing.T, path uint8, body string) {
		r := post(paths[int(path)%len(paths)], token, body)
		r.header = http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
		if a := w.send(t, r); a.status >= 500 {
			t.Errorf("%s: %d %s", r.path, a.status, a.body)
		}
	})
}

// FuzzLinks follows links with any query.
func FuzzLinks(f *testing.F) {
	for _, seed := range []string{
		"", "sid=1234&client_secret=monkeys_are_GREAT&token=atoken", "sid=%00&client_secret=%zz&token=;", "sid=1&sid=2&token",
	} {
		f.Add(seed)
	}
	w := newWorld(f, nil)
	f.Fuzz(func(t *testing.T, query string) {
		req, err := http.NewRequestWithContext(t.Context(), "GET", w.url+emailSubmit, nil)
		check(t, err)
		req.URL.RawQuery = query
		res, err := w.client.Do(req)
		if err != nil {
			t.Skip("net/http does not send this")
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusBadRequest {
			t.Errorf("%q: %d", query, res.StatusCode)
		}
	})
}
