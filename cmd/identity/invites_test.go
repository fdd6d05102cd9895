package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/matrix-herald/herald/identity/storetest"
	"github.com/matrix-herald/herald/internal/safehttp/safehttptest"
)

// federated is a homeserver with keys, which is told of bindings.
type federated struct {
	key   ed25519.PrivateKey
	name  string
	told  chan map[string]any
	hangs chan struct{} // each lets one notification go unanswered
	world *world
}

// withHomeserver gives w another homeserver and returns it with what tells the
// service to trust it.
func withHomeserver(t *testing.T, w *world) (h *federated, environ []string) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	h = &federated{key: key, told: make(chan map[string]any, 10), hangs: make(chan struct{}, 10), world: w}
	ca := safehttptest.NewCA(t)
	h.name = strings.TrimPrefix(ca.Server(t, "127.0.0.1:0", h, "127.0.0.1").URL, "https://")
	w.homeserver = h.name
	return h, []string{"IDENTITY_HOMESERVERS_CA_FILE=" + ca.File(t)}
}

func (h *federated) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	switch r.Method + " " + r.URL.Path {
	case "GET /_matrix/key/v2/server":
		_, _ = rw.Write(h.keys())
	case "POST /_matrix/federation/v1/3pid/onbind":
		data, _ := io.ReadAll(r.Body)
		var object map[string]any
		dec := json.NewDecoder(bytes.NewReader(data))
		dec.UseNumber()
		if dec.Decode(&object) != nil {
			rw.WriteHeader(http.StatusBadRequest)
			return
		}
		h.told <- object
		select {
		case <-h.hangs:
			<-r.Context().Done()
		default:
			fmt.Fprint(rw, "{}")
		}
	default:
		h.world.userInfo(rw, r)
	}
}

// sign returns the signature of what encoding/json writes canonically.
func (h *federated) sign(object map[string]any) string {
	message, _ := json.Marshal(object)
	return base64.RawStdEncoding.EncodeToString(ed25519.Sign(h.key, message))
}

func (h *federated) keys() []byte {
	object := map[string]any{
		"server_name": h.name, "old_verify_keys": map[string]any{}, "valid_until_ts": time.Now().Add(time.Hour).UnixMilli(),
		"verify_keys": map[string]any{"ed25519:a": map[string]any{
			"key": base64.RawStdEncoding.EncodeToString(h.key.Public().(ed25519.PublicKey)),
		}},
	}
	object["signatures"] = map[string]any{h.name: map[string]any{"ed25519:a": h.sign(object)}}
	data, _ := json.Marshal(object)
	return data
}

// unbind asks for the removal of a binding as Synapse does, which names the
// service by its address.
func (h *federated) unbind(t *testing.T, base, destination, user, address string) (int, string) {
	t.Helper()
	const path = "/_matrix/identity/v2/3pid/unbind"
	content := map[string]any{"mxid": user, "threepid": map[string]any{"medium": "email", "address": address}}
	body, err := json.Marshal(content)
	if err != nil {
		t.Fatal(err)
	}
	sig := h.sign(map[string]any{
		"method": "POST", "uri": path, "origin": h.name, "destination_is": destination, "content": content,
	})
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", fmt.Sprintf(`X-Matrix origin=%q,key="ed25519:a",sig=%q,destination=%q`, h.name, sig, destination))
	return do(t, r)
}

// heard waits for what the homeserver is told next.
func (h *federated) heard(t *testing.T) map[string]any {
	t.Helper()
	select {
	case object := <-h.told:
		return object
	case <-time.After(30 * time.Second):
		t.Fatal("the homeserver was told nothing")
		return nil
	}
}

// TestFromAnInviteToItsDelivery is the whole way: an invite by one user, the mail
// and the client that it leads to, the binding by the other, what the homeserver
// hears of it through a restart of the service, and unbinding by the homeserver.
func TestFromAnInviteToItsDelivery(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, newDatabase func(testing.TB) string) {
		w := newWorld(t, newDatabase(t))
		hs, environ := withHomeserver(t, w)
		p := w.startWith(t, environ)
		const address = "alice@example.com"
		bob, alice := "@bob:"+hs.name, "@alice:"+hs.name
		inviter := w.register(t, w.front.URL, "bob")
		room := inviter.post(t, "/store-invite", `{"medium":"email","address":%q,"room_id":"!tea:example.org","sender":%q,"room_name":"Tea"}`, address, bob)
		for _, k := range room["public_keys"].([]any) {
			k := k.(map[string]any)
			checkURL := k["key_validity_url"].(string) + "?public_key=" + url.QueryEscape(k["public_key"].(string))
			if _, answer := send(t, http.MethodGet, checkURL, "", ""); answer != `{"valid":true}` {
				t.Errorf("%s: %s", checkURL, answer)
			}
		}

		status, page := send(t, http.MethodGet, w.mailed(t, 1).String(), "", "")
		href := regexp.MustCompile(`href="(https://app\.element\.io/[^"]*)"`).FindStringSubmatch(page)
		if status != http.StatusOK || href == nil {
			t.Fatalf("%d %s", status, page)
		}
		_, query, _ := strings.Cut(html.UnescapeString(href[1]), "?")
		values, err := url.ParseQuery(query)
		if err != nil || values.Get("email") != address {
			t.Fatalf("client link %s: %v", href[1], err)
		}
		if status, signed := send(t, http.MethodPost, values.Get("signurl")+"&mxid="+url.QueryEscape(alice), "", ""); status != http.StatusOK || member(t, signed, "sender") != bob {
			t.Errorf("signurl: %d %s", status, signed)
		}

		hs.hangs <- struct{}{}
		invitee := w.register(t, w.front.URL, "alice")
		sid := invitee.post(t, "/validate/email/requestToken", `{"client_secret":"monkeys","email":%q,"send_attempt":1}`, address)["sid"]
		invitee.post(t, "/validate/email/submitToken", `{"sid":%q,"client_secret":"monkeys","token":%q}`, sid, w.mailed(t, 2).Query().Get("token"))
		invitee.post(t, "/3pid/bind", `{"sid":%q,"client_secret":"monkeys","mxid":%q}`, sid, alice)
		hs.heard(t) // and does not answer
		p.stop(t)
		w.startWith(t, environ)
		told := hs.heard(t)
		invitee.verify(t, told)
		invite := told["invites"].([]any)[0].(map[string]any)
		invitee.verify(t, invite["signed"].(map[string]any))
		if told["mxid"] != alice || told["address"] != address || invite["token"] != room["token"] || invite["room_id"] != "!tea:example.org" {
			t.Errorf("told %v", told)
		}

		front := strings.TrimPrefix(w.front.URL, "http://")
		if status, answer := hs.unbind(t, w.front.URL, "elsewhere.example", alice, address); status != http.StatusUnauthorized {
			t.Errorf("signed for another server: %d %s", status, answer)
		}
		if status, answer := hs.unbind(t, w.front.URL, front, "@alice:example.org", address); status != http.StatusForbidden {
			t.Errorf("another server's user: %d %s", status, answer)
		}
		if hashed, _ := invitee.lookup(t, address); hashed != alice {
			t.Errorf("unbound by a request that was refused: %v", hashed)
		}
		for _, name := range []string{front, serverName} { // the second time nothing is bound
			if status, answer := hs.unbind(t, w.front.URL, name, alice, address); status != http.StatusOK {
				t.Errorf("as %s: %d %s", name, status, answer)
			}
		}
		if hashed, _ := invitee.lookup(t, address); hashed != nil {
			t.Errorf("still bound: %v", hashed)
		}
	})
}

// startWith is start with further environment variables.
func (w *world) startWith(t *testing.T, environ []string) *process {
	t.Helper()
	p := startBinary(t, environ, "-config", w.config)
	u, err := url.Parse(p.api)
	if err != nil {
		t.Fatal(err)
	}
	w.target.Store(u)
	return p
}
