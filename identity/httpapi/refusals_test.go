package httpapi_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/matrix-herald/herald/identity/httpapi"
	"github.com/matrix-herald/herald/identity/httpapi/httpapitest"
)

// Conformance (endpoints): JSON in and out; the Content-Type of a request does not matter, that of an answer is `application/json` (also TestReadJSON)
// Conformance (endpoints): `errcode` and `error` are both in every error (also TestEveryEndpointIsThere)
// Conformance (endpoints): a body that is no JSON, no object, no UTF-8, goes on, is a form | 400 `M_NOT_JSON`, `M_BAD_JSON` (also TestReadJSON)
// Conformance (endpoints): a body over 64 KiB, a lookup over 6 MiB | 413 `M_TOO_LARGE`
// Conformance (endpoints): parameters that are missing | 400 `M_MISSING_PARAMS` that names them, after authentication (≠ Sydent: before, for some)
// Conformance (endpoints): no or unknown access token | 401 `M_UNAUTHORIZED` (also TestTokensThatAreNone)
// Conformance (endpoints): unknown path, wrong method (≠ Sydent: HTML) | 404, 405 `M_UNRECOGNIZED`
// Conformance (terms): a string, numbers (≠ Sydent: 500) for `user_accepts` | 400
// Conformance (lookup): another pepper | 400 `M_INVALID_PEPPER` with `algorithm` and `lookup_pepper` (also TestRotatedPepperIsTold)
// Conformance (lookup): another algorithm, before the pepper; `none` switched off | 400 `M_INVALID_PARAM` (also TestSwitchedOffAlgorithm)
// Conformance (lookup): an item that is no string (≠ Sydent: 500) | 400 `M_INVALID_PARAM`
// Conformance (federation): a body that is no request to unbind, which homeservers do not send | 400 `M_NOT_JSON`, `M_BAD_JSON`, `M_MISSING_PARAMS`
// Conformance (security): the body of every request is bounded, and the answer of every other server (CVE-2021-29430) (also TestBodyIsBounded, TestTimeIsBounded, TestWebhookAnswers)
func TestRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	token := w.register(t, alice)
	const registerPath = "/_matrix/identity/v2/account/register"
	email := func(address string) string {
		return encode(t, map[string]any{"client_secret": "secret", "email": address, "send_attempt": 1})
	}
	phone := func(country, number string) string {
		return encode(t, map[string]any{"client_secret": "secret", "country": country, "phone_number": number, "send_attempt": 1})
	}
	pepper := w.send(t, get(hashDetails, token)).text(t, "lookup_pepper")
	tests := map[string]struct {
		request
		status  int
		errcode string
	}{
		"an unknown path":            {get("/_matrix/identity/v3", ""), 404, "M_UNRECOGNIZED"},
		"version 1":                  {get("/_matrix/identity/api/v1", ""), 404, "M_UNRECOGNIZED"},
		"a path with a slash behind": {get("/_matrix/identity/v2/", ""), 404, "M_UNRECOGNIZED"},
		"a wrong method":             {get(lookupPath, token), 405, "M_UNRECOGNIZED"},
		"logout by GET":              {get("/_matrix/identity/v2/account/logout", token), 405, "M_UNRECOGNIZED"},
		"a confirm page not on":      {post("/_matrix/identity/v2/validate/email/confirm", "", ""), 404, "M_UNRECOGNIZED"},

		"a body that is no JSON":       {post(registerPath, "", `x`), 400, "M_NOT_JSON"},
		"an empty body":                {post(registerPath, "", ``), 400, "M_NOT_JSON"},
		"a form that does not say so":  {post(emailRequest, token, `client_secret=s&email=a%40b.c&send_attempt=1`), 400, "M_NOT_JSON"},
		"a body that is no UTF-8":      {post(registerPath, "", "{\"access_token\":\"\xff\"}"), 400, "M_NOT_JSON"},
		"a body that goes on":          {post(termsPath, token, `{"user_accepts":[]}{}`), 400, "M_NOT_JSON"},
		"a body that is a list":        {post(bindPath, token, `[]`), 400, "M_BAD_JSON"},
		"a server name that is a list": {post(registerPath, "", `{"access_token":"x","matrix_server_name":[]}`), 400, "M_BAD_JSON"},
		"an email that is a number":    {post(emailRequest, token, `{"client_secret":"s","email":1,"send_attempt":1}`), 400, "M_BAD_JSON"},
		"terms that are a string":      {post(termsPath, token, `{"user_accepts":"https://example.org"}`), 400, "M_BAD_JSON"},
		"terms that are numbers":       {post(termsPath, token, `{"user_accepts":[1]}`), 400, "M_BAD_JSON"},
		"a threepid that is a string":  {post(unbindPath, "", `{"mxid":"x","threepid":"x"}`), 400, "M_BAD_JSON"},
		"a body over 64 KiB":           {post(registerPath, "", `{"x":"`+strings.Repeat("x", 64<<10)+`"}`), 413, "M_TOO_LARGE"},
		"a lookup over 6 MiB":          {post(lookupPath, token, `{"x":"`+strings.Repeat("x", 6<<20)+`"}`), 413, "M_TOO_LARGE"},

		"registration without a token":            {post(registerPath, "", `{"matrix_server_name":"example.org"}`), 400, "M_MISSING_PARAMS"},
		"registration without a server":           {post(registerPath, "", `{"access_token":"x"}`), 400, "M_MISSING_PARAMS"},
		"registration with nulls":                 {post(registerPath, "", `{"access_token":null,"matrix_server_name":null}`), 400, "M_MISSING_PARAMS"},
		"registration in another case":            {post(registerPath, "", `{"Access_token":"x","matrix_server_name":"example.org"}`), 400, "M_MISSING_PARAMS"},
		"registration at what is no server":       {post(registerPath, "", `{"access_token":"x","matrix_server_name":"a/b"}`), 400, "M_INVALID_PARAM"},
		"registration with a refused token":       {post(registerPath, "", `{"access_token":"refused","matrix_server_name":"example.org"}`), 401, "M_UNAUTHORIZED"},
		"registration for another server's user":  {post(registerPath, "", `{"access_token":"mismatch","matrix_server_name":"example.org"}`), 401, "M_UNAUTHORIZED"},
		"registration as somebody from elsewhere": {post(registerPath, "", `{"access_token":"@a:b.c","matrix_server_name":"example.org"}`), 401, "M_UNAUTHORIZED"},
		"registration at a silent homeserver":     {post(registerPath, "", `{"access_token":"unreachable","matrix_server_name":"example.org"}`), 502, "M_UNKNOWN"},
		"registration when too many register":     {post(registerPath, "", `{"access_token":"busy","matrix_server_name":"example.org"}`), 429, "M_LIMIT_EXCEEDED"},

		"terms without user_accepts":             {post(termsPath, token, `{}`), 400, "M_MISSING_PARAMS"},
		"terms without a token":                  {post(termsPath, "", `x`), 401, "M_UNAUTHORIZED"},
		"a lookup without a token":               {post(lookupPath, "", `x`), 401, "M_UNAUTHORIZED"},
		"a lookup without anything":              {post(lookupPath, token, `{}`), 400, "M_MISSING_PARAMS"},
		"a lookup of null":                       {post(lookupPath, token, `{"algorithm":"none","pepper":"x","addresses":null}`), 400, "M_MISSING_PARAMS"},
		"a lookup of a string":                   {post(lookupPath, token, `{"algorithm":"none","pepper":"x","addresses":"x"}`), 400, "M_INVALID_PARAM"},
		"a lookup of a number among strings":     {post(lookupPath, token, `{"algorithm":"none","pepper":"x","addresses":["x",1,"y"]}`), 400, "M_INVALID_PARAM"},
		"a lookup of a null among strings":       {post(lookupPath, token, `{"algorithm":"none","pepper":"x","addresses":[null]}`), 400, "M_INVALID_PARAM"},
		"a lookup of a list in a list":           {post(lookupPath, token, `{"algorithm":"none","pepper":"x","addresses":[["x"]]}`), 400, "M_INVALID_PARAM"},
		"a lookup of a list that ends early":     {post(lookupPath, token, `{"algorithm":"none","pepper":"x","addresses":["x"`), 400, "M_NOT_JSON"},
		"a lookup by another algorithm":          {post(lookupPath, token, `{"algorithm":"md5","pepper":"`+pepper+`","addresses":[]}`), 400, "M_INVALID_PARAM"},
		"a lookup with another pepper":           {post(lookupPath, token, `{"algorithm":"sha256","pepper":"","addresses":[]}`), 400, "M_INVALID_PEPPER"},
		"an algorithm fault before the pepper's": {post(lookupPath, token, `{"algorithm":"md5","pepper":"x","addresses":[]}`), 400, "M_INVALID_PARAM"},

		"a mail without a token":        {post(emailRequest, "", `x`), 401, "M_UNAUTHORIZED"},
		"a mail without anything":       {post(emailRequest, token, `{}`), 400, "M_MISSING_PARAMS"},
		"a mail with an attempt null":   {post(emailRequest, token, `{"client_secret":"s","email":"a@b.c","send_attempt":null}`), 400, "M_MISSING_PARAMS"},
		"a mail to two addresses":       {post(emailRequest, token, email("a@b@c.org")), 400, "M_INVALID_EMAIL"},
		"a mail to a name":              {post(emailRequest, token, email("Alice <a@b.org>")), 400, "M_INVALID_EMAIL"},
		"a mail to nothing":             {post(emailRequest, token, email("")), 400, "M_INVALID_EMAIL"},
		"a mail to a header":            {post(emailRequest, token, email("a@b.org\r\nBcc: c@d.org")), 400, "M_INVALID_EMAIL"},
		"a mail to an endless address":  {post(emailRequest, token, email(strings.Repeat("a", 500)+"@b.org")), 400, "M_INVALID_EMAIL"},
		"a secret with a newline":       {post(emailRequest, token, `{"client_secret":"abc\n","email":"a@b.org","send_attempt":1}`), 400, "M_INVALID_PARAM"},
		"an empty secret":               {post(emailRequest, token, `{"client_secret":"","email":"a@b.org","send_attempt":1}`), 400, "M_INVALID_PARAM"},
		"a next_link that is a file":    {post(emailRequest, token, `{"client_secret":"s","email":"a@b.org","send_attempt":1,"next_link":"file:///etc/passwd"}`), 400, "M_INVALID_PARAM"},
		"a next_link that is a script":  {post(msisdnRequest, token, `{"client_secret":"s","country":"GB","phone_number":"07700900001","send_attempt":1,"next_link":"javascript:alert(1)"}`), 400, "M_INVALID_PARAM"},
		"a text without a token":        {post(msisdnRequest, "", `x`), 401, "M_UNAUTHORIZED"},
		"a text without anything":       {post(msisdnRequest, token, `{}`), 400, "M_MISSING_PARAMS"},
		"a text to what is no number":   {post(msisdnRequest, token, phone("GB", "hello")), 400, "M_INVALID_ADDRESS"},
		"a text to a number too long":   {post(msisdnRequest, token, phone("GB", "0770090000107700900001")), 400, "M_INVALID_ADDRESS"},
		"a text to an unknown country":  {post(msisdnRequest, token, phone("ZZ", "07700900001")), 400, "M_INVALID_ADDRESS"},
		"a mailed token without access": {post(emailSubmit, "", `x`), 401, "M_UNAUTHORIZED"},
		"a texted token without access": {post(msisdnSubmit, "", `x`), 401, "M_UNAUTHORIZED"},
		"a texted token without sid":    {post(msisdnSubmit, token, `{"client_secret":"s","token":"1"}`), 400, "M_MISSING_PARAMS"},
		"a texted token for no session": {post(msisdnSubmit, token, `{"sid":"s","client_secret":"s","token":"1"}`), 400, "M_INVALID_PARAM"},

		"getValidated3pid without a token":  {get(getValidated, ""), 401, "M_UNAUTHORIZED"},
		"getValidated3pid without a sid":    {get(getValidated+"?client_secret=s", token), 400, "M_MISSING_PARAMS"},
		"getValidated3pid with a bad sid":   {get(getValidated+"?sid=%0A&client_secret=s", token), 400, "M_INVALID_PARAM"},
		"getValidated3pid of no session":    {get(getValidated+"?sid=s&client_secret=s", token), 404, "M_NO_VALID_SESSION"},
		"bind without a token":              {post(bindPath, "", `x`), 401, "M_UNAUTHORIZED"},
		"bind without anything":             {post(bindPath, token, `{}`), 400, "M_MISSING_PARAMS"},
		"bind of no session":                {post(bindPath, token, `{"sid":"s","client_secret":"s","mxid":"`+alice+`"}`), 404, "M_NO_VALID_SESSION"},
		"bind of another user":              {post(bindPath, token, `{"sid":"s","client_secret":"s","mxid":"`+bob+`"}`), 403, "M_UNAUTHORIZED"},
		"bind with a malformed sid":         {post(bindPath, token, `{"sid":"?","client_secret":"s","mxid":"`+alice+`"}`), 400, "M_INVALID_PARAM"},
		"bind with a malformed secret":      {post(bindPath, token, `{"sid":"s","client_secret":"?","mxid":"`+alice+`"}`), 400, "M_INVALID_PARAM"},
		"unbind without anything":           {post(unbindPath, "", `{}`), 400, "M_MISSING_PARAMS"},
		"unbind without an address":         {post(unbindPath, "", `{"mxid":"x","threepid":{"medium":"email"}}`), 400, "M_MISSING_PARAMS"},
		"unbind by nobody":                  {post(unbindPath, "", `{"mxid":"x","threepid":{"medium":"email","address":"a@b.org"}}`), 403, "M_FORBIDDEN"},
		"a key that nobody has":             {get("/_matrix/identity/v2/pubkey/ed25519:x", ""), 404, "M_NOT_FOUND"},
		"a key of another kind":             {get("/_matrix/identity/v2/pubkey/rsa:0", ""), 404, "M_NOT_FOUND"},
		"a validity question without a key": {get("/_matrix/identity/v2/pubkey/isvalid", ""), 400, "M_MISSING_PARAMS"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w.send(t, tt.request).refused(t, tt.status, tt.errcode)
		})
	}
	t.Cleanup(func() {
		if n := len(w.mail.messages()) + len(w.sms.messages()); n != 0 {
			t.Errorf("%d messages sent for refused requests", n)
		}
	})
}

// Conformance (sessions): getValidated3pid: not validated, expired, unknown | 400 `M_SESSION_NOT_VALIDATED`, 400 `M_SESSION_EXPIRED`, 404 `M_NO_VALID_SESSION` (also TestRefusals)
// Conformance (bind): unknown sid or wrong secret, not told apart; not validated; expired | 404 `M_NO_VALID_SESSION`, 400 `M_SESSION_NOT_VALIDATED`, 400 `M_SESSION_EXPIRED` (also TestRefusals)
func TestBindOfSessionsThatProveNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	token := w.register(t, alice)
	c := w.session(t, token, "alice@example.org", "secret")
	w.send(t, post(bindPath, token, bindBody(t, c, alice))).refused(t, 400, "M_SESSION_NOT_VALIDATED")
	w.prove(t, token, c)
	w.clock.advance(24 * time.Hour)
	w.send(t, post(bindPath, token, bindBody(t, c, alice))).refused(t, 400, "M_SESSION_EXPIRED")
}

func TestSwitchedOffAlgorithm(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(s *settings) { s.hashOnly = true })
	token := w.register(t, alice)
	pepper := w.send(t, get(hashDetails, token)).text(t, "lookup_pepper")
	body := encode(t, map[string]any{"algorithm": "none", "pepper": pepper, "addresses": []string{}})
	w.send(t, post(lookupPath, token, body)).refused(t, 400, "M_INVALID_PARAM")
}

// Conformance (endpoints): busy | 429 `M_LIMIT_EXCEEDED` with `retry_after_ms` (≠ Sydent: `M_UNKNOWN`) (also TestFailedSending)
func TestRetryAfterBusyHomeservers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	a := w.send(t, post("/_matrix/identity/v2/account/register", "", `{"access_token":"busy","matrix_server_name":"example.org"}`))
	if got := a.refused(t, 429, "M_LIMIT_EXCEEDED")["retry_after_ms"]; got != 5000.0 || a.header.Get("Retry-After") != "5" {
		t.Errorf("retry_after_ms %v, Retry-After %q", got, a.header.Get("Retry-After"))
	}
}

// TestEveryEndpointIsThere asks each endpoint of the OpenAPI files for nothing. All
// answers to these tests are held against those files, and so are those of the real
// binary to its own.
//
// Conformance (endpoints): every endpoint of the OpenAPI files answers as they say
func TestEveryEndpointIsThere(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	for _, endpoint := range httpapitest.Endpoints(t) {
		method, path, _ := strings.Cut(endpoint, " ")
		a := w.send(t, request{method: method, path: strings.Replace(path, "{keyId}", "ed25519:x", 1)})
		if strings.Contains(string(a.body), "M_UNRECOGNIZED") {
			t.Errorf("%s: %d %s", endpoint, a.status, a.body)
		}
	}
}

// Conformance (endpoints): a fault of the database | 500 without detail
func TestDatabaseFaultsAreNotTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	token := w.register(t, alice)
	check(t, w.db.Close())
	a := w.send(t, request{"GET", "/_matrix/identity/v2/account", token, "", nil})
	if got := a.refused(t, 500, "M_UNKNOWN")["error"]; got != "Internal server error" {
		t.Errorf("error %q", got)
	}
	w.logged(t, "level=ERROR") // after the answer
}

func TestPreflightsAreAnsweredEverywhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	for _, path := range []string{
		"/_matrix/identity/versions", "/_matrix/identity/v2", "/_matrix/identity/v2/account/register", lookupPath, emailSubmit,
		unbindPath, "/_matrix/identity/v2/pubkey/ed25519:0", "/_matrix/identity/v2/unknown",
	} {
		a := w.send(t, request{method: "OPTIONS", path: path, header: http.Header{
			"Origin": {"https://app.example.org"}, "Access-Control-Request-Method": {"POST"},
		}})
		if a.status != http.StatusOK {
			t.Errorf("OPTIONS %s: %d", path, a.status)
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	if _, err := httpapi.New(httpapi.Options{}); err == nil {
		t.Error("New took no options")
	}
	var opts httpapi.Options
	newWorld(t, func(s *settings) { s.api.TrustedProxies = []string{"192.0.2.0/24"}; s.options = &opts })
	opts.TrustedProxies, opts.Registerer = []string{"proxy"}, nil
	if _, err := httpapi.New(opts); err == nil {
		t.Error("New took a proxy that is no address")
	}
}
