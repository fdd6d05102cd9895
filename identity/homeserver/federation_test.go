package homeserver_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/matrix-herald/herald/identity/homeserver"
)

// signer is a key of a homeserver. What it signs is canonical JSON written by
// hand, so that the tests do not lean on the code they test.
type signer struct {
	id      string
	private ed25519.PrivateKey
}

// newSigner returns the key "ed25519:<version>", whose secret is seed repeated.
func newSigner(version string, seed byte) signer {
	return signer{"ed25519:" + version, ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))}
}

func (s signer) sign(canonical string) string {
	return base64.RawStdEncoding.EncodeToString(ed25519.Sign(s.private, []byte(canonical)))
}

func (s signer) public() string {
	return base64.RawStdEncoding.EncodeToString(s.private.Public().(ed25519.PublicKey))
}

// keyDocument is the answer of /_matrix/key/v2/server with keys, signed with
// each of them.
func keyDocument(server string, validUntil time.Time, keys ...signer) string {
	slices.SortFunc(keys, func(a, b signer) int { return strings.Compare(a.id, b.id) })
	var published, signatures []string
	for _, k := range keys {
		published = append(published, fmt.Sprintf(`%q:{"key":%q}`, k.id, k.public()))
	}
	canonical := fmt.Sprintf(`{"old_verify_keys":{},"server_name":%q,"valid_until_ts":%d,"verify_keys":{%s}}`,
		server, validUntil.UnixMilli(), strings.Join(published, ","))
	for _, k := range keys {
		signatures = append(signatures, fmt.Sprintf(`%q:%q`, k.id, k.sign(canonical)))
	}
	return strings.TrimSuffix(canonical, "}") + fmt.Sprintf(`,"signatures":{%q:{%s}}}`, server, strings.Join(signatures, ","))
}

// keyServer is a homeserver that publishes keys.
type keyServer struct {
	*hs
	name string

	mu     sync.Mutex
	answer http.HandlerFunc
}

// keyServer starts a homeserver with the server name "a.example:<port>" that
// publishes keys, good for a day.
func (w *world) keyServer(t *testing.T, keys ...signer) *keyServer {
	t.Helper()
	s := new(keyServer)
	s.hs = w.custom(t, func(rw http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.URL.RequestURI() != "/_matrix/key/v2/server" || r.Header.Get("Authorization") != "" {
			t.Errorf("request %s %s", r.Method, r.URL)
		}
		s.mu.Lock()
		answer := s.answer
		s.mu.Unlock()
		answer(rw, r)
	}, "a.example")
	s.name = fmt.Sprintf("a.example:%d", s.port)
	s.publish(keyDocument(s.name, w.clock().Add(24*time.Hour), keys...))
	return s
}

func (s *keyServer) answers(h http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = h
}

func (s *keyServer) publish(document string) {
	s.answers(func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, document) })
}

func (w *world) clock() time.Time { return time.Unix(0, w.now.Load()) }

const (
	unbindURI     = "/_matrix/identity/v2/3pid/unbind"
	unbindContent = `{"mxid":"@alice:a.example","threepid":{"address":"a@b.example","medium":"email"}}`
)

// canonicalUnbind is what a homeserver signs to unbind an address; member is
// what it calls our name, destination.
func canonicalUnbind(member, destination, origin string) string {
	return fmt.Sprintf(`{"content":%s,%q:%q,"method":"POST","origin":%q,"uri":%q}`,
		unbindContent, member, destination, origin, unbindURI)
}

// unbind is a request of origin as Synapse signs it.
func unbind(origin string, key signer) homeserver.VerifyRequest {
	sig := key.sign(canonicalUnbind("destination_is", "is.example", origin))
	return homeserver.VerifyRequest{
		Method:   http.MethodPost,
		URI:      unbindURI,
		Headers:  []string{authorization(origin, key.id, sig, "is.example")},
		Content:  []byte(unbindContent),
		OwnNames: []string{"is.example", "is.example:443"},
	}
}

// authorization is a header as Synapse writes it.
func authorization(origin, keyID, sig, destination string) string {
	return fmt.Sprintf(`X-Matrix origin="%s",key="%s",sig="%s",destination="%s"`, origin, keyID, sig, destination)
}
