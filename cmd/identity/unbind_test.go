package main

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/matrix-herald/herald/identity/storetest"
)

// unbinding is a request of a homeserver to unbind: what it signs, and what it
// then sends.
type unbinding struct {
	signed    map[string]any // the object that is signed
	key       ed25519.PrivateKey
	header    map[string]string // the parameters of X-Matrix but sig
	scheme    string
	signature func(string) string // what is sent as the signature
	method    string
	path      string
	content   map[string]any // the body
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
		scheme: "X-Matrix", signature: func(s string) string { return s },
		method: http.MethodPost, path: unbindPath, content: content(),
	}
}

// specified makes it a request as the specification has it: what Synapse signs as
// destination_is is called destination.
func (u *unbinding) specified() {
	if name, there := u.signed["destination_is"]; there {
		u.signed["destination"] = name
		delete(u.signed, "destination_is")
	}
}

// send signs and sends the request.
func (u *unbinding) send(t *testing.T, base string) (status int, answer string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), u.method, base+u.path, bytes.NewReader([]byte(canonical(u.content))))
	if err != nil {
		t.Fatal(err)
	}
	params := maps.Clone(u.header)
	params["sig"] = u.signature(signature(u.key, u.signed))
	var header []string
	for name, value := range params {
		header = append(header, fmt.Sprintf("%s=%q", name, value))
	}
	r.Header.Set("Authorization", u.scheme+" "+strings.Join(header, ","))
	return do(t, r)
}

// TestOnlyTheHomeserversOwnSignatureUnbinds tampers with each part of a request
// that is good otherwise, signed in either way.
//
// Conformance (federation): unbinding that a homeserver signed; origin is the user's server, byte for byte | 403, 401 for another destination, never 400, 404, 501 (≠ Sydent: 401) (also TestUnbindByHomeserver)
func TestOnlyTheHomeserversOwnSignatureUnbinds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, storetest.SQLite(t))
	peers, environ := newPeers(t, 3)
	one, two, stale := peers[0], peers[1], peers[2]
	stale.validUntil = time.Now().Add(-time.Hour)
	w.startWith(t, environ)
	_, otherKey, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	const address = "b@example.com"
	b := registerAt(t, w.front.URL, two, "b")
	user := two.user("b")
	w.bind(t, b, user, address)
	c := registerAt(t, w.front.URL, stale, "c")
	w.bind(t, c, stale.user("c"), "c@example.com")
	w.bind(t, b, user, "second@example.com")

	ways := map[string]func(*unbinding){"as Synapse signs": func(*unbinding) {}, "as specified": (*unbinding).specified}
	threepid := func(u *unbinding) map[string]any { return u.content["threepid"].(map[string]any) }
	for name, tt := range map[string]struct {
		tamper func(*unbinding)
		status int
	}{
		"another method was signed":      {func(u *unbinding) { u.signed["method"] = "PUT" }, 403},
		"another path was signed":        {func(u *unbinding) { u.signed["uri"] = "/_matrix/identity/v2/3pid/bind" }, 403},
		"a query was added":              {func(u *unbinding) { u.path += "?x=y" }, 403},
		"another origin was signed":      {func(u *unbinding) { u.signed["origin"] = one.name }, 403},
		"another origin is named":        {func(u *unbinding) { u.header["origin"] = one.name }, 403},
		"an origin that gives no keys":   {func(u *unbinding) { u.header["origin"] = "127.0.0.1:1" }, 502},
		"what is no origin":              {func(u *unbinding) { u.header["origin"] = "a/b" }, 403},
		"no origin":                      {func(u *unbinding) { delete(u.header, "origin") }, 403},
		"another homeserver's signature": {func(u *unbinding) { *u = *one.unbind(user, address, serverName) }, 403},
		"another destination":            {func(u *unbinding) { u.header["destination"] = "elsewhere.example.org" }, 401},
		"another destination, signed":    {func(u *unbinding) { *u = *two.unbind(user, address, "elsewhere.example.org") }, 401},
		"another destination was signed": {func(u *unbinding) { u.signed["destination_is"] = "elsewhere.example.org" }, 403},
		"no destination was signed":      {func(u *unbinding) { delete(u.signed, "destination_is") }, 403},
		"a name that is not ours was signed, and none is named": {func(u *unbinding) {
			u.signed["destination_is"] = "elsewhere.example.org"
			delete(u.header, "destination")
		}, 403},
		"another user":              {func(u *unbinding) { u.content["mxid"] = two.user("x") }, 403},
		"another medium":            {func(u *unbinding) { threepid(u)["medium"] = "msisdn" }, 403},
		"another address":           {func(u *unbinding) { threepid(u)["address"] = "second@example.com" }, 403},
		"a member more":             {func(u *unbinding) { u.content["x"] = "y" }, 403},
		"a member less":             {func(u *unbinding) { u.signed["content"].(map[string]any)["x"] = "y" }, 403},
		"no content was signed":     {func(u *unbinding) { delete(u.signed, "content") }, 403},
		"a signature with a change": {func(u *unbinding) { u.signature = changed }, 403},
		"a short signature":         {func(u *unbinding) { u.signature = func(s string) string { return s[:20] } }, 403},
		"no signature":              {func(u *unbinding) { u.signature = func(string) string { return "" } }, 403},
		"a key that is not known":   {func(u *unbinding) { u.header["key"] = "ed25519:b" }, 403},
		"what is no key":            {func(u *unbinding) { u.header["key"] = "rsa:a" }, 403},
		"another key":               {func(u *unbinding) { u.key = otherKey }, 403},
		"another scheme":            {func(u *unbinding) { u.scheme = "Bearer" }, 403},
		"a key that has expired": {func(u *unbinding) {
			*u = *stale.unbind(stale.user("c"), "c@example.com", serverName)
		}, 403},
	} {
		for way, sign := range ways {
			t.Run(name+", "+way, func(t *testing.T) {
				u := two.unbind(user, address, serverName)
				tt.tamper(u)
				sign(u)
				if status, answer := u.send(t, w.front.URL); status != tt.status {
					t.Errorf("%d %s, want %d", status, answer, tt.status)
				}
			})
		}
	}
	for address, want := range map[string]string{address: user, "second@example.com": user, "c@example.com": stale.user("c")} {
		if hashed, _ := b.lookup(t, address); hashed != want {
			t.Errorf("%s is bound to %v, want %s", address, hashed, want)
		}
	}
	// Without any of that it is good.
	for name, sign := range ways {
		u := two.unbind(user, address, serverName)
		sign(u)
		if status, answer := u.send(t, w.front.URL); status != http.StatusOK {
			t.Errorf("%s: %d %s", name, status, answer)
		}
	}
	if hashed, _ := b.lookup(t, address); hashed != nil {
		t.Errorf("still bound to %v", hashed)
	}
}

// changed returns a signature with another first character.
func changed(s string) string {
	first := "A"
	if strings.HasPrefix(s, first) {
		first = "B"
	}
	return first + s[1:]
}

// TestHomeserversUnbindInEveryWayTheySign is about those that sign as the
// specification says and those that sign as Synapse does, and about the names that
// they know the service by.
//
// Conformance (federation): `destination_is`, as Synapse signs, and `destination`, as the specification has it (≠ Sydent: the former only) | 200
func TestHomeserversUnbindInEveryWayTheySign(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, newDatabase func(testing.TB) string) {
		w := newWorld(t, newDatabase(t))
		peers, environ := newPeers(t, 1)
		p := peers[0]
		const former = "old.example.org"
		w.startWith(t, append(environ, "IDENTITY_HOMESERVERS_OWN_NAMES="+former))
		front := strings.TrimPrefix(w.front.URL, "http://")
		i := 0
		for name, prepare := range map[string]func(*unbinding){
			"as Synapse does":                 func(*unbinding) {},
			"as Synapse did, without a name":  func(u *unbinding) { delete(u.header, "destination") },
			"as the specification has it":     (*unbinding).specified,
			"with the scheme in lower case":   func(u *unbinding) { u.scheme = "x-matrix" },
			"with the URL-safe alphabet":      func(u *unbinding) { u.signature = strings.NewReplacer("+", "-", "/", "_").Replace },
			"for an address in capitals":      func(*unbinding) {},
			"for what was unbound before":     func(*unbinding) {},
			"with a member that nobody knows": func(u *unbinding) { u.content["x"], u.signed["content"].(map[string]any)["x"] = "é", "é" },
		} {
			for _, destination := range []string{serverName, front, former} {
				i++
				localpart := fmt.Sprint("b", i)
				user := p.user(localpart)
				b := registerAt(t, w.front.URL, p, localpart)
				address := fmt.Sprintf("b%d@example.com", i)
				w.bind(t, b, user, address)
				times := 1
				given := address
				switch name {
				case "for an address in capitals":
					given = strings.ToUpper(address)
				case "for what was unbound before":
					times = 2
				}
				for range times {
					u := p.unbind(user, given, destination)
					prepare(u)
					if status, answer := u.send(t, w.front.URL); status != http.StatusOK || answer != "{}" {
						t.Errorf("%s, to %s: %d %s", name, destination, status, answer)
					}
				}
				if hashed, _ := b.lookup(t, address); hashed != nil {
					t.Errorf("%s, to %s: still bound to %v", name, destination, hashed)
				}
			}
		}
	})
}
