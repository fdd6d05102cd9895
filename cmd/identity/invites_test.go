package main

import (
	"html"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/matrix-herald/herald/identity/storetest"
	"github.com/matrix-herald/herald/internal/harness"
)

// TestFromAnInviteToItsDelivery is the whole way: an invite by one user, the mail
// and the client that it leads to, the binding by the other, what the homeserver
// hears of it through a restart of the service, and unbinding by the homeserver.
func TestFromAnInviteToItsDelivery(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, newDatabase func(testing.TB) string) {
		w := newWorld(t, newDatabase(t))
		peers, environ := newPeers(t, 1)
		hs := peers[0]
		p := w.startWith(t, environ)
		const address = "alice@example.com"
		bob, alice := hs.user("bob"), hs.user("alice")
		room := registerAt(t, w.front.URL, hs, "bob").post(t, "/store-invite", `{"medium":"email","address":%q,"room_id":"!tea:example.org","sender":%q,"room_name":"Tea"}`, address, bob)
		for _, k := range room["public_keys"].([]any) {
			k := k.(map[string]any)
			checkURL := k["key_validity_url"].(string) + "?public_key=" + url.QueryEscape(k["public_key"].(string))
			if _, answer := send(t, http.MethodGet, checkURL, "", ""); answer != `{"valid":true}` {
				t.Errorf("%s: %s", checkURL, answer)
			}
		}

		status, page := send(t, http.MethodGet, w.mailedTo(t, address, "/invite").String(), "", "")
		href := clientLink.FindStringSubmatch(page)
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

		hs.answers(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		invitee := registerAt(t, w.front.URL, hs, "alice")
		w.bind(t, invitee, alice, address)
		hs.awaitTold(t, 1)
		p.Stop(t)
		hs.answers(accept)
		w.startWith(t, environ)
		told := hs.awaitTold(t, 2)[1].object
		invitee.verify(t, told)
		invite := told["invites"].([]any)[0].(map[string]any)
		invitee.verify(t, invite["signed"].(map[string]any))
		if told["mxid"] != alice || told["address"] != address || invite["token"] != room["token"] || invite["room_id"] != "!tea:example.org" {
			t.Errorf("told %v", told)
		}

		front := strings.TrimPrefix(w.front.URL, "http://")
		if status, answer := hs.unbind(alice, address, "elsewhere.example").send(t, w.front.URL); status != http.StatusUnauthorized {
			t.Errorf("signed for another server: %d %s", status, answer)
		}
		if status, answer := hs.unbind("@alice:example.org", address, front).send(t, w.front.URL); status != http.StatusForbidden {
			t.Errorf("another server's user: %d %s", status, answer)
		}
		if hashed, _ := invitee.lookup(t, address); hashed != alice {
			t.Errorf("unbound by a request that was refused: %v", hashed)
		}
		for _, name := range []string{front, serverName} { // the second time nothing is bound
			if status, answer := hs.unbind(alice, address, name).send(t, w.front.URL); status != http.StatusOK {
				t.Errorf("as %s: %d %s", name, status, answer)
			}
		}
		if hashed, _ := invitee.lookup(t, address); hashed != nil {
			t.Errorf("still bound: %v", hashed)
		}
	})
}

// startWith is start with further environment variables.
func (w *world) startWith(t *testing.T, environ []string) *harness.Process {
	t.Helper()
	p := startBinary(t, environ, "-config", w.config)
	u, err := url.Parse(p.API)
	if err != nil {
		t.Fatal(err)
	}
	w.target.Store(u)
	return p
}
