package pushtest

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
)

// APNsOptions are the settings of a stand-in for APNs. The zero value takes
// every well-formed push of anyone.
type APNsOptions struct {
	// Key, when set, is the key whose provider tokens are taken.
	Key *TokenKey
	// ClientCA, when set, asks for a client certificate of this authority; a
	// push needs either it or a provider token.
	ClientCA *CA
	// Topics are the topics that pushes may have; nil is any.
	Topics []string
	// Answer decides on each well-formed and authorised push; nil takes all. It
	// is called by many goroutines at once.
	Answer func(APNsRequest) APNsAnswer
	// Latency is how long each request takes before Answer decides.
	Latency time.Duration
	// MaxConcurrentStreams is the HTTP/2 setting; 0 is 1000, Apple's.
	MaxConcurrentStreams int
	// MaxPayload is the size limit in bytes; 0 is Apple's 4096, and 5120 for
	// VoIP.
	MaxPayload int
	// Discard keeps no requests: for benchmarks. Count still counts.
	Discard bool
	// Now is the clock that provider tokens are judged by; nil is time.Now.
	Now func() time.Time
}

// APNsRequest is one push as it arrived.
type APNsRequest struct {
	Token  string // the device token in the path, hexadecimal
	Header http.Header
	Body   []byte
	Time   time.Time
	// Conn is the address of the client's connection, one for each.
	Conn string
}

// APNsAnswer is what APNs answers. The zero answer takes the push.
type APNsAnswer struct {
	Status     int    // 0 is 200
	Reason     string // of the JSON body, none when empty
	Timestamp  int64  // of the JSON body, in milliseconds
	RetryAfter string // the header
	Body       string // sent instead of JSON
	Hang       bool   // never answer
	Cut        bool   // close the connection without an answer
	GoAway     bool   // answer, and ask the client to leave the connection
	// Delay is how long the answer is kept back once it is decided.
	Delay time.Duration
}

// APNs is a stand-in for the Apple Push Notification service: the protocol of
// Apple's "Sending notification requests to APNs" over TLS and HTTP/2 on
// 127.0.0.1.
type APNs struct {
	*recorder[APNsRequest]
	*service
	opts     APNsOptions
	verified jwtCache
}

// StartAPNs starts an APNs that ends with the test.
func StartAPNs(tb testing.TB, opts APNsOptions) *APNs {
	tb.Helper()
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.MaxConcurrentStreams == 0 {
		opts.MaxConcurrentStreams = 1000
	}
	a := &APNs{recorder: newRecorder[APNsRequest](opts.Discard), service: listen(tb), opts: opts}
	settings := a.ca.ServerTLS(tb)
	if opts.ClientCA != nil {
		settings.ClientCAs, settings.ClientAuth = opts.ClientCA.Pool(), tls.VerifyClientCertIfGiven
	}
	a.serve(tb, http.HandlerFunc(a.handle), settings, opts.MaxConcurrentStreams)
	return a
}

func (a *APNs) handle(w http.ResponseWriter, r *http.Request) {
	// One byte more than any limit is enough to see that a push is too large.
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return
	}
	req := APNsRequest{
		Token: strings.TrimPrefix(r.URL.Path, "/3/device/"), Header: r.Header, Body: body, Time: time.Now(), Conn: r.RemoteAddr,
	}
	a.add(req)
	if !pause(r.Context(), a.opts.Latency, a.stop) {
		return
	}
	answer := a.judge(r, req)
	if answer == (APNsAnswer{}) && a.opts.Answer != nil {
		answer = a.opts.Answer(req)
	}
	id := r.Header.Get("apns-id")
	if id == "" { // Apple gives the push one
		id = strings.ToUpper(uuid.NewString())
	}
	w.Header().Set("apns-id", id)
	if answer.Body == "" && answer.Reason != "" {
		body, _ := json.Marshal(struct { // of a string and a number: no error
			Reason    string `json:"reason"`
			Timestamp int64  `json:"timestamp,omitempty"`
		}{answer.Reason, answer.Timestamp})
		answer.Body = string(body)
	}
	a.write(w, r, FCMAnswer{Status: answer.Status, RetryAfter: answer.RetryAfter, Body: answer.Body,
		Hang: answer.Hang, Cut: answer.Cut, GoAway: answer.GoAway, Delay: answer.Delay})
}

var (
	deviceToken = regexp.MustCompile(`^([0-9a-f]{2}){8,}$`)
	apnsID      = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
)

// judge answers what is not a well-formed and authorised push, as Apple would.
func (a *APNs) judge(r *http.Request, req APNsRequest) APNsAnswer {
	h := req.Header
	kind, priority := h.Get("apns-push-type"), h.Get("apns-priority")
	limit := a.opts.MaxPayload
	if limit == 0 {
		limit = 4096
		if kind == "voip" {
			limit = 5120
		}
	}
	switch {
	case r.ProtoMajor != 2:
		return APNsAnswer{Status: 505}
	case r.Method != http.MethodPost:
		return APNsAnswer{Status: 405, Reason: "MethodNotAllowed"}
	case !strings.HasPrefix(r.URL.Path, "/3/device/") || r.URL.RawQuery != "":
		return APNsAnswer{Status: 404, Reason: "BadPath"}
	case req.Token == "":
		return APNsAnswer{Status: 400, Reason: "MissingDeviceToken"}
	case !deviceToken.MatchString(req.Token):
		return APNsAnswer{Status: 400, Reason: "BadDeviceToken"}
	case len(req.Body) == 0:
		return APNsAnswer{Status: 400, Reason: "PayloadEmpty"}
	case len(req.Body) > limit:
		return APNsAnswer{Status: 413, Reason: "PayloadTooLarge"}
	case h.Get("apns-id") != "" && !apnsID.MatchString(h.Get("apns-id")):
		return APNsAnswer{Status: 400, Reason: "BadMessageId"}
	case len(h.Get("apns-collapse-id")) > 64:
		return APNsAnswer{Status: 400, Reason: "BadCollapseId"}
	case priority != "" && priority != "10" && priority != "5" && priority != "1":
		return APNsAnswer{Status: 400, Reason: "BadPriority"}
	case kind == "background" && priority == "10":
		return APNsAnswer{Status: 400, Reason: "BadPriority"}
	}
	if answer := a.authorise(r); answer != (APNsAnswer{}) {
		return answer
	}
	return a.judgeTopic(h.Get("apns-topic"))
}

func (a *APNs) judgeTopic(topic string) APNsAnswer {
	if topic == "" {
		return APNsAnswer{Status: 400, Reason: "MissingTopic"}
	}
	for _, allowed := range a.opts.Topics {
		if topic == allowed {
			return APNsAnswer{}
		}
	}
	if a.opts.Topics != nil {
		return APNsAnswer{Status: 400, Reason: "TopicDisallowed"}
	}
	return APNsAnswer{}
}

// authorise checks the client's certificate or its provider token.
func (a *APNs) authorise(r *http.Request) APNsAnswer {
	if a.opts.Key == nil && a.opts.ClientCA == nil || len(r.TLS.PeerCertificates) > 0 {
		return APNsAnswer{}
	}
	bearer, ok := strings.CutPrefix(r.Header.Get("authorization"), "bearer ")
	if !ok || a.opts.Key == nil {
		return APNsAnswer{Status: 403, Reason: "MissingProviderToken"}
	}
	issued, ok := a.verified.issued(a.opts.Key, bearer)
	switch age := a.opts.Now().Sub(issued); {
	case !ok:
		return APNsAnswer{Status: 403, Reason: "InvalidProviderToken"}
	case age > time.Hour || age < -time.Minute:
		return APNsAnswer{Status: 403, Reason: "ExpiredProviderToken"}
	}
	return APNsAnswer{}
}

// TokenKey is an APNs authentication key as Apple hands it out.
type TokenKey struct {
	KeyID  string
	TeamID string
	Key    *ecdsa.PrivateKey
}

// NewTokenKey makes a key of a team.
func NewTokenKey(tb testing.TB) TokenKey {
	tb.Helper()
	return TokenKey{KeyID: "KEY4567890", TeamID: "TEAM567890", Key: newKey(tb)}
}

// P8 returns the key as the .p8 file that Apple lets an operator download.
func (k TokenKey) P8(tb testing.TB) []byte {
	tb.Helper()
	return keyPEM(tb, k.Key)
}

// KeyPEM returns the key as "PRIVATE KEY" (PKCS #8).
func (c ClientCertificate) KeyPEM(tb testing.TB) []byte {
	tb.Helper()
	return keyPEM(tb, c.Key)
}

func keyPEM(tb testing.TB, key *ecdsa.PrivateKey) []byte {
	tb.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		tb.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// apnsAnswer returns the answer that plays b.
func (b Behaviour) apnsAnswer() APNsAnswer {
	switch b {
	case Hang:
		return APNsAnswer{Hang: true}
	case Cut:
		return APNsAnswer{Cut: true}
	case Garbage:
		return APNsAnswer{Status: http.StatusBadGateway, Body: "<html>Bad Gateway</html>"}
	}
	return APNsAnswer{}
}

// APNsBehaving returns an Answer that plays b with every push. It does not
// play Refuse: that is an address where nothing listens.
func APNsBehaving(b Behaviour) func(APNsRequest) APNsAnswer {
	answer := b.apnsAnswer()
	return func(APNsRequest) APNsAnswer { return answer }
}

// RefusedAddr returns the address of a port of 127.0.0.1 on which nothing
// listens.
func RefusedAddr(tb testing.TB) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
