package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/matrix-herald/herald/identity/httpapi/httpapitest"
	"github.com/matrix-herald/herald/identity/storetest"
	"github.com/matrix-herald/herald/threepid/threepidtest"
)

// contract holds the answers of the real program against the specification and
// remembers which endpoints have given one.
type contract struct {
	node  *node
	token string
	asked map[string]bool // "METHOD /path", without a query
}

// want sends a request, holds the answer against the OpenAPI files and fails the
// test unless it has this status and, if code is not empty, this errcode. Paths
// are below version 2 or, beginning with a "!", below the API.
func (c *contract) want(t *testing.T, status int, code, request, body string, args ...any) map[string]any {
	t.Helper()
	method, path, _ := strings.Cut(request, " ")
	full := "/_matrix/identity/v2" + path
	if rest, ok := strings.CutPrefix(path, "!"); ok {
		full = "/_matrix/identity" + rest
	}
	if len(args) > 0 {
		body = fmt.Sprintf(body, args...)
	}
	r, a, err := c.node.do(t.Context(), method, full, c.token, body)
	if err != nil {
		t.Fatal(err)
	}
	httpapitest.Check(t, r, a.status, a.header, a.body)
	c.asked[method+" "+r.URL.Path] = true
	var object map[string]any
	if a.header.Get("Content-Type") == "application/json" {
		if err := json.Unmarshal(a.body, &object); err != nil {
			t.Fatalf("%s: %s: %v", request, a.body, err)
		}
	}
	if got, _ := object["errcode"].(string); a.status != status || got != code {
		t.Errorf("%s %s: %d %s, want %d %s", request, body, a.status, a.body, status, code)
	}
	return object
}

const contractConfig = `
validation: {confirm_page: false}
terms:
  privacy: {version: "1.0", languages: {en: {name: Privacy, url: "https://is.example.org/privacy-1.0-en"}}}
sms:
  provider: webhook
  allow: [GB]
  webhook: {url: %q, body: '{"to": {{json .To}}, "text": {{json .Text}}}', allow_networks: [127.0.0.0/8]}
`

// TestEveryEndpointKeepsToTheSpecification has each endpoint of the running
// program give its answers, good ones and refusals, on both databases.
//
// Conformance (endpoints): every endpoint of the OpenAPI files answers as they say, on SQLite and PostgreSQL, from the real binary
func TestEveryEndpointKeepsToTheSpecification(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, newDatabase func(testing.TB) string) {
		sms := threepidtest.NewSMS(t)
		s := newSite(t, newDatabase(t), fmt.Sprintf(contractConfig, sms.URL))
		c := &contract{node: s.start(t), asked: make(map[string]bool)}
		c.discovery(t)
		user := "@alice:" + s.homeserver
		c.accounts(t, s, user)
		c.email(t, s)
		c.msisdn(t, sms)
		c.bindings(t, s, user)
		c.lookups(t, user)
		c.invites(t, user)
		c.unbind(t, s, user)
		c.want(t, http.StatusOK, "", "POST /account/logout", "")
		c.want(t, http.StatusUnauthorized, "M_UNKNOWN_TOKEN", "POST /account/logout", "")
		c.everything(t)
	})
}

func (c *contract) discovery(t *testing.T) {
	t.Helper()
	c.want(t, http.StatusOK, "", "GET !/versions", "")
	c.want(t, http.StatusOK, "", "GET ", "")
	c.want(t, http.StatusNotFound, "M_UNRECOGNIZED", "GET /nothing", "")
	c.want(t, http.StatusMethodNotAllowed, "M_UNRECOGNIZED", "PUT /lookup", "{}")
	c.want(t, http.StatusOK, "", "GET /pubkey/isvalid?public_key=none", "")
	c.want(t, http.StatusNotFound, "M_NOT_FOUND", "GET /pubkey/ed25519:none", "")
}

// signed are the endpoints that need an account and accepted terms.
var signed = []string{
	"GET /account", "GET /hash_details", "POST /lookup",
	"POST /validate/email/requestToken", "POST /validate/email/submitToken",
	"POST /validate/msisdn/requestToken", "POST /validate/msisdn/submitToken",
	"GET /3pid/getValidated3pid", "POST /3pid/bind",
}

func (c *contract) accounts(t *testing.T, s *site, user string) {
	t.Helper()
	for _, request := range append(signed, "POST /terms") {
		c.want(t, http.StatusUnauthorized, "M_UNAUTHORIZED", request, "{}")
	}
	const register = `{"matrix_server_name":%q,"access_token":%q,"token_type":"Bearer","expires_in":3600}`
	c.want(t, http.StatusBadRequest, "M_NOT_JSON", "POST /account/register", "{")
	c.want(t, http.StatusBadRequest, "M_MISSING_PARAMS", "POST /account/register", "{}")
	c.want(t, http.StatusBadRequest, "M_INVALID_PARAM", "POST /account/register", register, "not a name", user)
	c.want(t, http.StatusUnauthorized, "M_UNAUTHORIZED", "POST /account/register", register, s.homeserver, "unknown")
	c.want(t, http.StatusBadGateway, "M_UNKNOWN", "POST /account/register", register, "127.0.0.1:1", user)
	c.token, _ = c.want(t, http.StatusOK, "", "POST /account/register", register, s.homeserver, user)["token"].(string)

	for _, request := range signed {
		c.want(t, http.StatusForbidden, "M_TERMS_NOT_SIGNED", request, "{}")
	}
	c.want(t, http.StatusOK, "", "GET /terms", "")
	c.want(t, http.StatusBadRequest, "M_MISSING_PARAMS", "POST /terms", "{}")
	c.want(t, http.StatusOK, "", "POST /terms", `{"user_accepts":["https://is.example.org/privacy-1.0-en"]}`)
	c.want(t, http.StatusOK, "", "GET /account", "")
}

func (c *contract) email(t *testing.T, s *site) {
	t.Helper()
	const request, submit = "POST /validate/email/requestToken", "POST /validate/email/submitToken"
	const asking = `{"client_secret":%q,"email":%q,"send_attempt":1}`
	c.want(t, http.StatusBadRequest, "M_MISSING_PARAMS", request, `{"client_secret":"a"}`)
	c.want(t, http.StatusBadRequest, "M_INVALID_PARAM", request, asking, "a b", "a@example.com")
	c.want(t, http.StatusBadRequest, "M_INVALID_EMAIL", request, asking, "a", "a@b@example.com")
	s.relay.Fail(threepidtest.Fault{At: threepidtest.Data, Cut: true})
	c.want(t, http.StatusBadRequest, "M_EMAIL_SEND_ERROR", request, asking, "a", "cut@example.com")
	sid := c.want(t, http.StatusOK, "", request, asking, clientSecret, "alice@example.com")["sid"]
	c.want(t, http.StatusBadRequest, "M_SESSION_NOT_VALIDATED", fmt.Sprintf("GET /3pid/getValidated3pid?sid=%s&client_secret=%s", sid, clientSecret), "")
	c.want(t, http.StatusBadRequest, "M_SESSION_NOT_VALIDATED", "POST /3pid/bind", `{"sid":%q,"client_secret":%q,"mxid":"@alice:%s"}`, sid, clientSecret, s.homeserver)

	const proof = `{"sid":%q,"client_secret":%q,"token":%q}`
	mailed := s.mailedTokens(t)["alice@example.com"]
	c.want(t, http.StatusBadRequest, "M_TOKEN_INCORRECT", submit, proof, sid, clientSecret, "wrong")
	c.want(t, http.StatusBadRequest, "M_INVALID_PARAM", submit, proof, "unknown", clientSecret, mailed)
	c.want(t, http.StatusBadRequest, "M_MISSING_PARAMS", submit, "{}")
	c.want(t, http.StatusOK, "", submit, proof, sid, clientSecret, mailed)

	link := url.Values{"sid": {fmt.Sprint(sid)}, "client_secret": {clientSecret}, "token": {mailed}}
	get := "GET /validate/email/submitToken?"
	c.want(t, http.StatusOK, "", get+link.Encode(), "")
	link.Set("token", "wrong")
	c.want(t, http.StatusBadRequest, "", get+link.Encode(), "")
}

var texted = regexp.MustCompile(`\b[0-9]{6}\b`)

func (c *contract) msisdn(t *testing.T, sms *threepidtest.SMS) {
	t.Helper()
	const request, submit = "POST /validate/msisdn/requestToken", "POST /validate/msisdn/submitToken"
	const asking = `{"client_secret":%q,"country":%q,"phone_number":%q,"send_attempt":%d}`
	c.want(t, http.StatusBadRequest, "M_MISSING_PARAMS", request, "{}")
	c.want(t, http.StatusBadRequest, "M_INVALID_ADDRESS", request, asking, "a", "GB", "none", 1)
	c.want(t, http.StatusBadRequest, "M_DESTINATION_REJECTED", request, asking, "a", "US", "8005552067", 1)
	sms.Answer(threepidtest.SMSAnswer{Status: http.StatusBadRequest, Body: "{}"})
	c.want(t, http.StatusBadRequest, "M_SEND_ERROR", request, asking, clientSecret, "GB", "07700900001", 1)
	sid := c.want(t, http.StatusOK, "", request, asking, clientSecret, "GB", "07700900001", 2)["sid"]
	all := sms.Requests()
	code := texted.FindString(fmt.Sprint(all[len(all)-1].JSON(t)["text"]))
	const proof = `{"sid":%q,"client_secret":%q,"token":%q}`
	c.want(t, http.StatusBadRequest, "M_TOKEN_INCORRECT", submit, proof, sid, clientSecret, "wrong")
	c.want(t, http.StatusOK, "", submit, proof, sid, clientSecret, code)
	link := url.Values{"sid": {fmt.Sprint(sid)}, "client_secret": {clientSecret}, "token": {code}}
	c.want(t, http.StatusOK, "", "GET /validate/msisdn/submitToken?"+link.Encode(), "")
	c.want(t, http.StatusBadRequest, "", "GET /validate/msisdn/submitToken", "")
}

func (c *contract) bindings(t *testing.T, s *site, user string) {
	t.Helper()
	const binding = `{"sid":%q,"client_secret":%q,"mxid":%q}`
	sid, err := c.node.session(t.Context(), c.token, "alice@example.com") // the same attempt: the same session
	if err != nil {
		t.Fatal(err)
	}
	validated := "GET /3pid/getValidated3pid?client_secret=" + clientSecret
	c.want(t, http.StatusOK, "", validated+"&sid="+sid, "")
	c.want(t, http.StatusNotFound, "M_NO_VALID_SESSION", validated+"&sid=unknown", "")
	c.want(t, http.StatusBadRequest, "M_MISSING_PARAMS", validated, "")
	c.want(t, http.StatusNotFound, "M_NO_VALID_SESSION", "POST /3pid/bind", binding, "unknown", clientSecret, user)
	c.want(t, http.StatusForbidden, "M_UNAUTHORIZED", "POST /3pid/bind", binding, sid, clientSecret, "@bob:"+s.homeserver)
	bound := c.want(t, http.StatusOK, "", "POST /3pid/bind", binding, sid, clientSecret, user)
	servers, _ := bound["signatures"].(map[string]any)
	signatures, _ := servers["is.example.org"].(map[string]any)
	for id := range signatures {
		key := c.want(t, http.StatusOK, "", "GET /pubkey/"+id, "")["public_key"]
		valid := c.want(t, http.StatusOK, "", "GET /pubkey/isvalid?public_key="+url.QueryEscape(fmt.Sprint(key)), "")
		if valid["valid"] != true {
			t.Errorf("the key of an association is not valid")
		}
	}
	if len(signatures) != 1 {
		t.Errorf("signatures of an association: %v", bound["signatures"])
	}
}

func (c *contract) lookups(t *testing.T, user string) {
	t.Helper()
	const asking = `{"algorithm":%q,"pepper":%q,"addresses":[%s]}`
	pepper := c.want(t, http.StatusOK, "", "GET /hash_details", "")["lookup_pepper"]
	c.want(t, http.StatusOK, "", "POST /lookup", asking, "sha256", pepper, "")
	found := c.want(t, http.StatusOK, "", "POST /lookup", asking, "none", pepper, `"alice@example.com email","447700900001 msisdn"`)
	if mappings, _ := found["mappings"].(map[string]any); len(mappings) != 1 || mappings["alice@example.com email"] != user {
		t.Errorf("looked up %v", found)
	}
	c.want(t, http.StatusBadRequest, "M_INVALID_PARAM", "POST /lookup", asking, "sha512", pepper, "")
	c.want(t, http.StatusBadRequest, "M_INVALID_PEPPER", "POST /lookup", asking, "sha256", "old", "")
	c.want(t, http.StatusRequestEntityTooLarge, "M_TOO_LARGE", "POST /lookup", asking, "sha256", pepper, `"a"`+strings.Repeat(`,"a"`, 10_000))
}

func (c *contract) unbind(t *testing.T, s *site, user string) {
	t.Helper()
	const unbinding = `{"sid":%q,"client_secret":%q,"mxid":%q,"threepid":{"medium":"email","address":"alice@example.com"}}`
	sid, err := c.node.session(t.Context(), c.token, "alice@example.com")
	if err != nil {
		t.Fatal(err)
	}
	c.want(t, http.StatusForbidden, "M_FORBIDDEN", "POST /3pid/unbind", unbinding, "unknown", clientSecret, user)
	c.want(t, http.StatusOK, "", "POST /3pid/unbind", unbinding, sid, clientSecret, user)
}

// invites has the endpoints of invitations give their answers.
func (c *contract) invites(t *testing.T, user string) {
	t.Helper()
	const invitation = `{"medium":"email","address":%q,"room_id":"!room:example.org","sender":%q}`
	if !c.served(t, http.MethodPost, "/store-invite") {
		return
	}
	c.want(t, http.StatusBadRequest, "M_MISSING_PARAMS", "POST /store-invite", "{}")
	c.want(t, http.StatusBadRequest, "M_THREEPID_IN_USE", "POST /store-invite", invitation, "alice@example.com", user)
	invited := c.want(t, http.StatusOK, "", "POST /store-invite", invitation, "carol@example.com", user)
	keys, _ := invited["public_keys"].([]any)
	if len(keys) != 2 {
		t.Fatalf("keys of an invitation: %v", keys)
	}
	ephemeral, _ := keys[1].(map[string]any)
	key := url.QueryEscape(fmt.Sprint(ephemeral["public_key"]))
	if c.want(t, http.StatusOK, "", "GET /pubkey/ephemeral/isvalid?public_key="+key, "")["valid"] != true {
		t.Error("the ephemeral key of an invitation is not valid")
	}
	c.want(t, http.StatusNotFound, "M_UNRECOGNIZED", "POST /sign-ed25519", `{"mxid":%q,"token":"unknown","private_key":%q}`, user, strings.Repeat("A", 43))
}

// served reports whether the program has an endpoint.
func (c *contract) served(t *testing.T, method, path string) bool {
	t.Helper()
	_, a, err := c.node.do(t.Context(), method, "/_matrix/identity/v2"+path, c.token, "{}")
	if err != nil {
		t.Fatal(err)
	}
	return a.status != http.StatusNotFound && a.status != http.StatusMethodNotAllowed
}

// everything fails the test if the OpenAPI files have an endpoint that the
// program has, too, and that has not been asked.
func (c *contract) everything(t *testing.T) {
	t.Helper()
	parameter := regexp.MustCompile(`\\\{[^}]*\\\}`)
	for _, endpoint := range httpapitest.Endpoints(t) {
		method, path, _ := strings.Cut(endpoint, " ")
		pattern := parameter.ReplaceAllString(regexp.QuoteMeta(path), "[^/]+")
		like := regexp.MustCompile("^" + method + " (/_matrix/identity/v2)?" + pattern + "$")
		asked := false
		for request := range c.asked {
			asked = asked || like.MatchString(request)
		}
		if !asked && c.served(t, method, path) {
			t.Errorf("nobody has asked %s", endpoint)
		}
	}
}
