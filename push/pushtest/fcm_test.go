package pushtest_test

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v4"

	"github.com/matrix-herald/herald/push/pushtest"
)

// fcmClient talks to a fake as somebody who holds its service account would.
type fcmClient struct {
	*pushtest.FCM
	http  *http.Client
	token string
}

func newFCMClient(t *testing.T, opts pushtest.FCMOptions) *fcmClient {
	t.Helper()
	fake := pushtest.StartFCM(t, opts)
	transport := &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: fake.CA().Pool(), MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2: true,
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &fcmClient{FCM: fake, http: &http.Client{Transport: transport}}
}

func (c *fcmClient) post(t *testing.T, path, contentType, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.URL()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Authorization", "Bearer "+c.token)
	resp, err := c.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// exchange asks for an access token with the usual claims, changed.
func (c *fcmClient) exchange(t *testing.T, change func(jwt.MapClaims)) (int, string) {
	t.Helper()
	var account struct {
		Email    string `json:"client_email"`
		Key      string `json:"private_key"`
		TokenURL string `json:"token_uri"`
	}
	if err := json.Unmarshal(c.ServiceAccount("demo"), &account); err != nil {
		t.Fatal(err)
	}
	key, err := jwt.ParseRSAPrivateKeyFromPEM([]byte(account.Key))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	claims := jwt.MapClaims{
		"iss": account.Email, "aud": account.TokenURL, "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
		"scope": "https://www.googleapis.com/auth/firebase.messaging",
	}
	change(claims)
	assertion, err := jwt.NewWithClaims(jwt.SigningMethodRS256, claims).SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	form := url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {assertion}}
	return c.post(t, "/token", "application/x-www-form-urlencoded", form.Encode())
}

func (c *fcmClient) authorise(t *testing.T) {
	t.Helper()
	status, body := c.exchange(t, func(jwt.MapClaims) {})
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil || status != 200 || answer.AccessToken == "" {
		t.Fatalf("no access token: %d %s", status, body)
	}
	c.token = answer.AccessToken
}

func TestFCMRefusesBadAssertions(t *testing.T) {
	t.Parallel()
	client := newFCMClient(t, pushtest.FCMOptions{})
	for name, change := range map[string]func(jwt.MapClaims){
		"another audience":      func(c jwt.MapClaims) { c["aud"] = "https://example.org/token" },
		"another issuer":        func(c jwt.MapClaims) { c["iss"] = "someone@example.org" },
		"another scope":         func(c jwt.MapClaims) { c["scope"] = "https://www.googleapis.com/auth/drive" },
		"an end in the past":    func(c jwt.MapClaims) { c["exp"] = time.Now().Add(-time.Minute).Unix() },
		"a life over an hour":   func(c jwt.MapClaims) { c["exp"] = time.Now().Add(2 * time.Hour).Unix() },
		"a begin in the future": func(c jwt.MapClaims) { c["iat"] = time.Now().Add(time.Minute).Unix() },
	} {
		if status, body := client.exchange(t, change); status != 400 || !strings.Contains(body, "invalid_grant") {
			t.Errorf("%s: got %d %s", name, status, body)
		}
	}
	form := url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {"a.b.c"}}
	if status, body := client.post(t, "/token", "application/x-www-form-urlencoded", form.Encode()); status != 400 {
		t.Errorf("an assertion without a signature: got %d %s", status, body)
	}
	if status, body := client.post(t, "/token", "application/x-www-form-urlencoded", ""); status != 400 {
		t.Errorf("nothing: got %d %s", status, body)
	}
}

func TestFCMRefusesBadMessages(t *testing.T) {
	t.Parallel()
	client := newFCMClient(t, pushtest.FCMOptions{})
	client.authorise(t)
	const path = "/v1/projects/demo/messages:send"
	for name, body := range map[string]string{
		"no JSON":                  `{`,
		"no message":               `{}`,
		"an unknown member":        `{"message":{"token":"t","colour":"red"}}`,
		"no target":                `{"message":{"data":{"a":"b"}}}`,
		"two targets":              `{"message":{"token":"t","topic":"x"}}`,
		"data that is no text":     `{"message":{"token":"t","data":{"a":1}}}`,
		"a reserved key":           `{"message":{"token":"t","data":{"from":"x"}}}`,
		"a reserved prefix":        `{"message":{"token":"t","data":{"google.x":"x"}}}`,
		"data of 4097 bytes":       `{"message":{"token":"t","data":{"a":"` + strings.Repeat("x", 4096) + `"}}}`,
		"a priority nobody knows":  `{"message":{"token":"t","android":{"priority":"urgent"}}}`,
		"a member that is no text": `{"message":{"token":5}}`,
	} {
		status, answer := client.post(t, path, "application/json", body)
		if status != 400 || !strings.Contains(answer, `"errorCode":"INVALID_ARGUMENT"`) || !json.Valid([]byte(answer)) {
			t.Errorf("%s: got %d %s", name, status, answer)
		}
	}
	fits := `{"message":{"token":"t","data":{"a":"` + strings.Repeat("x", 4095) + `"},"android":{"priority":"high"}}}`
	if status, answer := client.post(t, path, "application/json", fits); status != 200 || !strings.Contains(answer, "projects/demo/messages/") {
		t.Errorf("a message of 4096 bytes: got %d %s", status, answer)
	}
	requests := client.Requests()
	if last := requests[len(requests)-1]; last.Project != "demo" || last.Message.Token != "t" || !bytes.Equal(last.Body, []byte(fits)) {
		t.Errorf("the last request is of %s to %s", last.Project, last.Message.Token)
	}
	if status, _ := client.post(t, "/v1/projects/demo/messages:list", "application/json", fits); status != 404 {
		t.Errorf("another method: got %d", status)
	}
}

func TestFCMRefusesBadAccessTokens(t *testing.T) {
	t.Parallel()
	client := newFCMClient(t, pushtest.FCMOptions{})
	send := func() int {
		status, _ := client.post(t, "/v1/projects/demo/messages:send", "application/json", `{"message":{"token":"t"}}`)
		return status
	}
	if got := send(); got != 401 {
		t.Errorf("without a token: got %d", got)
	}
	client.authorise(t)
	if got := send(); got != 200 {
		t.Errorf("with a token: got %d", got)
	}
	client.Revoke()
	if got := send(); got != 401 {
		t.Errorf("with a revoked token: got %d", got)
	}
}
