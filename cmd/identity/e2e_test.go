package main

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/identity/storetest"
	"github.com/matrix-herald/herald/internal/harness"
	"github.com/matrix-herald/herald/internal/safehttp/safehttptest"
	"github.com/matrix-herald/herald/threepid/threepidtest"
)

// hash is the lookup hash of an address as the specification defines it.
func hash(address, medium, pepper any) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %s %s", address, medium, pepper))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// lookup returns the answers for an address under both algorithms.
func (c client) lookup(t *testing.T, address string) (bySHA256, plain any) {
	t.Helper()
	pepper := c.get(t, "/hash_details")["lookup_pepper"]
	h, text := hash(address, "email", pepper), address+" email"
	hashed := c.post(t, "/lookup", `{"algorithm":"sha256","pepper":%q,"addresses":[%q]}`, pepper, h)
	inClear := c.post(t, "/lookup", `{"algorithm":"none","pepper":%q,"addresses":[%q]}`, pepper, text)
	return hashed["mappings"].(map[string]any)[h], inClear["mappings"].(map[string]any)[text]
}

// verify checks the signature of an association with nothing but the standard
// library and the key that the service publishes.
func (c client) verify(t *testing.T, association map[string]any) {
	t.Helper()
	signatures := association["signatures"].(map[string]any)[serverName].(map[string]any)
	if len(signatures) != 1 {
		t.Fatalf("signatures %v", signatures)
	}
	signed := make(map[string]any)
	for name, value := range association {
		if name != "signatures" {
			signed[name] = value
		}
	}
	// There is nothing in it that encoding/json would not write canonically.
	message, err := json.Marshal(signed)
	if err != nil {
		t.Fatal(err)
	}
	for id, signature := range signatures {
		public, err := base64.RawStdEncoding.DecodeString(c.get(t, "/pubkey/"+id)["public_key"].(string))
		if err != nil {
			t.Fatal(err)
		}
		bytes, err := base64.RawStdEncoding.DecodeString(signature.(string))
		if err != nil {
			t.Fatal(err)
		}
		if !ed25519.Verify(public, message, bytes) {
			t.Errorf("the signature does not verify: %v", association)
		}
	}
}

func TestFromRegistrationToLogout(t *testing.T) {
	t.Parallel()
	w := newWorld(t, storetest.SQLite(t))
	p := w.start(t)
	restart := func() {
		t.Helper()
		p.Stop(t)
		p = w.start(t)
	}
	c := w.register(t, w.front.URL, "alice")
	alice := "@alice:" + w.homeserver
	if got := c.get(t, "/account")["user_id"]; got != alice {
		t.Fatalf("account of %v", got)
	}

	const request = `{"client_secret":"monkeys","email":%q,"send_attempt":1}`
	const address, second = "alice@example.com", "alice@example.net"
	sid := c.post(t, "/validate/email/requestToken", request, "Alice@Example.com")["sid"]
	if again := c.post(t, "/validate/email/requestToken", request, address)["sid"]; again != sid {
		t.Errorf("another session for the same attempt: %v, %v", sid, again)
	}
	link := w.mailed(t, 1)
	if got := w.relay.Messages()[0].To; !cmp.Equal(got, []string{address}) {
		t.Errorf("mailed to %v", got)
	}
	c.post(t, "/validate/email/requestToken", request, second)
	secondLink := w.mailed(t, 2)
	if len(w.relay.Messages()) != 2 {
		t.Errorf("%d mails for two attempts", len(w.relay.Messages()))
	}
	restart()

	c.post(t, "/validate/email/submitToken", `{"sid":%q,"client_secret":"monkeys","token":%q}`, sid, link.Query().Get("token"))
	if status, page := press(t, secondLink); status != http.StatusOK || !strings.Contains(page, "<html") {
		t.Errorf("the link in the mail: %d %s", status, page)
	}
	restart()

	for sid, want := range map[any]string{sid: address, secondLink.Query().Get("sid"): second} {
		proved := c.get(t, fmt.Sprintf("/3pid/getValidated3pid?sid=%s&client_secret=monkeys", sid))
		if proved["address"] != want || proved["medium"] != "email" {
			t.Errorf("validated: %v, want %s", proved, want)
		}
		bound := c.post(t, "/3pid/bind", `{"sid":%q,"client_secret":"monkeys","mxid":%q}`, sid, alice)
		if bound["mxid"] != alice || bound["address"] != want {
			t.Errorf("bound: %v", bound)
		}
		c.verify(t, bound)
	}
	restart()

	if hashed, plain := c.lookup(t, address); hashed != alice || plain != alice {
		t.Errorf("looked up: %v, %v", hashed, plain)
	}
	c.post(t, "/3pid/unbind", `{"sid":%q,"client_secret":"monkeys","mxid":%q,"threepid":{"medium":"email","address":%q}}`, sid, alice, address)
	if hashed, plain := c.lookup(t, address); hashed != nil || plain != nil {
		t.Errorf("after unbind: %v, %v", hashed, plain)
	}
	if hashed, _ := c.lookup(t, second); hashed != alice {
		t.Errorf("the other binding went, too: %v", hashed)
	}
	c.post(t, "/account/logout", "{}")
	if status, refusal := c.ask(t, http.MethodGet, "/account", ""); status != http.StatusUnauthorized {
		t.Errorf("after logout: %d %v", status, refusal)
	}
	for _, secret := range []string{address, second, c.token, "monkeys", link.Query().Get("token"), "openid-alice"} {
		if strings.Contains(strings.ToLower(p.Log.String()), strings.ToLower(secret)) {
			t.Errorf("the log has %q:\n%s", secret, p.Log)
		}
	}
}

func TestAStopLosesNoMail(t *testing.T) {
	t.Parallel()
	w := newWorld(t, storetest.SQLite(t))
	p := w.start(t)
	c := w.register(t, w.front.URL, "alice")
	const requests = 5
	hold := make(chan struct{})
	for range requests {
		w.relay.Fail(threepidtest.Fault{At: threepidtest.Data, Until: hold})
	}
	var asking sync.WaitGroup
	for i := range requests {
		asking.Go(func() {
			status, answer := c.ask(t, http.MethodPost, "/validate/email/requestToken",
				fmt.Sprintf(`{"client_secret":"s","email":"a%d@example.com","send_attempt":1}`, i))
			if status != http.StatusOK {
				t.Errorf("a request in flight at SIGTERM ended with %d %v", status, answer)
			}
		})
	}
	w.relay.WaitFaults(t, requests)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		p.Stop(t)
	}()
	p.Await(t, "draining")
	if status, answer := fetch(t, p.Admin+"/readyz"); status != http.StatusServiceUnavailable {
		t.Errorf("ready while it drains: %d %s", status, answer)
	}
	close(hold)
	asking.Wait()
	<-stopped
	w.relay.Wait(t, requests)
}

func TestTwoReplicasAnswerAlike(t *testing.T) {
	t.Parallel()
	storetest.NeedServer(t)
	w := newWorld(t, storetest.PostgreSQL(t))
	var replicas [2]*harness.Process
	var starting sync.WaitGroup
	for i := range replicas {
		starting.Go(func() { replicas[i] = w.start(t) })
	}
	starting.Wait()
	if t.Failed() {
		t.FailNow()
	}
	one := w.register(t, replicas[0].API, "alice")
	other := client{replicas[1].API, one.token}
	for _, path := range []string{"/hash_details", "/account", "/terms"} {
		if diff := cmp.Diff(one.get(t, path), other.get(t, path)); diff != "" {
			t.Errorf("%s (-one +other):\n%s", path, diff)
		}
	}
	alice := "@alice:" + w.homeserver
	const request = `{"client_secret":"monkeys","email":"alice@example.com","send_attempt":1}`
	sids := make([]any, 2)
	var asking sync.WaitGroup
	for i, c := range []client{one, other} {
		asking.Go(func() { sids[i] = c.post(t, "/validate/email/requestToken", request)["sid"] })
	}
	asking.Wait()
	if sids[0] != sids[1] || len(w.relay.Messages()) != 1 {
		t.Errorf("one attempt at two replicas: sessions %v, %d mails", sids, len(w.relay.Messages()))
	}
	other.post(t, "/validate/email/submitToken", `{"sid":%q,"client_secret":"monkeys","token":%q}`, sids[0], w.mailed(t, 1).Query().Get("token"))
	association := one.post(t, "/3pid/bind", `{"sid":%q,"client_secret":"monkeys","mxid":%q}`, sids[0], alice)
	other.verify(t, association)
	for _, c := range []client{one, other} {
		if hashed, plain := c.lookup(t, "alice@example.com"); hashed != alice || plain != alice {
			t.Errorf("%s: looked up %v, %v", c.base, hashed, plain)
		}
	}
}

// keyID returns the ID and the public half of the key that a client's
// association is signed with.
func (w *world) keyID(t *testing.T, c client, mails int) (id, public string) {
	t.Helper()
	user := c.get(t, "/account")["user_id"]
	sid := c.post(t, "/validate/email/requestToken", `{"client_secret":"s","email":"a%d@example.com","send_attempt":1}`, mails)["sid"]
	c.post(t, "/validate/email/submitToken", `{"sid":%q,"client_secret":"s","token":%q}`, sid, w.mailed(t, mails).Query().Get("token"))
	association := c.post(t, "/3pid/bind", `{"sid":%q,"client_secret":"s","mxid":%q}`, sid, user)
	c.verify(t, association)
	for id = range association["signatures"].(map[string]any)[serverName].(map[string]any) {
		public = c.get(t, "/pubkey/"+id)["public_key"].(string)
	}
	return id, public
}

func TestKeysAndPeppersAreRotatedByCommand(t *testing.T) {
	t.Parallel()
	w := newWorld(t, storetest.SQLite(t))
	p := w.start(t)
	c := w.register(t, w.front.URL, "alice")
	first, firstPublic := w.keyID(t, c, 1)
	oldPepper := c.get(t, "/hash_details")["lookup_pepper"]

	run := func(args ...string) string {
		t.Helper()
		code, stdout, stderr := command(t, nil, append([]string{"-config", w.config}, args...)...)
		if code != 0 {
			t.Fatalf("%v: exit status %d\n%s", args, code, stderr)
		}
		return stdout
	}
	out := run("rotate-key")
	run("rotate-pepper")
	p.Stop(t)
	p = w.start(t)

	second, _ := w.keyID(t, c, 2)
	if second == first || !strings.Contains(out, "Signing with "+second) {
		t.Errorf("signed with %s before and %s after:\n%s", first, second, out)
	}
	valid := func() any {
		return c.get(t, "/pubkey/isvalid?public_key="+url.QueryEscape(firstPublic))["valid"]
	}
	if valid() != true {
		t.Error("what the old key signed is no longer valid")
	}
	newPepper := c.get(t, "/hash_details")["lookup_pepper"]
	if newPepper == oldPepper {
		t.Error("the pepper is the old one")
	}
	for _, pepper := range []any{oldPepper, newPepper} {
		h := hash("a1@example.com", "email", pepper)
		if m := c.post(t, "/lookup", `{"algorithm":"sha256","pepper":%q,"addresses":[%q]}`, pepper, h)["mappings"].(map[string]any); m[h] == nil {
			t.Errorf("under the pepper %s nobody is found", pepper)
		}
	}

	if out := run("rotate-key", "-compromised", first); !strings.Contains(out, "Nothing signed with "+first) || !strings.Contains(out, second) {
		t.Errorf("rotate-key -compromised:\n%s", out)
	}
	if code, _, stderr := command(t, nil, "-config", w.config, "rotate-key", "-compromised", "ed25519:none"); code != 1 || !strings.Contains(stderr, `no signing key "ed25519:none"`) {
		t.Errorf("an unknown key: exit status %d\n%s", code, stderr)
	}
	p.Stop(t)
	w.start(t)
	if valid() != false {
		t.Error("the compromised key is valid")
	}
}

// TestHomeserversCannotBeUsedToExploreNetworks names servers that are not to be
// asked, or not there: the answers are the same, and the log has the reason.
//
// Conformance (security): refused, blocked and timed out read the same
// Conformance (attacks): telling open ports from closed ones by the answer | one error for all
func TestHomeserversCannotBeUsedToExploreNetworks(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	private := safehttptest.NewCA(t).Server(t, "127.0.0.1:0", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }), "127.0.0.1")
	config := writeFile(t, filepath.Join(t.TempDir(), "identity.yaml"),
		"server_name: id.example.org\npublic_base_url: https://id.example.org\nhttp: {test_drain_delay: 0s}\n")
	s := startHere(t, ephemeral(), "-config", config)
	var answers []string
	for _, name := range []string{strings.TrimPrefix(private.URL, "https://"), "127.0.0.1:1", "[::1]:8448", "169.254.169.254"} {
		status, answer := send(t, http.MethodPost, s.API+"/_matrix/identity/v2/account/register", "",
			fmt.Sprintf(`{"access_token":"openid-alice","matrix_server_name":%q}`, name))
		if status != http.StatusBadGateway {
			t.Errorf("%s: %d %s", name, status, answer)
		}
		answers = append(answers, answer)
		s.Errs.Await(t, "server="+name)
	}
	if slices.ContainsFunc(answers, func(a string) bool { return a != answers[0] }) {
		t.Errorf("the answers differ: %v", answers)
	}
	if n := asked.Load(); n > 0 {
		t.Errorf("a server in a private network was asked %d times", n)
	}
	s.Errs.Await(t, "homeserver did not answer", "address not allowed: only homeservers in allow_networks may have a private address")
	if strings.Contains(s.Errs.String(), "openid-alice") {
		t.Errorf("the log has a token:\n%s", s.Errs)
	}
}

func TestTheServiceTellsHowItIs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, storetest.SQLite(t))
	p := w.start(t)
	c := w.register(t, w.front.URL, "alice")
	w.keyID(t, c, 1)
	c.lookup(t, "alice@example.com")
	_, metrics := fetch(t, p.Admin+"/metrics")
	for _, want := range []string{
		`herald_identity_registers_total{outcome="ok"} 1`,
		`herald_identity_binds_total{outcome="ok"} 1`,
		`herald_identity_lookups_total{algorithm="sha256",outcome="ok"} 1`,
		`herald_identity_lookup_addresses_total{algorithm="none"} 1`,
		`herald_identity_mails_total{outcome="sent",template="verification"} 1`,
		`herald_http_requests_total{code="200",method="POST",route="/_matrix/identity/v2/3pid/bind"} 1`,
		`herald_build_info{`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
	for url, want := range map[string]string{
		p.API + "/health": "ok", p.API + "/ready": "", p.API + "/version": `"e2e"`, p.Admin + "/healthz": "ok", p.Admin + "/readyz": "",
	} {
		if status, got := fetch(t, url); status != http.StatusOK || !strings.Contains(got, want) {
			t.Errorf("%s: %d %s", url, status, got)
		}
	}
	environ := []string{"IDENTITY_HTTP_LISTEN=" + strings.TrimPrefix(p.API, "http://")}
	if code, _, stderr := command(t, environ, "-config", w.config, "health"); code != 0 {
		t.Errorf("health: exit status %d\n%s", code, stderr)
	}
}

// gate is a way to a server that can be shut.
type gate struct {
	net.Listener

	target string
	mu     sync.Mutex
	shut   bool
	conns  []net.Conn
}

func newGate(t *testing.T, target string) *gate {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{Listener: l, target: target}
	var passing sync.WaitGroup
	passing.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := new(net.Dialer).DialContext(t.Context(), "tcp", target)
			if !g.keep(in, out) || err != nil {
				continue
			}
			passing.Go(func() { _, _ = io.Copy(in, out) })
			passing.Go(func() { _, _ = io.Copy(out, in) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		g.set(true)
		passing.Wait()
	})
	return g
}

// keep remembers connections, or closes them if the gate is shut.
func (g *gate) keep(conns ...net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range conns {
		if c != nil && g.shut {
			_ = c.Close()
		} else if c != nil {
			g.conns = append(g.conns, c)
		}
	}
	return !g.shut
}

// set shuts or opens the gate.
func (g *gate) set(shut bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = shut
	for _, c := range g.conns {
		_ = c.Close()
	}
	g.conns = nil
}

// Conformance (endpoints): the database is away, restarting, locked or full | 503 `M_UNKNOWN` with `Retry-After`; what was not begun goes to a fresh connection (also TestALockIsWaitedForSeconds, TestConnectionsThatTheServerEndedAreNotUsed, TestWhatWasNotBegunIsTriedOnAFreshConnection)
func TestItIsNotReadyWithoutItsDatabase(t *testing.T) {
	t.Parallel()
	storetest.NeedServer(t)
	database, err := url.Parse(storetest.PostgreSQL(t))
	if err != nil {
		t.Fatal(err)
	}
	g := newGate(t, database.Host)
	database.Host = g.Addr().String()
	w := newWorld(t, database.String())
	p := w.start(t)
	await := func(want int, text string) {
		t.Helper()
		every := time.NewTicker(50 * time.Millisecond)
		defer every.Stop()
		late := time.After(30 * time.Second)
		for {
			status, answer := fetch(t, p.API+"/ready")
			if status == want && strings.Contains(answer, text) {
				return
			}
			select {
			case <-every.C:
			case <-late:
				t.Fatalf("/ready says %d %s, want %d %s", status, answer, want, text)
			}
		}
	}
	await(http.StatusOK, "")
	g.set(true)
	await(http.StatusServiceUnavailable, `"database: it cannot be reached"`)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet,
		p.API+"/_matrix/identity/v2/pubkey/ephemeral/isvalid?public_key="+strings.Repeat("A", 43), http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Timeout: time.Minute}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if answer, err := io.ReadAll(resp.Body); resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" ||
		!strings.Contains(string(answer), "M_UNKNOWN") || err != nil {
		t.Errorf("a request meanwhile: %d %s, %v", resp.StatusCode, answer, err)
	}
	if status, answer := fetch(t, p.API+"/health"); status != http.StatusOK {
		t.Errorf("/health: %d %s", status, answer)
	}
	g.set(false)
	await(http.StatusOK, "")
}
