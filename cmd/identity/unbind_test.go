package main

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"

	"github.com/matrix-herald/herald/identity/storetest"
)

// unbinding is a request of a homeserver to unbind: what it signs, and what it
// then sends.
type unbinding struct {
	signed  map[string]any // the object that is signed
	key     ed25519.PrivateKey
	header  map[string]string // the parameters of X-Matrix but sig
	path    string
	content map[string]any // the body
}

const unbindPath = "/_matrix/identity/v2/3pid/unbind"

// unbind is a request as Synapse makes it.
func (p *peer) unbind(user, address, destination string) *unbinding {
	content := func() map[string]any {
		return map[string]any{"mxid": user, "threepid": map[string]any{"medium": "email", "address": address}}
	}
	return &unbinding{
		signed: map[string]any{
			"method": "POST", "uri": unbindPath, "origin": p.name, "destination_is": destination, "content": content(),
		},
		key:    p.key,
		header: map[string]string{"origin": p.name, "key": peerKey, "destination": destination},
		path:   unbindPath, content: content(),
	}
}

// specified makes it a request as the specification has it: what Synapse signs as
// destination_is is called destination.
func (u *unbinding) specified() {
	u.signed["destination"] = u.signed["destination_is"]
	delete(u.signed, "destination_is")
}

// send signs and sends the request.
func (u *unbinding) send(t *testing.T, base string) (status int, answer string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+u.path, bytes.NewReader([]byte(canonical(u.content))))
	if err != nil {
		t.Fatal(err)
	}
	params := maps.Clone(u.header)
	params["sig"] = signature(u.key, u.signed)
	var header []string
	for name, value := range params {
		header = append(header, fmt.Sprintf("%s=%q", name, value))
	}
	r.Header.Set("Authorization", "X-Matrix "+strings.Join(header, ","))
	return do(t, r)
}

// TestHomeserversUnbindInEveryWayTheySign is about those that sign as the
// specification says and those that sign as Synapse does, and about the names that
// they know the service by. What is signed otherwise is refused.
//
// Conformance (federation): `destination_is`, as Synapse signs, and `destination`, as the specification has it (≠ Sydent: the former only) | 200
func TestHomeserversUnbindInEveryWayTheySign(t *testing.T) {
	t.Parallel()
	w := newWorld(t, storetest.SQLite(t))
	peers, environ := newPeers(t, 1)
	p := peers[0]
	const former, address = "old.example.org", "b@example.com"
	w.startWith(t, append(environ, "IDENTITY_HOMESERVERS_NAMES_FOR_US="+former))
	user := p.user("b")
	b := registerAt(t, w.front.URL, p, "b")
	sid := w.prove(t, b, address)
	bound := func(want any) {
		t.Helper()
		if hashed, _ := b.lookup(t, address); hashed != want {
			t.Errorf("bound to %v, want %v", hashed, want)
		}
	}
	for name, c := range map[string]struct {
		destination string
		prepare     func(*unbinding)
		status      int
	}{
		"as Synapse does":                  {serverName, func(*unbinding) {}, 200},
		"by the public address":            {strings.TrimPrefix(w.front.URL, "http://"), func(*unbinding) {}, 200},
		"by a former name":                 {former, func(*unbinding) {}, 200},
		"as Synapse did, without a name":   {serverName, func(u *unbinding) { delete(u.header, "destination") }, 200},
		"as the specification has it":      {serverName, (*unbinding).specified, 200},
		"with a member that nobody knows":  {serverName, func(u *unbinding) { u.content["x"], u.signed["content"].(map[string]any)["x"] = "é", "é" }, 200},
		"with a member that nobody signed": {serverName, func(u *unbinding) { u.content["x"] = "y" }, 403},
		"at another path":                  {serverName, func(u *unbinding) { u.path += "?x=y" }, 403},
		"for another server":               {"elsewhere.example.org", func(*unbinding) {}, 401},
	} {
		t.Run(name, func(t *testing.T) {
			b.post(t, "/3pid/bind", `{"sid":%q,"client_secret":"monkeys","mxid":%q}`, sid, user)
			u := p.unbind(user, address, c.destination)
			c.prepare(u)
			if status, answer := u.send(t, w.front.URL); status != c.status {
				t.Errorf("%d %s, want %d", status, answer, c.status)
			}
			if c.status == http.StatusOK {
				bound(nil)
			} else {
				bound(user)
			}
		})
	}
}
