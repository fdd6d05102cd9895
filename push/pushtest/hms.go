package pushtest

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v4"
)

// The app and the projects that HMS knows, and the secret of the app's OAuth client.
const (
	HMSApp          = "104567890"
	HMSProject      = "388421841221"
	HMSOtherProject = "388421841222"
	HMSSecret       = "client-secret-of-the-app"
)

// hmsLogin is the audience of all access tokens.
const hmsLogin = "https://oauth-login.cloud.huawei.com/oauth2/v3/token"

// HMSRequest is one message as it arrived.
type HMSRequest struct {
	Version string // v1, v2 or v3
	ID      string // of the app or the project in the path
	Header  http.Header
	Body    []byte
	// Token is the push token, and Message is what Body says.
	Token   string
	Message HMSMessage
}

// HMSMessage is a message of any version: of v1 and v2 Message, else the others.
type HMSMessage struct {
	Message *struct {
		Data    string `json:"data"`
		Android struct {
			Urgency     string `json:"urgency"`
			TTL         string `json:"ttl"`
			CollapseKey *int   `json:"collapse_key"`
		} `json:"android"`
		Token []string `json:"token"`
	} `json:"message"`
	ValidateOnly bool `json:"validate_only"`

	Payload *struct {
		Notification struct {
			Category    string `json:"category"`
			Title       string `json:"title"`
			Body        string `json:"body"`
			ClickAction *struct {
				ActionType int               `json:"actionType"`
				Data       map[string]string `json:"data"`
			} `json:"clickAction"`
			Badge *struct {
				SetNum int `json:"setNum"`
			} `json:"badge"`
		} `json:"notification"`
	} `json:"payload"`
	PushOptions struct {
		TTL         int  `json:"ttl"`
		TestMessage bool `json:"testMessage"`
	} `json:"pushOptions"`
	Target struct {
		Token []string `json:"token"`
	} `json:"target"`
}

// HMS is a stand-in for Huawei's Push Kit and its token endpoint, over TLS and HTTP/2
// on 127.0.0.1. As a Peer it counts messages only.
type HMS struct {
	*recorder[HMSRequest]
	*service

	key     *rsa.PrivateKey
	answer  func(HMSRequest) FCMAnswer
	tokens  *recorder[struct{}]
	bearers sync.Map // access tokens of OAuth → struct{}

	mu      sync.Mutex
	onToken func() FCMAnswer
	now     func() time.Time
	keyIDs  map[string]string // of the service account of each project
}

// StartHMS starts an HMS that ends with the test. answer decides on each authorised
// and valid message; nil, or a zero answer, takes it.
func StartHMS(tb testing.TB, answer func(HMSRequest) FCMAnswer) *HMS {
	tb.Helper()
	key, err := accountKey()
	if err != nil {
		tb.Fatal(err)
	}
	h := &HMS{
		recorder: newRecorder[HMSRequest](false), service: listen(tb), key: key, answer: answer,
		tokens: newRecorder[struct{}](false), now: time.Now,
		keyIDs: map[string]string{HMSProject: "key-1"},
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /oauth2/v3/token", h.serveToken)
	mux.HandleFunc("POST /{version}/{id}/messages:send", h.serveMessage)
	h.serve(tb, mux, h.ca.ServerTLS(tb), 0)
	return h
}

// ServiceAccount returns the JSON key of a service account of HMSProject. The one
// before is not taken any more.
func (h *HMS) ServiceAccount(keyID string) []byte { return h.ServiceAccountOf(HMSProject, keyID) }

// ServiceAccountOf is ServiceAccount of another project.
func (h *HMS) ServiceAccountOf(project, keyID string) []byte {
	h.mu.Lock()
	h.keyIDs[project] = keyID
	h.mu.Unlock()
	der, _ := x509.MarshalPKCS8PrivateKey(h.key) // an RSA key and strings cannot fail
	text, _ := json.Marshal(map[string]string{
		"project_id": project, "key_id": keyID, "sub_account": "account-" + project, "token_uri": hmsLogin,
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
	})
	return text
}

// OnToken makes the token endpoint answer what answer returns; an answer that is zero,
// or a nil function, is a token again.
func (h *HMS) OnToken(answer func() FCMAnswer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.onToken = answer
}

// SetClock sets the clock that access tokens are judged by.
func (h *HMS) SetClock(now func() time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = now
}

// TokenCount is how many requests for an access token have arrived.
func (h *HMS) TokenCount() int { return h.tokens.Count() }

// Revoke makes all access tokens of OAuth invalid.
func (h *HMS) Revoke() { h.bearers.Clear() }

// HMSCode is how Huawei refuses a message, or takes it with code 80000000.
func HMSCode(code, message string) FCMAnswer {
	text, _ := json.Marshal(map[string]string{"code": code, "msg": message, "requestId": "1657"}) // texts cannot fail
	return FCMAnswer{Body: string(text)}
}

// HMSIllegal is how v3 refuses a message because of its token.
func HMSIllegal(code, reason, token string) FCMAnswer {
	return HMSCode(code, fmt.Sprintf(`{"illegalTokens":{%q:[%q]},"failure":1}`, reason, token))
}

// HMSBehaving returns an answer that plays b with every message. It does not play
// Refuse: that is an address where nothing listens.
func HMSBehaving(b Behaviour) func(HMSRequest) FCMAnswer {
	answer := b.apnsAnswer()
	return func(HMSRequest) FCMAnswer {
		return FCMAnswer{Status: answer.Status, Body: answer.Body, Hang: answer.Hang, Cut: answer.Cut}
	}
}

func (h *HMS) serveMessage(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return
	}
	req := HMSRequest{Version: r.PathValue("version"), ID: r.PathValue("id"), Header: r.Header, Body: body}
	code, message := req.Check()
	h.add(req)
	if refusal, text := h.authorise(req); refusal != "" {
		code, message = refusal, text
	}
	var answer FCMAnswer
	if code != "" {
		answer = HMSCode(code, message)
	} else if h.answer != nil {
		answer = h.answer(req)
	}
	if answer.Status == 0 && answer.Body == "" {
		answer.Body = HMSCode("80000000", "Success").Body
	}
	h.write(w, r, answer)
}

// authorise checks who sends, and returns Huawei's code and words against it.
func (h *HMS) authorise(req HMSRequest) (code, message string) {
	bearer := strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")
	_, known := h.bearers.Load(bearer)
	h.mu.Lock()
	account := h.keyIDs[req.ID] != ""
	h.mu.Unlock()
	switch {
	case req.Version == "v1" && req.ID != HMSApp, req.Version != "v1" && !account:
		return "80200001", "Oauth authentication error"
	case known && req.Version != "v3":
		return "", ""
	case !strings.Contains(bearer, "."):
		return "80200003", "Oauth token expired"
	}
	project := req.ID
	if req.Version == "v1" {
		project = HMSProject
	}
	return h.checkJWT(project, bearer)
}

func (h *HMS) checkJWT(project, bearer string) (code, message string) {
	h.mu.Lock()
	now, keyID := h.now(), h.keyIDs[project]
	h.mu.Unlock()
	// As long as its hash, as the libraries have it that Huawei names.
	salted := &jwt.SigningMethodRSAPSS{
		SigningMethodRSA: jwt.SigningMethodPS256.SigningMethodRSA,
		VerifyOptions:    &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash},
	}
	var claims struct {
		Issuer   string `json:"iss"`
		Audience any    `json:"aud"`
		Issued   int64  `json:"iat"`
		Expires  int64  `json:"exp"`
	}
	parts := strings.Split(bearer, ".")
	var header struct{ Alg, Typ, Kid string }
	read := func(text string, v any) bool {
		data, err := base64.RawURLEncoding.DecodeString(text)
		return err == nil && json.Unmarshal(data, v) == nil
	}
	switch {
	case len(parts) != 3 || !read(parts[0], &header) || !read(parts[1], &claims),
		header.Alg != "PS256" || header.Typ != "JWT" || header.Kid != keyID,
		salted.Verify(parts[0]+"."+parts[1], parts[2], &h.key.PublicKey) != nil,
		claims.Issuer != "account-"+project || claims.Audience != hmsLogin || claims.Issued == 0 || claims.Issued > now.Unix():
		return "80200001", "Authentication Error."
	case claims.Expires <= now.Unix():
		return "80200005", "Jwt token expired."
	case claims.Expires-claims.Issued > 24*60*60:
		return "80300036", "JWT expire period over threshold."
	}
	return "", ""
}

var hmsTTL = regexp.MustCompile(`^[0-9]{1,7}s$`)

// Check reads the message of a request, and returns Huawei's code and words against
// it, "" where there is nothing.
func (req *HMSRequest) Check() (code, message string) {
	dec := json.NewDecoder(bytes.NewReader(req.Body))
	dec.DisallowUnknownFields()
	m := &req.Message
	if err := dec.Decode(m); err != nil {
		return "80100003", "Illegal payload, " + err.Error()
	}
	tokens, ttl := m.Target.Token, m.PushOptions.TTL
	if m.Message != nil {
		tokens = m.Message.Token
		ttl, _ = strconv.Atoi(strings.TrimSuffix(m.Message.Android.TTL, "s"))
	}
	if len(tokens) == 1 {
		req.Token = tokens[0]
	}
	switch {
	case req.Header.Get("Content-Type") != "application/json; charset=UTF-8":
		return "80100001", "Check Parameter Error."
	case len(tokens) != 1:
		return "80300010", "token count should within 1 and 1."
	case len(req.Body)-len(tokens[0]) > 4096:
		return "80300008", "Push message size is too long."
	case ttl < 1 || ttl > 15*24*60*60:
		return "80100004", "Illegal expire time."
	case req.Version == "v3":
		return req.checkShown()
	}
	switch android := m.Message; {
	case android == nil || m.Payload != nil || android.Data == "" || !hmsTTL.MatchString(android.Android.TTL) ||
		android.Android.Urgency != "HIGH" && android.Android.Urgency != "NORMAL":
		return "80100003", "Illegal payload."
	case android.Android.CollapseKey != nil && (*android.Android.CollapseKey < -1 || *android.Android.CollapseKey > 100):
		return "80100013", "Invalid collapse_key."
	}
	return "", ""
}

func (req *HMSRequest) checkShown() (code, message string) {
	m := req.Message
	if m.Payload == nil || m.Message != nil || req.Header.Get("Push-Type") != "0" {
		return "80100003", "Illegal payload."
	}
	n := m.Payload.Notification
	switch {
	case n.Badge != nil && (n.Badge.SetNum < 0 || n.Badge.SetNum > 99):
		return "80100003", "Illegal payload, badge setNum value ranges from 0 to 99"
	case n.Badge != nil && n.Title == "" && n.Body == "": // of the badge alone
		return "", ""
	case n.Title == "" || n.Body == "" || n.ClickAction == nil || n.Category != "IM" && n.Category != "VOIP":
		return "80100003", "Illegal payload, title, body, category or clickAction is missing"
	}
	return "", ""
}

// serveToken gives an access token to the app's OAuth client.
func (h *HMS) serveToken(w http.ResponseWriter, r *http.Request) {
	err := r.ParseForm()
	w.Header().Set("Content-Type", "application/json")
	h.tokens.add(struct{}{})
	h.mu.Lock()
	on := h.onToken
	h.mu.Unlock()
	if on != nil {
		if answer := on(); answer != (FCMAnswer{}) {
			h.write(w, r, answer)
			return
		}
	}
	switch f := r.PostForm; {
	case err != nil || f.Get("grant_type") != "client_credentials":
		h.write(w, r, FCMAnswer{Status: http.StatusBadRequest, Body: `{"error":1102,"sub_error":20181,"error_description":"invalid grant type"}`})
	case f.Get("client_id") != HMSApp:
		h.write(w, r, FCMAnswer{Status: http.StatusBadRequest, Body: `{"error":1101,"sub_error":20003,"error_description":"unknown client"}`})
	case f.Get("client_secret") != HMSSecret:
		h.write(w, r, FCMAnswer{Status: http.StatusBadRequest, Body: `{"error":1101,"sub_error":20171,"error_description":"wrong secret"}`})
	default:
		bearer := rand.Text()
		h.bearers.Store(bearer, struct{}{})
		h.write(w, r, FCMAnswer{Body: fmt.Sprintf(`{"access_token":%q,"expires_in":3600,"token_type":"Bearer"}`, bearer)})
	}
}
