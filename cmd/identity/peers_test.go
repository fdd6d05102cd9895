package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/matrix-herald/herald/internal/safehttp/safehttptest"
)

// peer is a homeserver: it vouches for its users, publishes its key and is told
// of bindings. It can be made to fail.
type peer struct {
	name       string
	key        ed25519.PrivateKey
	validUntil time.Time // of the key
	dead       atomic.Bool
	server     *httptest.Server

	mu     sync.Mutex
	answer http.HandlerFunc // to what it is told
	told   []told
	grown  chan struct{} // has an element after told has grown
}

// told is a notification as it came.
type told struct {
	header http.Header
	object map[string]any
}

// peerKey names the key of every peer.
const peerKey = "ed25519:a"

// newPeers starts homeservers, and returns them with what tells the service to
// trust their authority.
func newPeers(t *testing.T, n int) (peers []*peer, environ []string) {
	t.Helper()
	ca := safehttptest.NewCA(t)
	for range n {
		_, key, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		p := &peer{
			name: ln.Addr().String(), key: key, validUntil: time.Now().Add(time.Hour),
			answer: accept, grown: make(chan struct{}, 1),
		}
		p.server = &httptest.Server{
			Listener: mortal{ln, &p.dead}, EnableHTTP2: true,
			TLS: &tls.Config{Certificates: []tls.Certificate{ca.Certificate(t, "127.0.0.1")}, MinVersion: tls.VersionTLS12},
			Config: &http.Server{
				Handler: p, ReadHeaderTimeout: time.Minute,
				ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError), // of connections that die
			},
		}
		p.server.StartTLS()
		t.Cleanup(p.server.Close)
		t.Cleanup(p.server.CloseClientConnections)
		peers = append(peers, p)
	}
	return peers, []string{"IDENTITY_CA_FILE=" + ca.File(t)}
}

// accept is how a homeserver takes what it is told.
func accept(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") }

// mortal is a listener that drops every connection while it is dead. It keeps
// its port meanwhile.
type mortal struct {
	net.Listener

	dead *atomic.Bool
}

func (m mortal) Accept() (net.Conn, error) {
	for {
		c, err := m.Listener.Accept()
		if err != nil || !m.dead.Load() {
			return c, err
		}
		_ = c.Close()
	}
}

// die drops all connections and takes no more.
func (p *peer) die() {
	p.dead.Store(true)
	p.server.CloseClientConnections()
}

func (p *peer) live() { p.dead.Store(false) }

func (p *peer) user(name string) string { return "@" + name + ":" + p.name }

func (p *peer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.Method + " " + r.URL.Path {
	case "GET /_matrix/key/v2/server":
		_, _ = w.Write(p.keys())
	case "GET /_matrix/federation/v1/openid/userinfo":
		fmt.Fprintf(w, `{"sub":%q}`, p.user(r.URL.Query().Get("access_token")))
	case "POST /_matrix/federation/v1/3pid/onbind":
		p.onBind(w, r)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func (p *peer) onBind(w http.ResponseWriter, r *http.Request) {
	data, err := io.ReadAll(r.Body)
	var object map[string]any
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err != nil || dec.Decode(&object) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	p.mu.Lock()
	p.told = append(p.told, told{r.Header, object})
	answer := p.answer
	p.mu.Unlock()
	select {
	case p.grown <- struct{}{}:
	default:
	}
	answer(w, r)
}

// answers sets what the homeserver says from now on to what it is told.
func (p *peer) answers(h http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer = h
}

func (p *peer) allTold() []told {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.told)
}

// awaitTold waits until the homeserver has been told n things.
func (p *peer) awaitTold(t *testing.T, n int) []told {
	t.Helper()
	late := time.After(2 * time.Minute)
	for {
		if all := p.allTold(); len(all) >= n {
			return all
		}
		select {
		case <-p.grown:
		case <-late:
			t.Fatalf("the homeserver was told %d things, not %d", len(p.allTold()), n)
		}
	}
}

// keys is the answer of a homeserver with the key.
func (p *peer) keys() []byte {
	object := map[string]any{
		"server_name": p.name, "old_verify_keys": map[string]any{}, "valid_until_ts": json.Number(fmt.Sprint(p.validUntil.UnixMilli())),
		"verify_keys": map[string]any{peerKey: map[string]any{
			"key": base64.RawStdEncoding.EncodeToString(p.key.Public().(ed25519.PublicKey)),
		}},
	}
	object["signatures"] = map[string]any{p.name: map[string]any{peerKey: signature(p.key, object)}}
	return []byte(canonical(object))
}

func signature(key ed25519.PrivateKey, object map[string]any) string {
	return base64.RawStdEncoding.EncodeToString(ed25519.Sign(key, []byte(canonical(object))))
}

// canonical writes a value as the specification says (Appendices, "Canonical
// JSON"): the shortest form, members in the order of their names, integers in
// decimal, and no escapes but those that JSON demands. It shares nothing with the
// service.
func canonical(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case bool:
		return fmt.Sprint(v)
	case json.Number:
		if strings.ContainsAny(string(v), ".eE") || v == "-0" {
			panic("not an integer as canonical JSON has it: " + string(v))
		}
		return string(v)
	case string:
		var b strings.Builder
		b.WriteByte('"')
		for _, r := range v {
			switch {
			case r == '"' || r == '\\':
				b.WriteString(`\` + string(r))
			case strings.ContainsRune("\b\f\n\r\t", r):
				b.WriteString(`\` + map[rune]string{'\b': "b", '\f': "f", '\n': "n", '\r': "r", '\t': "t"}[r])
			case r < ' ':
				fmt.Fprintf(&b, `\u%04x`, r)
			default:
				b.WriteRune(r)
			}
		}
		return b.String() + `"`
	case []any:
		items := make([]string, len(v))
		for i, item := range v {
			items[i] = canonical(item)
		}
		return "[" + strings.Join(items, ",") + "]"
	case map[string]any:
		var members []string
		for _, name := range slices.Sorted(maps.Keys(v)) {
			members = append(members, canonical(name)+":"+canonical(v[name]))
		}
		return "{" + strings.Join(members, ",") + "}"
	}
	panic(fmt.Sprintf("no JSON: %T", v))
}

// signedBy returns what an object says beside its signatures, and fails the test
// unless the service has signed it, with the key that its own endpoint publishes
// and calls valid, and with no other.
func signedBy(t *testing.T, base string, object map[string]any) (content map[string]any, public string) {
	t.Helper()
	content = maps.Clone(object)
	delete(content, "signatures")
	signatures := object["signatures"].(map[string]any)
	ours, _ := signatures[serverName].(map[string]any)
	if len(signatures) != 1 || len(ours) != 1 {
		t.Fatalf("signatures %v, want one of ours", signatures)
	}
	c := client{base: base}
	for id, sig := range ours {
		public = c.get(t, "/pubkey/"+url.PathEscape(id))["public_key"].(string)
		if c.get(t, "/pubkey/isvalid?public_key="+url.QueryEscape(public))["valid"] != true {
			t.Errorf("the key %s is not valid", id)
		}
		checkSignature(t, public, content, sig.(string))
	}
	return content, public
}

// checkSignature checks an object's signature with a public key, both in any
// base64.
func checkSignature(t *testing.T, public string, content map[string]any, sig string) {
	t.Helper()
	if !ed25519.Verify(decode64(t, public), []byte(canonical(content)), decode64(t, sig)) {
		t.Errorf("the signature of %s does not verify", canonical(content))
	}
}

func decode64(t *testing.T, s string) []byte {
	t.Helper()
	data, err := base64.RawStdEncoding.DecodeString(strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(s, "=")))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// registerAt returns a client of a user of a peer who accepted the terms.
func registerAt(t *testing.T, base string, p *peer, name string) client {
	t.Helper()
	c := client{base: base}
	c.token = c.post(t, "/account/register", `{"access_token":%q,"token_type":"Bearer","matrix_server_name":%q,"expires_in":3600}`,
		name, p.name)["token"].(string)
	document := c.get(t, "/terms")["policies"].(map[string]any)["privacy"].(map[string]any)["en"].(map[string]any)["url"]
	c.post(t, "/terms", `{"user_accepts":[%q]}`, document)
	return c
}

// mailedTo returns the link in the last mail to an address with a link to the
// path.
func (w *world) mailedTo(t *testing.T, address, path string) *url.URL {
	t.Helper()
	for _, m := range slices.Backward(w.relay.Messages()) {
		if m.To[0] != address {
			continue
		}
		for _, link := range webLink.FindAllString(m.Text(t), -1) {
			if u, err := url.Parse(link); err == nil && strings.HasSuffix(u.Path, path) {
				return u
			}
		}
	}
	t.Fatalf("%s got no mail with a link to %s", address, path)
	return nil
}

// prove completes a validation session of an address and returns it.
func (w *world) prove(t *testing.T, c client, address string) (sid string) {
	t.Helper()
	sid = c.post(t, "/validate/email/requestToken", `{"client_secret":"monkeys","email":%q,"send_attempt":1}`, address)["sid"].(string)
	token := w.mailedTo(t, address, "/submitToken").Query().Get("token")
	c.post(t, "/validate/email/submitToken", `{"sid":%q,"client_secret":"monkeys","token":%q}`, sid, token)
	return sid
}

// bind binds an address to the client's user.
func (w *world) bind(t *testing.T, c client, user, address string) {
	t.Helper()
	c.post(t, "/3pid/bind", `{"sid":%q,"client_secret":"monkeys","mxid":%q}`, w.prove(t, c, address), user)
}

// outcomes returns what became of each invite as the operator is told: its state,
// and why it failed if it did, by its address.
func (w *world) outcomes(t *testing.T) map[string]string {
	t.Helper()
	code, out, errs := command(t, nil, "-config", w.config, "invites", "list", "-addresses")
	if code != 0 {
		t.Fatalf("invites list: exit status %d\n%s", code, errs)
	}
	all := make(map[string]string)
	for _, line := range cells(out) {
		words := strings.Fields(line)
		if at := slices.IndexFunc(words, func(s string) bool { return strings.Contains(s, "@") }); at > 0 {
			_, reason, _ := strings.Cut(line, "(")
			all[words[at]] = strings.TrimSpace(words[1] + " " + strings.TrimSuffix(reason, ")"))
		}
	}
	return all
}
