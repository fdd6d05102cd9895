package homeserver_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/identity/homeserver"
)

// Conformance (federation): what is signed has `destination_is`, as Synapse has it, or `destination` (≠ Sydent: refused), which is any of our names, those in `homeservers.names_for_us` too | taken (also TestHomeserversUnbindInEveryWayTheySign)
// Conformance (callers): Synapse: unbind with `destination_is` (also TestHomeserversUnbindInEveryWayTheySign)
func TestVerifyRequestTakesWhatAHomeserverSigned(t *testing.T) {
	t.Parallel()
	key, second := newSigner("a_1", 1), newSigner("a_2", 2)
	sign := func(origin, member, destination string) string {
		return key.sign(canonicalUnbind(member, destination, origin))
	}
	bare := func(origin, sig string) string {
		return fmt.Sprintf(`X-Matrix origin="%s",key="%s",sig="%s"`, origin, key.id, sig)
	}
	tests := map[string]func(r *homeserver.VerifyRequest, origin string){
		"as Synapse does it": func(*homeserver.VerifyRequest, string) {},
		"as the specification does it": func(r *homeserver.VerifyRequest, origin string) {
			r.Headers = []string{authorization(origin, key.id, sign(origin, "destination", "is.example"), "is.example")}
		},
		"for another name of ours": func(r *homeserver.VerifyRequest, origin string) {
			r.Headers = []string{authorization(origin, key.id, sign(origin, "destination_is", "is.example:443"), "is.example:443")}
		},
		"for another name of ours, without saying so in the header": func(r *homeserver.VerifyRequest, origin string) {
			r.Headers = []string{bare(origin, sign(origin, "destination_is", "is.example:443"))}
		},
		"as the specification did it before v1.3": func(r *homeserver.VerifyRequest, origin string) {
			r.Headers = []string{bare(origin, sign(origin, "destination", "is.example"))}
		},
		"with padding": func(r *homeserver.VerifyRequest, origin string) {
			r.Headers = []string{bare(origin, sign(origin, "destination_is", "is.example")+"==")}
		},
		"in URL-safe base64": func(r *homeserver.VerifyRequest, origin string) {
			raw, err := base64.RawStdEncoding.DecodeString(sign(origin, "destination_is", "is.example"))
			if err != nil {
				t.Error(err)
			}
			r.Headers = []string{bare(origin, base64.RawURLEncoding.EncodeToString(raw))}
		},
		"with content written in another way": func(r *homeserver.VerifyRequest, _ string) {
			r.Content = []byte("{ \"threepid\": {\"medium\":\"\\u0065mail\",\"address\":\"a@b.example\"},\n\"mxid\":\"@alice:a.example\" }")
		},
		"without content": func(r *homeserver.VerifyRequest, origin string) {
			r.Method, r.URI, r.Content = "GET", "/_matrix/x?a=b%20c&d", nil
			sig := key.sign(fmt.Sprintf(`{"destination":"is.example","method":"GET","origin":%q,"uri":"/_matrix/x?a=b%%20c&d"}`, origin))
			r.Headers = []string{authorization(origin, key.id, sig, "is.example")}
		},
		"with integers as canonical JSON writes them": func(r *homeserver.VerifyRequest, origin string) {
			r.Content = []byte(`{"n":[1e3,-0,1.0]}`)
			sig := key.sign(fmt.Sprintf(`{"content":{"n":[1000,0,1]},"destination":"is.example","method":"POST","origin":%q,"uri":%q}`, origin, unbindURI))
			r.Headers = []string{authorization(origin, key.id, sig, "is.example")}
		},
		"beside other schemes": func(r *homeserver.VerifyRequest, _ string) {
			r.Headers = append([]string{"Bearer abc", ""}, r.Headers...)
		},
		"with two keys": func(r *homeserver.VerifyRequest, origin string) {
			r.Headers = append(r.Headers, unbind(origin, second).Headers...)
		},
		"with one good key of two": func(r *homeserver.VerifyRequest, origin string) {
			r.Headers = append(unbind(origin, newSigner("gone", 3)).Headers, r.Headers...)
		},
		"with one good signature of two": func(r *homeserver.VerifyRequest, origin string) {
			r.Headers = append([]string{bare(origin, second.sign("{}"))}, r.Headers...)
		},
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "a.example")
			server := w.keyServer(t, key, second)
			r := unbind(server.name, key)
			change(&r, server.name)
			origin, err := w.client(t).VerifyRequest(t.Context(), r)
			if err != nil || origin.String() != server.name {
				t.Errorf("got %q, %v", origin, err)
			}
		})
	}
}

// Conformance (federation): every member that is signed, tampered with, in either way of signing | 403 `M_FORBIDDEN`
// Conformance (federation): unbinding that a homeserver signed; origin is the user's server, byte for byte | 403, 401 for another destination, never 400, 404, 501 (≠ Sydent: 401) (also TestUnbindByHomeserver)
// Conformance (attacks): unbinding by an altered or replayed request, for another service, by an old key | everything in the request is signed, the service's name included
func TestVerifyRequestRefuses(t *testing.T) {
	t.Parallel()
	key := newSigner("a_1", 1)
	stranger := newSigner("a_1", 9) // the same name, another key
	replace := func(old, changed string) func(*homeserver.VerifyRequest, string) {
		return func(r *homeserver.VerifyRequest, _ string) {
			before := r.Headers[0] + string(r.Content)
			r.Headers[0] = strings.Replace(r.Headers[0], old, changed, 1)
			r.Content = []byte(strings.Replace(string(r.Content), old, changed, 1))
			if before == r.Headers[0]+string(r.Content) {
				t.Errorf("nothing changed by %q", old)
			}
		}
	}
	header := func(r *homeserver.VerifyRequest, headers ...string) { r.Headers = headers }
	tests := map[string]struct {
		change func(r *homeserver.VerifyRequest, origin string)
		want   error
	}{
		"no Authorization":       {func(r *homeserver.VerifyRequest, _ string) { header(r) }, identity.ErrNotSigned},
		"another scheme only":    {func(r *homeserver.VerifyRequest, _ string) { header(r, "Bearer abc") }, identity.ErrNotSigned},
		"a malformed header":     {replace(`,key=`, `key=`), identity.ErrNotSigned},
		"a malformed one beside": {func(r *homeserver.VerifyRequest, _ string) { r.Headers = append(r.Headers, "X-Matrix x") }, identity.ErrNotSigned},
		"another method":         {func(r *homeserver.VerifyRequest, _ string) { r.Method = "PUT" }, identity.ErrNotSigned},
		"the method in another case": {
			func(r *homeserver.VerifyRequest, _ string) { r.Method = "post" }, identity.ErrNotSigned,
		},
		"another path":       {func(r *homeserver.VerifyRequest, _ string) { r.URI = "/_matrix/identity/v2/3pid/bind" }, identity.ErrNotSigned},
		"a query":            {func(r *homeserver.VerifyRequest, _ string) { r.URI += "?" }, identity.ErrNotSigned},
		"a path not Unicode": {func(r *homeserver.VerifyRequest, _ string) { r.URI += "\xff" }, identity.ErrNotSigned},
		"another user":       {replace("@alice", "@mallory"), identity.ErrNotSigned},
		"another address":    {replace("a@b", "c@b"), identity.ErrNotSigned},
		"another member":     {replace(`{"mxid"`, `{"x":null,"mxid"`), identity.ErrNotSigned},
		"a member left out":  {replace(`,"medium":"email"`, ``), identity.ErrNotSigned},
		// encoding/json takes the last of the two, other parsers the first.
		"a member twice":        {replace(`{"mxid"`, `{"mxid":"@mallory:a.example","mxid"`), identity.ErrNotSigned},
		"a member signed over":  {replace(`{"mxid"`, `{"unsigned":{},"mxid"`), identity.ErrNotSigned},
		"no content":            {func(r *homeserver.VerifyRequest, _ string) { r.Content = nil }, identity.ErrNotSigned},
		"content not JSON":      {replace(`}}`, `}`), identity.ErrNotSigned},
		"content not Unicode":   {replace(`@alice`, "@\xff"), identity.ErrNotSigned},
		"two contents":          {replace(`}}`, `}}{}`), identity.ErrNotSigned},
		"a fraction in content": {replace(`"@alice:a.example"`, `1.5`), identity.ErrNotSigned},
		"a nest in content": {
			replace(`"@alice:a.example"`, strings.Repeat("[", 100)+strings.Repeat("]", 100)), identity.ErrNotSigned,
		},
		"the key of another server": {
			func(r *homeserver.VerifyRequest, origin string) { *r = unbind(origin, stranger) }, identity.ErrNotSigned,
		},
		"a key the server does not have": {
			func(r *homeserver.VerifyRequest, origin string) { *r = unbind(origin, newSigner("a_2", 1)) }, identity.ErrNotSigned,
		},
		"a signature of something else": {
			func(r *homeserver.VerifyRequest, origin string) {
				header(r, authorization(origin, key.id, key.sign("{}"), "is.example"))
			}, identity.ErrNotSigned,
		},
		"a signature for no destination": {
			func(r *homeserver.VerifyRequest, origin string) {
				sig := key.sign(fmt.Sprintf(`{"content":%s,"method":"POST","origin":%q,"uri":%q}`, unbindContent, origin, unbindURI))
				header(r, authorization(origin, key.id, sig, "is.example"))
			}, identity.ErrNotSigned,
		},
		"a signature for another server, which the header does not say": {
			func(r *homeserver.VerifyRequest, origin string) {
				sig := key.sign(canonicalUnbind("destination_is", "other.example", origin))
				header(r, fmt.Sprintf(`X-Matrix origin="%s",key="%s",sig="%s"`, origin, key.id, sig))
			}, identity.ErrNotSigned,
		},
		"a signature for another server, which the header denies": {
			func(r *homeserver.VerifyRequest, origin string) {
				sig := key.sign(canonicalUnbind("destination_is", "other.example", origin))
				header(r, authorization(origin, key.id, sig, "is.example"))
			}, identity.ErrNotSigned,
		},
		"a signature for one of our names and a header with the other": {
			func(r *homeserver.VerifyRequest, origin string) {
				sig := key.sign(canonicalUnbind("destination_is", "is.example", origin))
				header(r, authorization(origin, key.id, sig, "is.example:443"))
			}, identity.ErrNotSigned,
		},
		"a signature that names another origin": {
			func(r *homeserver.VerifyRequest, origin string) {
				sig := key.sign(canonicalUnbind("destination_is", "is.example", "b.example"))
				header(r, authorization(origin, key.id, sig, "is.example"))
			}, identity.ErrNotSigned,
		},
		"two origins": {
			func(r *homeserver.VerifyRequest, _ string) {
				r.Headers = append(r.Headers, unbind("b.example", stranger).Headers...)
			}, identity.ErrNotSigned,
		},
		"more than eight authorizations": {
			func(r *homeserver.VerifyRequest, _ string) {
				for range 8 {
					r.Headers = append(r.Headers, r.Headers[0])
				}
			}, identity.ErrNotSigned,
		},
		"no name of our own": {
			func(r *homeserver.VerifyRequest, origin string) {
				sig := key.sign(canonicalUnbind("destination_is", "", origin))
				header(r, fmt.Sprintf(`X-Matrix origin="%s",key="%s",sig="%s"`, origin, key.id, sig))
				r.OwnNames = nil
			}, identity.ErrNotSigned,
		},
		"another destination": {replace(`destination="is.example"`, `destination="other.example"`), identity.ErrWrongDestination},
		"a destination in capitals": {
			replace(`destination="is.example"`, `destination="IS.example"`), identity.ErrWrongDestination,
		},
		"a destination of ours with a port": {
			replace(`destination="is.example"`, `destination="is.example:8448"`), identity.ErrWrongDestination,
		},
		"an empty destination": {replace(`destination="is.example"`, `destination=""`), identity.ErrWrongDestination},
		"another destination beside ours": {
			func(r *homeserver.VerifyRequest, _ string) {
				r.Headers = append(r.Headers, strings.Replace(r.Headers[0], "is.example", "other.example", 1))
			}, identity.ErrWrongDestination,
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "a.example")
			server := w.keyServer(t, key)
			r := unbind(server.name, key)
			tc.change(&r, server.name)
			origin, err := w.client(t).VerifyRequest(t.Context(), r)
			wantError(t, err, tc.want)
			if origin != (homeserver.ServerName{}) {
				t.Errorf("an error and the origin %s", origin)
			}
			if errors.Is(err, identity.ErrUnreachable) {
				t.Error("the server is called unreachable as well")
			}
		})
	}
}

// The key of one server proves nothing about another, although both call it the
// same.
func TestVerifyRequestKeepsServersApart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "a.example")
	alice, mallory := newSigner("1", 1), newSigner("1", 2)
	a, m := w.keyServer(t, alice), w.keyServer(t, mallory)
	c := w.client(t)
	for _, r := range []homeserver.VerifyRequest{unbind(a.name, alice), unbind(m.name, mallory)} {
		if _, err := c.VerifyRequest(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	_, err := c.VerifyRequest(t.Context(), unbind(a.name, mallory))
	wantError(t, err, identity.ErrNotSigned)
}

func TestVerifyRequestAsksNobodyInVain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "a.example")
	key := newSigner("1", 1)
	server := w.keyServer(t, key)
	c := w.client(t)
	for name, change := range map[string]func(r *homeserver.VerifyRequest){
		"a malformed header":   func(r *homeserver.VerifyRequest) { r.Headers[0] += "=" },
		"content twice":        func(r *homeserver.VerifyRequest) { r.Content = []byte(`{"a":1,"a":1}`) },
		"another destination":  func(r *homeserver.VerifyRequest) { r.OwnNames = []string{"other.example"} },
		"a signature too long": func(r *homeserver.VerifyRequest) { r.Headers[0] = strings.Replace(r.Headers[0], `sig="`, `sig="A`, 1) },
	} {
		r := unbind(server.name, key)
		change(&r)
		if _, err := c.VerifyRequest(t.Context(), r); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if n := len(server.requests()); n != 0 {
		t.Errorf("asked for keys %d times", n)
	}
}
