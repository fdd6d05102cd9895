package pushtest

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
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

// Subscription is a browser's end of Web Push: its keys, and the device's data.
type Subscription struct {
	private *ecdh.PrivateKey
	auth    []byte
}

// NewSubscription makes a subscription's keys.
func NewSubscription(tb testing.TB) *Subscription {
	tb.Helper()
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	s := &Subscription{private: key, auth: make([]byte, 16)}
	_, _ = rand.Read(s.auth)
	return s
}

// PushKey is the p256dh of the subscription.
func (s *Subscription) PushKey() string {
	return base64.RawURLEncoding.EncodeToString(s.private.PublicKey().Bytes())
}

// Auth is its auth secret.
func (s *Subscription) Auth() string { return base64.RawURLEncoding.EncodeToString(s.auth) }

// Decrypt returns the text of a body in the coding aes128gcm, as a browser reads
// it (RFC 8188 and 8291).
func (s *Subscription) Decrypt(body []byte) ([]byte, error) {
	const header = 16 + 4 + 1 + 65
	if len(body) < header || body[20] != 65 || binary.BigEndian.Uint32(body[16:]) < 18 || len(body) > 4096 {
		return nil, errors.New("the header is wrong")
	}
	public, err := ecdh.P256().NewPublicKey(body[21:header])
	if err != nil {
		return nil, fmt.Errorf("the sender's key: %w", err)
	}
	shared, err := s.private.ECDH(public)
	if err != nil {
		return nil, err
	}
	// Extract and expand, one after the other (RFC 8291, section 3.4).
	prk, _ := hkdf.Extract(sha256.New, shared, s.auth)
	ikm, _ := hkdf.Expand(sha256.New, prk, "WebPush: info\x00"+string(s.private.PublicKey().Bytes())+string(body[21:header]), 32)
	prk, _ = hkdf.Extract(sha256.New, ikm, body[:16])
	key, _ := hkdf.Expand(sha256.New, prk, "Content-Encoding: aes128gcm\x00", 16)
	nonce, err := hkdf.Expand(sha256.New, prk, "Content-Encoding: nonce\x00", 12)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	record, err := gcm.Open(nil, nonce, body[header:], nil)
	if err != nil {
		return nil, err
	}
	text := bytes.TrimRight(record, "\x00")
	if len(text) == 0 || text[len(text)-1] != 2 {
		return nil, errors.New("the text does not end with the delimiter of the last record")
	}
	return text[:len(text)-1], nil
}

// WebPushRequest is one message as it arrived.
type WebPushRequest struct {
	Host, Path string
	Header     http.Header
	Body       []byte
	// Key is the public half of the key that it was signed with, "" if it was not.
	Key string
	// Text is what the subscription decrypts.
	Text string
}

// WebPush is a stand-in for push services, over TLS and HTTP/2 on 127.0.0.1. It
// answers 400 "fault" to what no service would take. Requests for other hosts,
// which a transport brought here, are judged by the host they name.
type WebPush struct {
	*recorder[WebPushRequest]
	*service
	// Subscription is whose messages it gets.
	Subscription *Subscription

	answer func(WebPushRequest) FCMAnswer

	mu     sync.Mutex
	faults []string
}

// StartWebPush starts a push service that ends with the test. answer decides on
// each valid message; nil takes all.
func StartWebPush(tb testing.TB, answer func(WebPushRequest) FCMAnswer) *WebPush {
	tb.Helper()
	w := &WebPush{recorder: newRecorder[WebPushRequest](false), service: listen(tb), Subscription: NewSubscription(tb), answer: answer}
	w.serve(tb, w, w.ca.ServerTLS(tb), 0)
	tb.Cleanup(func() {
		w.close()
		for _, fault := range w.faults {
			tb.Errorf("a push service would have refused a message: %s", fault)
		}
	})
	return w
}

// ServeHTTP implements http.Handler.
func (w *WebPush) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return
	}
	req := WebPushRequest{Host: r.Host, Path: r.URL.RequestURI(), Header: r.Header, Body: body}
	if text, err := w.Subscription.Decrypt(body); err == nil {
		req.Text = string(text)
	}
	var fault error
	if req.Key, fault = checkVAPID(r); fault == nil {
		fault = checkHeaders(r, body)
	}
	w.add(req)
	var answer FCMAnswer
	switch {
	case fault != nil:
		w.mu.Lock()
		w.faults = append(w.faults, fault.Error())
		w.mu.Unlock()
		answer = FCMAnswer{Status: http.StatusBadRequest, Body: "fault"}
	case w.answer != nil:
		answer = w.answer(req)
	}
	if answer.Status == 0 {
		answer.Status = http.StatusCreated
	}
	w.write(rw, r, answer)
}

var topicForm = regexp.MustCompile(`^[A-Za-z0-9_-]{1,32}$`)

// checkHeaders checks a request as RFC 8030 has it, and as the services do.
func checkHeaders(r *http.Request, body []byte) error {
	ttl, err := strconv.Atoi(r.Header.Get("Ttl"))
	topic := r.Header.Get("Topic")
	switch {
	case r.Method != http.MethodPost || r.ContentLength != int64(len(body)):
		return errors.New("it is no POST with the length of its body")
	case len(body) == 0 || len(body) > 4096:
		return fmt.Errorf("the body has %d bytes", len(body))
	case err != nil || ttl < 1:
		return errors.New("it has no TTL of at least a second")
	case !regexp.MustCompile("^(very-low|low|normal|high)$").MatchString(strings.Join(r.Header["Urgency"], ",")):
		return errors.New("its urgency is none")
	case topic != "" && (!topicForm.MatchString(topic) || len(topic)%4 == 1):
		return errors.New("its topic is none")
	case r.Header.Get("Content-Encoding") != "aes128gcm" || r.Header.Get("Encryption") != "" || r.Header.Get("Crypto-Key") != "":
		return errors.New("its coding is not aes128gcm alone")
	}
	return nil
}

// checkVAPID checks who signed (RFC 8292) and returns the key. A request that is
// not signed is one of UnifiedPush.
func checkVAPID(r *http.Request) (string, error) {
	header := r.Header.Get("Authorization")
	if header == "" {
		return "", nil
	}
	parts := regexp.MustCompile(`^vapid t=([^, ]+), k=([A-Za-z0-9_-]{87})$`).FindStringSubmatch(header)
	if parts == nil {
		return "", errors.New("its authorization is not of VAPID's form")
	}
	raw, _ := base64.RawURLEncoding.DecodeString(parts[2])
	public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), raw)
	if err != nil {
		return "", err
	}
	claims := jwt.MapClaims{}
	parser := jwt.NewParser(jwt.WithValidMethods([]string{"ES256"}))
	token, err := parser.ParseWithClaims(parts[1], claims, func(*jwt.Token) (any, error) { return public, nil })
	if err != nil {
		return "", err
	}
	end, _ := claims["exp"].(float64)
	sub, _ := claims["sub"].(string)
	switch {
	case token.Header["typ"] != "JWT" || claims["aud"] != "https://"+r.Host:
		return "", fmt.Errorf("its token is for %v", claims["aud"])
	case time.Until(time.Unix(int64(end), 0)) > 24*time.Hour:
		return "", errors.New("its token is valid for more than a day")
	case !strings.HasPrefix(sub, "mailto:") && !strings.HasPrefix(sub, "https://"):
		return "", errors.New("its token names nobody")
	}
	return parts[2], nil
}

// VAPIDPublic reads a public key as browsers take it.
func VAPIDPublic(tb testing.TB, text string) *ecdsa.PublicKey {
	tb.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		tb.Fatal(err)
	}
	public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), raw)
	if err != nil {
		tb.Fatal(err)
	}
	return public
}
