package httpapi_test

import (
	"bufio"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/identity/httpapi"
	"github.com/matrix-herald/herald/identity/signing"
	"github.com/matrix-herald/herald/internal/ratelimit"
	"github.com/matrix-herald/herald/threepid"
)

const v1 = "/_matrix/identity/api/v1"

// everything is all there is of version 1, for the homeserver example.org at this
// machine.
func everything() httpapi.V1 {
	return httpapi.V1{
		Keys: true, Links: true, Homeserver: true, Lookup: true,
		Sources: []httpapi.Source{{Network: netip.MustParsePrefix("127.0.0.1/32"), Servers: []string{"example.org"}}},
	}
}

// legacyWorld is a world with version 1.
func legacyWorld(t testing.TB, v httpapi.V1) *world {
	t.Helper()
	return newWorld(t, func(s *settings) { s.api.V1 = v })
}

// form is a POST of a form to an endpoint of version 1.
func form(path, body string) request {
	return request{"POST", v1 + path, "", body, http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}}
}

// golden reads a request as it was recorded, with values in the place of %s.
func golden(t testing.TB, text string, values ...any) request {
	t.Helper()
	text = strings.TrimLeft(fmt.Sprintf(text, values...), "\n")
	head, body, _ := strings.Cut(text, "\n\n")
	head = strings.ReplaceAll(head, "\n", "\r\n") + fmt.Sprintf("\r\nContent-Length: %d\r\n\r\n", len(body))
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head + body)))
	check(t, err)
	data, err := io.ReadAll(r.Body)
	check(t, err)
	r.Header.Del("Content-Length")
	return request{r.Method, r.RequestURI, "", string(data), r.Header}
}

// TestDendritesCalls goes through everything that Dendrite asks an identity
// server for, as Dendrite 0.15.2 was recorded doing it, and checks the answers as
// it does.
//
// Conformance (version 1): everything that Dendrite 0.15.2 asks for, as recorded: validation, bind, lookup whose signature and period it checks, store-invite, and the key at the path that it writes into rooms itself (also TestAHomeserverWithoutAccessTokens)
func TestDendritesCalls(t *testing.T) {
	t.Parallel()
	w := legacyWorld(t, everything())
	asked := w.send(t, golden(t, `
POST /_matrix/identity/api/v1/validate/email/requestToken HTTP/1.1
Host: id.example.org
User-Agent: Dendrite/0.15.2
Content-Type: application/x-www-form-urlencoded
Accept-Encoding: identity

client_secret=monkeys_are_GREAT&email=Alice%%40Example.com&send_attempt=1`))
	mail := w.mail.last(t)
	if sid := asked.text(t, "sid"); sid != mail.SID || mail.To != "alice@example.com" || mail.Homeserver != "example.org" {
		t.Fatalf("session %s, mailed to another", sid)
	}
	const validated = `
GET /_matrix/identity/api/v1/3pid/getValidated3pid?sid=%s&client_secret=monkeys_are_GREAT HTTP/1.1
Host: id.example.org
User-Agent: Dendrite/0.15.2`
	w.send(t, golden(t, validated, mail.SID)).refused(t, 400, "M_SESSION_NOT_VALIDATED")
	w.send(t, get(linkTo(emailSubmit, mail), "")).isPage(t, 200, "Email address confirmed")
	want := map[string]any{"medium": "email", "address": "alice@example.com", "validated_at": float64(w.clock.Now().UnixMilli())}
	if diff := cmp.Diff(want, w.send(t, golden(t, validated, mail.SID)).object(t)); diff != "" {
		t.Error(diff)
	}

	const lookup = `
GET /_matrix/identity/api/v1/lookup?medium=email&address=alice%%40example.com HTTP/1.1
Host: id.example.org
User-Agent: Go-http-client/2.0`
	if got := w.send(t, golden(t, lookup)).object(t); len(got) != 0 {
		t.Errorf("before it is bound: %v", got)
	}
	bound := w.send(t, golden(t, `
POST /_matrix/identity/api/v1/3pid/bind HTTP/1.1
Host: id.example.org
User-Agent: Dendrite/0.15.2
Content-Type: application/x-www-form-urlencoded

client_secret=monkeys_are_GREAT&mxid=%%40alice%%3Aexample.org&sid=%s`, mail.SID)).object(t)
	found := w.send(t, golden(t, lookup))
	if diff := cmp.Diff(bound, found.object(t)); diff != "" {
		t.Errorf("bound and found: %s", diff)
	}
	w.checkAssociation(t, found.body)

	const invite = `
POST /_matrix/identity/api/v1/store-invite HTTP/1.1
Host: id.example.org
User-Agent: Go-http-client/2.0
Content-Type: application/x-www-form-urlencoded

address=%s&medium=email&room_id=%%21tea%%3Aexample.org&sender=%%40alice%%3Aexample.org&sender_display_name=Alice`
	if got := w.send(t, golden(t, invite, "alice%40example.com")).refused(t, 400, "M_THREEPID_IN_USE"); got["mxid"] != alice {
		t.Errorf("mxid %v", got["mxid"])
	}
	var room stored
	answer := w.send(t, golden(t, invite, "carol%40example.net"))
	answer.object(t)
	check(t, json.Unmarshal(answer.body, &room))
	if invitation := w.mail.invitation(t); invitation.Token != room.Token || invitation.SenderName != "Alice" {
		t.Error("the mail says something else")
	}
	// Dendrite writes this path into the room, and not key_validity_url.
	if !w.isValid(t, room.PublicKey, baseURL+v1+"/pubkey/isvalid") || len(room.PublicKeys) != 2 {
		t.Errorf("public keys %+v", room)
	}
	for _, k := range room.PublicKeys {
		if !w.isValid(t, k.PublicKey, k.KeyValidityURL) {
			t.Errorf("%s is not valid at %s", k.PublicKey, k.KeyValidityURL)
		}
	}
}

// checkAssociation checks the answer to a lookup as Dendrite does.
func (w *world) checkAssociation(t testing.TB, body []byte) {
	t.Helper()
	signed, err := signing.ParseObject(body)
	check(t, err)
	signatures := signed["signatures"].(map[string]any)[serverName].(map[string]any)
	if len(signatures) == 0 {
		t.Fatalf("no signature in %s", body)
	}
	for id := range signatures {
		public, err := base64.RawStdEncoding.DecodeString(w.send(t, get(v1+"/pubkey/"+id, "")).text(t, "public_key"))
		check(t, err)
		check(t, signing.Verify(signed, serverName, id, ed25519.PublicKey(public)))
	}
	var period struct {
		NotBefore int64 `json:"not_before"`
		NotAfter  int64 `json:"not_after"`
	}
	check(t, json.Unmarshal(body, &period))
	if now := w.clock.Now().UnixMilli(); now < period.NotBefore || now > period.NotAfter {
		t.Errorf("not valid at %d: %s", now, body)
	}
}

// TestSynapsesDelegationOfTelephoneNumbers is what Synapse asks for with
// account_threepid_delegates.msisdn: version 1, JSON, and no access token.
//
// Conformance (version 1): Synapse's `account_threepid_delegates.msisdn` (also TestAHomeserverWithoutAccessTokens)
func TestSynapsesDelegationOfTelephoneNumbers(t *testing.T) {
	t.Parallel()
	w := legacyWorld(t, everything())
	asked := w.send(t, post(v1+"/validate/msisdn/requestToken", "",
		`{"country":"GB","phone_number":"07700900001","client_secret":"secret","send_attempt":1}`))
	if asked.text(t, "msisdn") != "447700900001" || asked.text(t, "sid") != w.sms.last(t).SID {
		t.Errorf("%s", asked.body)
	}
	c := w.sms.last(t)
	wrong := c
	wrong.Token = "000000x"
	w.send(t, post(v1+"/validate/msisdn/submitToken", "", proof(t, wrong))).refused(t, 400, "M_TOKEN_INCORRECT")
	if diff := cmp.Diff(map[string]any{"success": true}, w.send(t, post(v1+"/validate/msisdn/submitToken", "", proof(t, c))).object(t)); diff != "" {
		t.Error(diff)
	}
	got := w.send(t, get(v1+"/3pid/getValidated3pid?"+url.Values{"sid": {c.SID}, "client_secret": {c.ClientSecret}}.Encode(), "")).object(t)
	if got["medium"] != "msisdn" || got["address"] != "447700900001" {
		t.Errorf("validated %v", got)
	}
}

// Conformance (version 1): parameters in a form, in JSON and in the query; those in the body count first (also TestRefusals, FuzzBodies)
func TestParametersOfVersion1(t *testing.T) {
	t.Parallel()
	const path = "/validate/email/requestToken"
	const inForm, inJSON = `client_secret=s&email=a%40example.org&send_attempt=1`, `{"client_secret":"s","email":"a@example.org","send_attempt":1}`
	type header = http.Header
	formType := header{"Content-Type": {"application/x-www-form-urlencoded; charset=utf-8"}}
	w, sessions, mails := legacyWorld(t, everything()), 0, 0
	for name, c := range map[string]struct {
		query, body string
		header      header
		to          string // where the mail goes, or
		status      int    // the refusal
		errcode     string
	}{
		"in a form":                             {body: inForm, header: formType, to: "a@example.org"},
		"in JSON":                               {body: inJSON, to: "a@example.org"},
		"in JSON that calls itself a form":      {body: inJSON, header: formType, to: "a@example.org"},
		"in JSON that calls itself text":        {body: inJSON, header: header{"Content-Type": {"text/plain"}}, to: "a@example.org"},
		"in the query, with nothing":            {query: inForm, to: "a@example.org"},
		"in the query, with an empty form":      {query: inForm, header: formType, to: "a@example.org"},
		"in the query, with an empty object":    {query: inForm, body: `{}`, to: "a@example.org"},
		"in the query and a form, which counts": {query: `email=b%40example.org&send_attempt=1`, body: `client_secret=s&email=a%40example.org`, header: formType, to: "a@example.org"},
		"in the query and JSON, which counts":   {query: `email=b%40example.org&send_attempt=1`, body: `{"client_secret":"s","email":"a@example.org"}`, to: "a@example.org"},
		"in the query, and null in JSON":        {query: `email=a%40example.org`, body: `{"client_secret":"s","email":null,"send_attempt":1}`, to: "a@example.org"},
		"twice in a form":                       {body: inForm + `&email=b%40example.org`, header: formType, to: "a@example.org"},
		"that nobody asked for":                 {query: `x=%22`, body: inForm + `&y=1`, header: formType, to: "a@example.org"},
		"with quotes":                           {body: `client_secret=s&email=%22a%22%40example.org&send_attempt=1`, header: formType, status: 400, errcode: "M_INVALID_EMAIL"},
		"that are missing":                      {body: `client_secret=s`, header: formType, status: 400, errcode: "M_MISSING_PARAMS"},
		"in a form that calls itself nothing":   {body: inForm, status: 400, errcode: "M_NOT_JSON"},
		"in a form that calls itself JSON":      {body: inForm, header: header{"Content-Type": {"application/json"}}, status: 400, errcode: "M_NOT_JSON"},
		"in a form that cannot be read":         {body: `client_secret=%zz`, header: formType, status: 400, errcode: "M_INVALID_PARAM"},
		"in a form that is no text":             {body: inForm + `&next_link=%FF`, header: formType, status: 400, errcode: "M_INVALID_PARAM"},
		"in a query that is no text":            {query: `next_link=%FF`, body: inJSON, status: 400, errcode: "M_INVALID_PARAM"},
		"in a form without an end":              {body: inForm + "&x=" + strings.Repeat("x", 64<<10), header: formType, status: 413, errcode: "M_TOO_LARGE"},
		"in JSON without an end":                {body: `{"x":"` + strings.Repeat("x", 64<<10) + `"}`, status: 413, errcode: "M_TOO_LARGE"},
		"in a list":                             {body: `[]`, status: 400, errcode: "M_BAD_JSON"},
		"of another type":                       {body: `{"client_secret":"s","email":1,"send_attempt":1}`, status: 400, errcode: "M_BAD_JSON"},
		"with an attempt that is none":          {body: `client_secret=s&email=a%40example.org&send_attempt=1.5`, header: formType, status: 400, errcode: "M_INVALID_PARAM"},
	} {
		t.Run(name, func(t *testing.T) {
			sessions++ // each case has one of its own
			own := strings.NewReplacer("client_secret=s", fmt.Sprint("client_secret=s", sessions), `:"s"`, fmt.Sprintf(`:"s%d"`, sessions)).Replace
			a := w.send(t, request{"POST", v1 + path + "?" + own(c.query), "", own(c.body), c.header})
			if c.errcode != "" {
				a.refused(t, c.status, c.errcode)
				return
			}
			a.object(t)
			if got := w.mail.messages(); len(got) != mails+1 || got[mails].To != c.to {
				t.Errorf("%d mails, not one more to %s", len(got), c.to)
			}
			mails++
		})
	}
}

// homeserverCalls are requests to all endpoints that only homeservers may use.
func homeserverCalls() []request {
	return []request{
		form("/validate/email/requestToken", ""), form("/validate/msisdn/requestToken", ""),
		form("/validate/email/submitToken", ""), form("/validate/msisdn/submitToken", ""),
		get(v1+"/3pid/getValidated3pid", ""), form("/3pid/bind", ""), post(v1+"/3pid/unbind", "", "{}"),
		form("/store-invite", ""), get(v1+"/lookup", ""), post(v1+"/bulk_lookup", "", "{}"),
	}
}

// Conformance (version 1): who may use the group `homeserver` (≠ Sydent: everybody) | homeservers in `trusted_homeservers`, by the address behind trusted proxies; else 403 `M_FORBIDDEN`, and the log says who was taken for whom (also TestUsersOfOtherHomeserversAreRefused)
func TestOnlyHomeserversMaySpeakForTheirUsers(t *testing.T) {
	t.Parallel()
	elsewhere := everything()
	elsewhere.Sources[0].Network = netip.MustParsePrefix("192.0.2.0/24")
	stranger := legacyWorld(t, elsewhere)
	known := legacyWorld(t, everything())
	for _, r := range homeserverCalls() {
		t.Run(r.method+" "+r.path, func(t *testing.T) {
			r.header = http.Header{"Content-Type": r.header["Content-Type"], "X-Forwarded-For": {"192.0.2.1"}}
			stranger.send(t, r).refused(t, 403, "M_FORBIDDEN")
			stranger.logged(t, "route="+r.path, "client=127.0.0.1", `err="trusted_homeservers has no homeserver at this address"`)
			known.send(t, r).refused(t, 400, "M_MISSING_PARAMS") // and not the proxy's word for it
		})
	}
}

// Conformance (version 1): whose users it binds and whose invites it takes | those of that homeserver, byte for byte; else 403 `M_FORBIDDEN`
// Conformance (security): version 1 speaks for nobody's users but those of the homeserver at that address
func TestUsersOfOtherHomeserversAreRefused(t *testing.T) {
	t.Parallel()
	v := everything()
	v.Sources = []httpapi.Source{
		{Network: netip.MustParsePrefix("192.0.2.7/32"), Servers: []string{"example.org"}},
		{Network: netip.MustParsePrefix("192.0.2.0/24"), Servers: []string{"example.com", "example.net:8448"}},
	}
	w := newWorld(t, func(s *settings) {
		s.api.V1, s.api.TrustedProxies = v, []string{"127.0.0.1"}
	})
	const invite = "medium=email&address=carol%%40example.net&room_id=!r&sender=%s"
	const bind = "sid=1&client_secret=s&mxid=%s"
	for name, c := range map[string]struct {
		from, user      string
		status          int    // of a bind, for a session that there is not
		errcode         string // of it
		inviteForbidden bool
	}{
		"its own user":                    {"192.0.2.7", "@alice:example.org", 404, "M_NO_VALID_SESSION", false},
		"a neighbour's, by a wider range": {"192.0.2.7", "@alice:example.com", 404, "M_NO_VALID_SESSION", false},
		"one of several, with a port":     {"192.0.2.1", "@alice:example.net:8448", 404, "M_NO_VALID_SESSION", false},
		"another port's":                  {"192.0.2.1", "@alice:example.net", 403, "M_FORBIDDEN", true},
		"another server's":                {"192.0.2.1", "@alice:example.org", 403, "M_FORBIDDEN", true},
		"a server that ends alike":        {"192.0.2.1", "@alice:notexample.com", 403, "M_FORBIDDEN", true},
		"the server in other case":        {"192.0.2.1", "@alice:Example.com", 403, "M_FORBIDDEN", true},
		"a server in the name":            {"192.0.2.1", "@example.com:example.org", 403, "M_FORBIDDEN", true},
		"what is no user":                 {"192.0.2.1", "example.com", 403, "M_FORBIDDEN", true},
		"no name at all":                  {"192.0.2.1", "", 403, "M_FORBIDDEN", true},
		"a user nobody could store":       {"192.0.2.1", "@a\x00:example.com", 403, "M_FORBIDDEN", true},
		"an endless user":                 {"192.0.2.1", "@" + strings.Repeat("a", 255) + ":example.com", 403, "M_FORBIDDEN", true},
		"a user from nowhere":             {"198.51.100.1", "@alice:example.com", 403, "M_FORBIDDEN", true},
	} {
		t.Run(name, func(t *testing.T) {
			send := func(path, format string) answer {
				r := form(path, fmt.Sprintf(format, url.QueryEscape(c.user)))
				r.header.Set("X-Forwarded-For", c.from)
				return w.send(t, r)
			}
			send("/3pid/bind", bind).refused(t, c.status, c.errcode)
			if name == "another server's" {
				w.logged(t, "client=192.0.2.1", "homeserver=example.org", `err="trusted_homeservers has only [\"example.com\" \"example.net:8448\"] at this address"`)
			}
			if a := send("/store-invite", invite); c.inviteForbidden {
				a.refused(t, 403, "M_FORBIDDEN")
			} else {
				a.object(t)
			}
		})
	}
	for name, c := range map[string]struct{ body, errcode string }{
		"nobody":     {`{"sid":"1","client_secret":"s"}`, "M_MISSING_PARAMS"},
		"null":       {`{"sid":"1","client_secret":"s","mxid":null}`, "M_MISSING_PARAMS"},
		"a number":   {`{"sid":"1","client_secret":"s","mxid":1}`, "M_BAD_JSON"},
		"a list":     {`{"sid":"1","client_secret":"s","mxid":["@alice:example.com"]}`, "M_BAD_JSON"},
		"of no JSON": {`{"sid"`, "M_NOT_JSON"},
	} {
		r := request{"POST", v1 + "/3pid/bind", "", c.body, http.Header{"X-Forwarded-For": {"192.0.2.1"}}}
		t.Run(name, func(t *testing.T) { w.send(t, r).refused(t, 400, c.errcode) })
	}
}

// Conformance (version 1): unbinding | by session or signature, as in version 2
func TestUnbindingByVersion1(t *testing.T) {
	t.Parallel()
	w := legacyWorld(t, everything())
	token := w.register(t, alice)
	c := w.session(t, token, "alice@example.org", "secret")
	w.prove(t, token, c)
	w.send(t, post(bindPath, token, bindBody(t, c, alice))).object(t)
	body := encode(t, map[string]any{"mxid": alice, "threepid": map[string]string{"medium": "email", "address": "alice@example.org"}})
	unbind := post(v1+"/3pid/unbind", "", body)
	w.send(t, unbind).refused(t, 403, "M_FORBIDDEN") // an address alone proves nothing
	unbind.header = http.Header{"Authorization": {"signed example.org"}}
	w.send(t, unbind).object(t)
	if seen := w.servers.seen; seen.URI != unbind.path || string(seen.Content) != body {
		t.Errorf("checked the signature of %s %s", seen.URI, seen.Content)
	}
	if got := w.send(t, get(v1+"/lookup?medium=email&address=alice@example.org", "")).object(t); len(got) != 0 {
		t.Errorf("still bound: %v", got)
	}
}

// Conformance (version 1): `/.well-known/matrix/server`, where Dendrite looks for the service as for a homeserver, while the group `homeserver` is on | its host and port; left to a homeserver of that name, and a warning (also TestSourcesOfVersion1AreKnownAtStart)
func TestHomeserversAreToldWhereTheServiceIs(t *testing.T) {
	t.Parallel()
	const path = "/.well-known/matrix/server"
	v := everything()
	legacyWorld(t, v).send(t, get(path, "")).refused(t, 404, "M_UNRECOGNIZED")
	v.Delegate = "id.example.org:443"
	if got := legacyWorld(t, v).send(t, get(path, "")).text(t, "m.server"); got != v.Delegate {
		t.Errorf("m.server %q", got)
	}
}

// Conformance (version 1): `bulk_lookup`: those that are bound, under the budgets of its homeserver | the user beside medium and address as they were asked for
func TestSeveralLookupsOfVersion1(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(s *settings) {
		s.api.V1, s.hashOnly = everything(), true
		s.api.Limits.LookupAddressesHomeserver = ratelimit.Limit{Count: 4, Per: 24 * time.Hour}
	})
	token := w.register(t, alice)
	c := w.session(t, token, "Alice@example.org", "secret")
	w.prove(t, token, c)
	w.send(t, post(bindPath, token, bindBody(t, c, alice))).object(t)
	ask := func(pairs ...[]string) answer {
		return w.send(t, post(v1+"/bulk_lookup", "", encode(t, map[string]any{"threepids": pairs})))
	}
	got := ask([]string{"email", "ALICE@example.org"}, []string{"email", "bob@example.org"}, []string{"msisdn", "x"}, []string{"", ""}).object(t)
	want := map[string]any{"threepids": []any{[]any{"email", "ALICE@example.org", alice}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	w.logged(t, "route="+v1+"/bulk_lookup", "homeserver=example.org addresses=4 found=1")
	if got := ask([][]string{}...); string(got.body) != `{"threepids":[]}` {
		t.Errorf("nothing: %s", got.body)
	}
	ask([]string{"email"}).refused(t, 400, "M_INVALID_PARAM")
	ask([]string{"email", "a@example.org", "b"}).refused(t, 400, "M_INVALID_PARAM")
	ask([]string{"email", "c@example.org"}, []string{"email", "d@example.org"}, []string{"email", "e@example.org"}).refused(t, 429, "M_LIMIT_EXCEEDED")
	ask([]string{"email", "c@example.org"}, []string{"email", "d@example.org"}).object(t) // and nothing was taken
	off := everything()
	off.Lookup = false
	legacyWorld(t, off).send(t, post(v1+"/bulk_lookup", "", `{"threepids":[["email","a@example.org"]]}`)).refused(t, 403, "M_FORBIDDEN")
}

// Conformance (version 1): lookup: the signed association, or `{}`; switched off on its own | 403 `M_FORBIDDEN` (MSC2134) (also TestAssociationsAreToldAsTheyWereBound)
func TestLookupsOfVersion1(t *testing.T) {
	t.Parallel()
	w := legacyWorld(t, everything())
	const path = v1 + "/lookup"
	w.send(t, get(path+"?medium=email", "")).refused(t, 400, "M_MISSING_PARAMS")
	w.send(t, get(path+"?address=a@example.org", "")).refused(t, 400, "M_MISSING_PARAMS")
	w.send(t, post(path, "", "{}")).refused(t, 405, "M_UNRECOGNIZED")
	for _, query := range []string{"medium=email&address=nobody@example.org", "medium=email&address=", "medium=fax&address=1", "medium=msisdn&address=x"} {
		if got := w.send(t, get(path+"?"+query, "")).object(t); len(got) != 0 {
			t.Errorf("%s: %v", query, got)
		}
	}
	off := everything()
	off.Lookup = false
	refusing := legacyWorld(t, off)
	refusing.send(t, get(path+"?medium=email&address=a@example.org", "")).refused(t, 403, "M_FORBIDDEN")
	refusing.send(t, form("/validate/email/requestToken", "client_secret=s&email=a%40example.org&send_attempt=1")).object(t)
	check(t, w.db.Close())
	w.send(t, get(path+"?medium=email&address=a@example.org", "")).refused(t, 500, "M_UNKNOWN")
}

// TestLinksOfFormerServers follows what mails and rooms hold that another server
// under this name has written.
//
// Conformance (version 1): Element posts to a `signurl` with a query and nothing else | signed (also TestUsersOfASydentNoticeNothing)
// Conformance (version 1): `pubkey/isvalid`, `pubkey/ephemeral/isvalid` and `pubkey/{keyId}` of old rooms, for everybody (also TestUsersOfASydentNoticeNothing)
// Conformance (version 1): links that prove an address, by their button as in version 2; `nextLink` in a link | pages; ignored (also TestConfirmPageByVersion1)
// Conformance (attacks): reading whom an imported invite is for, with any key that Sydent mailed | imported invites have no page
func TestLinksOfFormerServers(t *testing.T) {
	t.Parallel()
	w := legacyWorld(t, httpapi.V1{Keys: true, Links: true})
	key, err := signing.GenerateKey("0")
	check(t, err)
	now, own := w.clock.Now(), w.activeKey(t)
	expires := now.Add(24 * time.Hour)
	_, err = w.db.ImportInvites(t.Context(), []identity.Invite{{
		Token: "imported", Address: threepid.ID{Medium: "email", Address: "carol@example.net"}, RoomID: "!tea:example.org",
		Sender: alice, KeyID: own.ID(), Ephemeral: identity.ImportedEphemeral("imported"), Created: now, Expires: expires,
	}})
	check(t, err)
	_, err = w.db.ImportKeys(t.Context(), []identity.InviteKey{{Public: key.Public(), Expires: expires}})
	check(t, err)

	public := base64.RawURLEncoding.EncodeToString(key.Public())
	if !w.isValid(t, public, baseURL+v1+"/pubkey/ephemeral/isvalid") || !w.isValid(t, own.PublicBase64(), baseURL+v1+"/pubkey/isvalid") {
		t.Error("the keys of an invite are not valid")
	}
	if got := w.send(t, get(v1+"/pubkey/"+own.ID(), "")).text(t, "public_key"); got != own.PublicBase64() {
		t.Errorf("public key %s", got)
	}
	query := url.Values{"mxid": {bob}, "token": {"imported"}, "private_key": {key.Seed()}}.Encode()
	for how, r := range map[string]request{
		"as Element posts to a signurl": {method: "POST", path: v1 + "/sign-ed25519?" + query},
		"without escapes":               {method: "POST", path: v1 + "/sign-ed25519?" + strings.ReplaceAll(query, "%2B", "+")},
		"as a form":                     form("/sign-ed25519", query),
		"as JSON":                       post(v1+"/sign-ed25519", "", encode(t, map[string]string{"mxid": bob, "token": "imported", "private_key": key.Seed()})),
	} {
		t.Run(how, func(t *testing.T) { verifySigned(t, w.send(t, r).object(t), public, bob, "imported") })
	}
	w.send(t, post(v1+"/sign-ed25519?mxid=x&token=imported", "", "")).refused(t, 400, "M_MISSING_PARAMS")
	w.send(t, post(v1+"/sign-ed25519?mxid=x&token=imported&private_key=AAAA", "", "")).refused(t, 400, "M_INVALID_PARAM")

	// Any imported key would open the page of any imported invite, which tells whom
	// it is for.
	for _, path := range []string{invitePath + "?" + query, invitePath + "?token=imported&private_key=" + url.QueryEscape(key.Seed())} {
		w.send(t, get(path, "")).isPage(t, 404, "This invitation is no longer valid")
	}

	// Sessions are not brought over, but people see a page that tells them so.
	link := v1 + "/validate/email/submitToken?token=x&client_secret=s&sid=1&nextLink=https%3A%2F%2Fevil.example"
	w.send(t, get(link, "")).isPage(t, 400, "This link is no longer valid")
	if head := w.send(t, request{method: "HEAD", path: link}); head.status != http.StatusOK {
		t.Errorf("HEAD: %d", head.status)
	}
}

func TestConfirmPageByVersion1(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(s *settings) { s.api.V1, s.api.ConfirmPage = httpapi.V1{Links: true}, true })
	token := w.register(t, alice)
	c := w.session(t, token, "alice@example.org", "secret")
	w.send(t, get(linkTo(v1+"/validate/email/submitToken", c), "")).isPage(t, 200, "Confirm your email address")
	w.send(t, form("/validate/email/confirm", url.Values{"sid": {c.SID}, "client_secret": {c.ClientSecret}, "token": {c.Token}}.Encode())).
		isPage(t, 200, "Email address confirmed")
}

// activeKey returns the key that the world signs with.
func (w *world) activeKey(t testing.TB) signing.Key {
	t.Helper()
	key, err := w.keys.Active(t.Context())
	check(t, err)
	return key
}

func TestTheLogSaysWhichGroupIsOff(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	for option, r := range map[string]request{
		"v1.keys": get(v1+"/pubkey/isvalid", ""), "v1.links": post(v1+"/sign-ed25519", "", ""), "trusted_homeservers": form("/3pid/bind", ""),
	} {
		w.send(t, r).refused(t, 404, "M_UNRECOGNIZED")
		w.logged(t, "route="+r.path, `err="`+option+` is off"`)
	}
}

// TestSwitchesOfVersion1 goes through all combinations of the groups. What is off
// is not there at all, and version 2 is not touched.
//
// Conformance (version 1): groups `keys` and `links`, on by default, and `homeserver`, off; what is off | 404 `M_UNRECOGNIZED`, and a line of the log that names the option (also TestTheLogSaysWhichGroupIsOff)
func TestSwitchesOfVersion1(t *testing.T) {
	t.Parallel()
	groups := [][]request{
		{get(v1, ""), get(v1+"/pubkey/ed25519:x", ""), get(v1+"/pubkey/isvalid", ""), get(v1+"/pubkey/ephemeral/isvalid", "")},
		{get(v1+"/validate/email/submitToken", ""), get(v1+"/validate/msisdn/submitToken", ""), post(v1+"/sign-ed25519", "", "")},
		homeserverCalls(),
	}
	var opts httpapi.Options
	world := newWorld(t, func(s *settings) { s.options = &opts })
	for switches := range 1 << len(groups) {
		on := func(group int) bool { return switches&(1<<group) != 0 }
		t.Run(fmt.Sprintf("%03b", switches), func(t *testing.T) {
			t.Parallel()
			v := everything()
			v.Keys, v.Links, v.Homeserver = on(0), on(1), on(2)
			opts := opts
			opts.V1, opts.Registerer = v, nil
			w := world.with(t, opts)
			for i, group := range groups {
				for _, r := range group {
					a := w.send(t, r)
					off := (a.status == http.StatusNotFound || a.status == http.StatusMethodNotAllowed) && strings.Contains(string(a.body), "M_UNRECOGNIZED")
					if off == on(i) {
						t.Errorf("%s %s: %d %s", r.method, r.path, a.status, a.body)
					}
				}
			}
			w.send(t, get(isValidPath, "")).refused(t, 400, "M_MISSING_PARAMS")
			w.send(t, get(emailSubmit, "")).isPage(t, 400, "This link is incomplete")
		})
	}
}
