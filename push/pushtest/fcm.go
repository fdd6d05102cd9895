package pushtest

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// FCMOptions are the settings of a stand-in for FCM. The zero value takes every
// message that FCM would find valid.
type FCMOptions struct {
	// Answer decides on each authorised and valid message; nil takes all. It is
	// called by many goroutines at once.
	Answer func(FCMRequest) FCMAnswer
	// Latency is how long each request takes before Answer decides.
	Latency time.Duration
	// MaxConcurrentStreams is the HTTP/2 setting; 0 is net/http's default.
	MaxConcurrentStreams int
	// TokenLife is how long access tokens live, in whole seconds; 0 is an hour.
	TokenLife time.Duration
	// Discard keeps no requests: for benchmarks. Count still counts.
	Discard bool
}

// FCMRequest is one message as it arrived.
type FCMRequest struct {
	Project string
	Header  http.Header
	Body    []byte
	// Message is what Body says, as far as it could be read.
	Message FCMMessage
}

// FCMAnswer is what FCM, or its token endpoint, answers. The zero answer takes
// the message.
type FCMAnswer struct {
	Status     int    // 0 is 200
	RetryAfter string // the header
	Location   string // the header
	Header     string // a further one, such as "Name: value"
	Body       string
	Hang       bool // never answer
	Cut        bool // close the connection without an answer
	GoAway     bool // answer, and ask the client to leave the connection
	// Endless, unless nil, is told how many bytes of a body of a GiB left before the
	// client would have no more.
	Endless chan<- int
	// Delay is how long the answer is kept back once it is decided.
	Delay time.Duration
}

// FCM is a stand-in for FCM's HTTP v1 API and Google's token endpoint, over TLS
// and HTTP/2 on 127.0.0.1. As a Peer it counts messages only, and its connections
// are also those for access tokens.
type FCM struct {
	*recorder[FCMRequest]
	*service
	opts    FCMOptions
	key     *rsa.PrivateKey
	tokens  *recorder[struct{}]
	onToken atomic.Pointer[func() FCMAnswer]
	bearers sync.Map // access token → time.Time of its end
}

// accountKey is the key of all service accounts: to make one takes a while.
var accountKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

// StartFCM starts an FCM that ends with the test.
func StartFCM(tb testing.TB, opts FCMOptions) *FCM {
	tb.Helper()
	if opts.TokenLife == 0 {
		opts.TokenLife = time.Hour
	}
	key, err := accountKey()
	if err != nil {
		tb.Fatal(err)
	}
	f := &FCM{recorder: newRecorder[FCMRequest](opts.Discard), service: listen(tb), opts: opts, key: key, tokens: newRecorder[struct{}](false)}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /token", f.serveToken)
	mux.HandleFunc("POST /v1/projects/{project}/{method}", f.serveMessage)
	settings := f.ca.ServerTLS(tb)
	settings.NextProtos = append(settings.NextProtos, "http/1.1") // enough for tokens
	f.serve(tb, mux, settings, opts.MaxConcurrentStreams)
	return f
}

// ServiceAccount returns the JSON key of a service account of a project, whose
// token endpoint is the fake's.
func (f *FCM) ServiceAccount(project string) []byte {
	// Marshalling an RSA key and strings cannot fail.
	der, _ := x509.MarshalPKCS8PrivateKey(f.key)
	text, _ := json.MarshalIndent(map[string]string{
		"type":           "service_account",
		"project_id":     project,
		"private_key_id": "key-1",
		"private_key":    string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
		"client_email":   f.email(project),
		"token_uri":      f.tokenURL(),
	}, "", "  ")
	return text
}

func (f *FCM) email(project string) string {
	return project + "@pushtest.iam.gserviceaccount.com"
}

func (f *FCM) tokenURL() string { return f.URL() + "/token" }

// TokenCount is how many requests for an access token have arrived.
func (f *FCM) TokenCount() int { return f.tokens.Count() }

// WaitTokens returns when at least n requests for an access token have
// arrived, or with ctx's error.
func (f *FCM) WaitTokens(ctx context.Context, n int) error { return f.tokens.Wait(ctx, n) }

// OnToken makes the token endpoint answer what answer returns, whatever the
// assertion; an answer that is zero, or a nil function, is a token again.
func (f *FCM) OnToken(answer func() FCMAnswer) {
	if answer == nil {
		f.onToken.Store(nil)
		return
	}
	f.onToken.Store(&answer)
}

// Revoke makes all access tokens invalid.
func (f *FCM) Revoke() { f.bearers.Clear() }

func (f *FCM) serveMessage(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return
	}
	req := FCMRequest{Project: r.PathValue("project"), Header: r.Header, Body: body}
	fault := req.Message.parse(body)
	f.add(req)
	if !pause(r.Context(), f.opts.Latency, f.stop) {
		return
	}
	answer := f.judge(r, fault)
	if answer == (FCMAnswer{}) && f.opts.Answer != nil {
		answer = f.opts.Answer(req)
	}
	if answer.Status == 0 && answer.Body == "" {
		answer.Body = `{"name":"projects/` + req.Project + `/messages/0:1"}`
	}
	f.write(w, r, answer)
}

// judge says what FCM would answer to a request with that fault, "" for none.
func (f *FCM) judge(r *http.Request, fault string) FCMAnswer {
	bearer := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	end, known := f.bearers.Load(bearer)
	switch {
	case r.PathValue("method") != "messages:send":
		return FCMError(http.StatusNotFound, "NOT_FOUND", "", "Method not found.")
	case !known || time.Now().After(end.(time.Time)):
		return FCMError(http.StatusUnauthorized, "UNAUTHENTICATED", "", "Request had invalid authentication credentials.")
	case fault != "":
		return FCMError(http.StatusBadRequest, "INVALID_ARGUMENT", "INVALID_ARGUMENT", fault)
	}
	return FCMAnswer{}
}
