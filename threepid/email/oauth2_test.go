package email_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v4"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/internal/harness"
	"github.com/matrix-herald/herald/threepid/email"
	"github.com/matrix-herald/herald/threepid/threepidtest"
)

// office is a relay that takes access tokens, with the endpoint that issues them:
// token-1, token-2 and so on.
type office struct {
	*threepidtest.SMTP

	tokens *threepidtest.SMS
	valid  atomic.Pointer[string]
}

func newOffice(t *testing.T) *office {
	t.Helper()
	o := new(office)
	o.valid.Store(new("token-1"))
	o.SMTP = threepidtest.NewSMTP(t, threepidtest.SMTPOptions{
		Username: "noreply@id.example.org", Mechanism: "XOAUTH2", Current: func() string { return *o.valid.Load() },
	})
	o.tokens = o.Tokens(t)
	return o
}

// issue has the endpoint issue these tokens.
func (o *office) issue(life time.Duration, tokens ...string) {
	for _, token := range tokens {
		o.tokens.Answer(answer(fmt.Sprintf(`{"token_type":"Bearer","access_token":%q,"expires_in":%d}`, token, int(life.Seconds()))))
	}
}

func answer(body string) threepidtest.SMSAnswer {
	return threepidtest.SMSAnswer{Status: 200, Header: http.Header{"Content-Type": {"application/json"}}, Body: body}
}

func (o *office) config() email.Config {
	c := config(o.SMTP)
	c.Username = "noreply@id.example.org"
	c.OAuth2 = email.OAuth2Config{
		TokenURL: o.tokens.URL + "/tenant/token", ClientID: "the-client", ClientSecret: "hunter2", Scopes: []string{"https://outlook.example/.default"},
	}
	return c
}

// Conformance (requestToken): a relay that takes access tokens only (XOAUTH2) | fetched with client credentials or a service account's key; a refused one is replaced once (also TestAccessTokensThatDoNotLast, TestServiceAccounts, TestWithoutAnAccessToken)
func TestLoggingInWithAccessTokens(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	o.issue(time.Hour, "token-1")
	s := newSender(t, o.config())
	var sending sync.WaitGroup
	for range 5 { // who needs a token at the same time waits for the same request
		sending.Go(func() {
			if err := s.Send(t.Context(), challenge()); err != nil {
				t.Error(err)
			}
		})
	}
	sending.Wait()
	requests := o.tokens.Requests()
	if len(requests) != 1 || o.Messages()[0].Username != "noreply@id.example.org" {
		t.Fatalf("%d requests", len(requests))
	}
	form := requests[0].Form(t)
	if id, secret, _ := basicAuth(requests[0]); requests[0].URL.Path != "/tenant/token" || form.Get("grant_type") != "client_credentials" ||
		form.Get("scope") != "https://outlook.example/.default" || id != "the-client" || secret != "hunter2" {
		t.Errorf("asked with %v as %s", form, id)
	}
}

func basicAuth(r threepidtest.SMSRequest) (user, password string, ok bool) {
	return (&http.Request{Header: r.Header}).BasicAuth()
}

// TestTheConversationShowsNoPassword is about what an operator sees who tries it out.
func TestTheConversationShowsNoPassword(t *testing.T) {
	t.Parallel()
	const password = "a-password-or-access-token"
	for _, mechanism := range []string{"PLAIN", "LOGIN", "XOAUTH2"} {
		for _, right := range []string{password, "another one"} {
			relay := threepidtest.NewSMTP(t, threepidtest.SMTPOptions{Username: "is", Password: right, Mechanism: mechanism})
			c := config(relay)
			c.Username = "is"
			if c.Password = password; mechanism == "XOAUTH2" {
				tokens := relay.Tokens(t)
				tokens.Answer(answer(fmt.Sprintf(`{"access_token":%q}`, password)))
				c.Password, c.OAuth2 = "", email.OAuth2Config{TokenURL: tokens.URL, ClientID: "x", ClientSecret: password + "s", Scopes: []string{"x"}}
			}
			var secrets harness.Secrets
			secrets.Add("the password", password)
			var shown strings.Builder
			err := newSender(t, c).Try(t.Context(), challenge(), func(format string, args ...any) { fmt.Fprintf(&shown, format+"\n", args...) })
			if (err == nil) != (right == password) || len(secrets.In(shown.String())) > 0 || !strings.Contains(shown.String(), "> EHLO") ||
				strings.Contains(shown.String(), "RSET") || strings.Contains(shown.String(), "NOOP") { // which some relays refuse
				t.Errorf("%s: %v\n%s", mechanism, err, shown.String())
			}
		}
	}
}

func TestAccessTokensThatDoNotLast(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		life        time.Duration
		revoked     bool // after the first mail
		issued      []string
		connections int
	}{
		"a token that has expired":      {time.Second, false, []string{"token-1", "token-1"}, 2},
		"a token that was called back":  {time.Hour, true, []string{"token-1", "token-2"}, 3},
		"a token that lasts for a time": {time.Hour, false, []string{"token-1"}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newOffice(t)
			o.issue(tc.life, tc.issued...)
			s := newSender(t, o.config())
			for i := range 2 {
				if err := s.Send(t.Context(), challenge()); err != nil {
					t.Errorf("mail %d: %v", i, err)
				}
				if tc.revoked {
					o.valid.Store(new("token-2"))
				}
			}
			if n, c := len(o.tokens.Requests()), o.Connections(); n != len(tc.issued) || c != tc.connections {
				t.Errorf("%d requests, %d connections", n, c)
			}
		})
	}
}

func TestWithoutAnAccessToken(t *testing.T) {
	t.Parallel()
	never := make(chan struct{})
	refusal := `{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret."}`
	for name, tc := range map[string]struct {
		answer  threepidtest.SMSAnswer
		refused bool // by the relay
		reason  string
		outcome string
		said    string
	}{
		"a wrong secret":                {threepidtest.SMSAnswer{Status: 401, Body: refusal}, false, "answered 401", "auth", "AADSTS7000215: Invalid client secret."},
		"an endpoint in trouble":        {threepidtest.SMSAnswer{Status: 503, Body: "<html>busy</html>"}, false, "answered 503", "unavailable", "busy"},
		"an endpoint that cuts":         {threepidtest.SMSAnswer{}, false, "gave no token", "unreachable", "EOF"},
		"an endpoint that is silent":    {threepidtest.SMSAnswer{Status: 200, Until: never}, false, "time ran out at the access token", "timeout", ""},
		"an answer without a token":     {answer(`{}`), false, "gave no token", "unreachable", "missing access_token"},
		"a redirect, which may be evil": {threepidtest.SMSAnswer{Status: 307, Header: map[string][]string{"Location": {"https://evil.example/"}}}, false, "answered 307", "auth", ""},
		"a relay that takes no token":   {answer(`{"access_token":"other"}`), true, "535 5.7.8 at AUTH", "auth", "Authentication failed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newOffice(t)
			for range 4 { // in both ways of sending the client's secret, twice
				o.tokens.Answer(tc.answer)
			}
			c := o.config()
			if tc.answer.Until != nil {
				c.Timeout = conf.Duration(100 * time.Millisecond)
			}
			s := newSender(t, c)
			checkSendError(t, s.Send(t.Context(), challenge()), tc.reason)
			s.outcomes(t, tc.outcome, 1)
			if !strings.Contains(s.log.String(), tc.said) {
				t.Errorf("log: %s", s.log)
			}
			if n := o.Connections(); n != map[bool]int{false: 0, true: 2}[tc.refused] {
				t.Errorf("%d connections", n)
			}
		})
	}
}

// TestASilentTokenEndpointHoldsNobodyBeyondTheirTime is about several mails at once:
// each ends in its own time, and not one after the other.
func TestASilentTokenEndpointHoldsNobodyBeyondTheirTime(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	for range 100 {
		o.tokens.Answer(threepidtest.SMSAnswer{Status: 200, Until: make(chan struct{})})
	}
	c := o.config()
	c.Timeout = conf.Duration(500 * time.Millisecond)
	s, begun := newSender(t, c), time.Now()
	var sending sync.WaitGroup
	for range 10 {
		sending.Go(func() { checkSendError(t, s.Send(t.Context(), challenge()), "time ran out") })
	}
	sending.Wait()
	if took := time.Since(begun); took > 4*time.Second {
		t.Errorf("ten mails took %v", took)
	}
}

// TestServiceAccounts is about Google, whose relay takes tokens of a service account
// that acts for the mailbox.
func TestServiceAccounts(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	o.issue(time.Hour, "token-1")
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	key, err := json.Marshal(map[string]string{
		"type": "service_account", "client_email": "herald@project.example", "private_key_id": "k1", "token_uri": o.tokens.URL,
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
	})
	if err != nil {
		t.Fatal(err)
	}
	c := o.config()
	c.OAuth2 = email.OAuth2Config{ClientSecret: conf.Secret(key), Scopes: []string{"https://mail.google.com/"}}
	if err := newSender(t, c).Send(t.Context(), challenge()); err != nil {
		t.Fatal(err)
	}
	form := o.tokens.Requests()[0].Form(t)
	var claims jwt.MapClaims
	if _, err := jwt.ParseWithClaims(form.Get("assertion"), &claims, func(*jwt.Token) (any, error) { return private.Public(), nil }); err != nil {
		t.Fatal(err)
	}
	if claims["iss"] != "herald@project.example" || claims["sub"] != "noreply@id.example.org" || claims["scope"] != "https://mail.google.com/" || claims["aud"] != o.tokens.URL {
		t.Errorf("claims %v", claims)
	}
}
