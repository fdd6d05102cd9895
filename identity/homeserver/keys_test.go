package homeserver_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/identity/homeserver"
	"github.com/matrix-herald/herald/internal/safehttp"
)

// keyRing is a key server and a client that verifies its requests.
type keyRing struct {
	*world
	*keyServer
	client *homeserver.Client
}

func newKeyRing(t *testing.T, keys ...signer) keyRing {
	t.Helper()
	w := newWorld(t, "a.example")
	return keyRing{w, w.keyServer(t, keys...), w.client(t)}
}

// want fails unless verifying a request signed with key gives target and the
// server was asked for its keys fetches times in all.
func (k keyRing) want(t *testing.T, key signer, target error, fetches int) {
	t.Helper()
	_, err := k.client.VerifyRequest(t.Context(), unbind(k.name, key))
	switch {
	case target != nil:
		wantError(t, err, target)
	case err != nil:
		t.Fatal(err)
	}
	if n := len(k.requests()); n != fetches {
		t.Fatalf("asked for keys %d times, want %d", n, fetches)
	}
}

func TestKeysAreRemembered(t *testing.T) {
	t.Parallel()
	key := newSigner("1", 1)
	for name, tc := range map[string]struct{ published, want time.Duration }{
		"as long as the server says":                 {time.Hour, time.Hour},
		"not longer than seven days":                 {365 * 24 * time.Hour, 7 * 24 * time.Hour},
		"not longer than seven days, whatever comes": {100_000 * time.Hour, 7 * 24 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKeyRing(t, key)
			k.publish(keyDocument(k.name, k.clock().Add(tc.published), key))
			k.want(t, key, nil, 1)
			k.want(t, key, nil, 1)
			k.advance(tc.want - time.Second)
			k.want(t, key, nil, 1)
			k.advance(time.Second)
			k.publish(keyDocument(k.name, k.clock().Add(time.Hour), key))
			k.want(t, key, nil, 2)
		})
	}
}

func TestExpiredKeysProveNothing(t *testing.T) {
	t.Parallel()
	key := newSigner("1", 1)
	k := newKeyRing(t, key)
	k.publish(keyDocument(k.name, k.clock(), key))
	k.want(t, key, identity.ErrNotSigned, 1)
	k.want(t, key, identity.ErrNotSigned, 1)
	k.advance(time.Minute)
	k.want(t, key, identity.ErrNotSigned, 2)
	k.advance(time.Minute)
	k.publish(keyDocument(k.name, k.clock().Add(2*time.Minute), key))
	k.want(t, key, nil, 3)
	k.advance(2 * time.Minute)
	k.answers(http.NotFound)
	k.want(t, key, identity.ErrUnreachable, 4)
}

func TestAnUnknownKeyIsAskedForOnceAMinute(t *testing.T) {
	t.Parallel()
	old, fresh := newSigner("old", 1), newSigner("new", 2)
	k := newKeyRing(t, old)
	k.want(t, old, nil, 1)
	k.publish(keyDocument(k.name, k.clock().Add(time.Hour), fresh))
	for range 3 {
		k.want(t, fresh, identity.ErrNotSigned, 1)
	}
	k.advance(time.Minute - time.Second)
	k.want(t, fresh, identity.ErrNotSigned, 1)
	k.advance(time.Second)
	k.want(t, fresh, nil, 2)
	k.want(t, old, identity.ErrNotSigned, 2) // rotated away
	for i := range 5 {
		k.want(t, newSigner(fmt.Sprint(i), 3), identity.ErrNotSigned, 2)
	}
	k.want(t, fresh, nil, 2)
}

func TestConcurrentRequestsAskForKeysOnce(t *testing.T) {
	t.Parallel()
	key := newSigner("1", 1)
	k := newKeyRing(t, key)
	var wg sync.WaitGroup
	for range 30 {
		wg.Go(func() {
			if _, err := k.client.VerifyRequest(t.Context(), unbind(k.name, key)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := len(k.requests()); n != 1 {
		t.Errorf("asked for keys %d times", n)
	}
}

func TestAKeyServerThatComesBackIsHeardAfterAMinute(t *testing.T) {
	t.Parallel()
	key := newSigner("1", 1)
	for name, broken := range map[string]http.HandlerFunc{
		"having hung":                    func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"having broken off":              func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"having had an error of its own": answer(500, `{"errcode":"M_UNKNOWN"}`),
		"having been somebody else":      answer(200, "<html>It works!</html>"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKeyRing(t, key)
			opts := k.options()
			opts.Timeout = 500 * time.Millisecond
			k.client = newClient(t, opts)
			good := k.answer
			k.answers(broken)
			k.want(t, key, identity.ErrUnreachable, 1)
			k.answers(good)
			k.want(t, key, identity.ErrUnreachable, 1)
			k.advance(time.Minute)
			k.want(t, key, nil, 2)
		})
	}
}

func TestKnownKeysOutliveAKeyServerThatFails(t *testing.T) {
	t.Parallel()
	key := newSigner("1", 1)
	k := newKeyRing(t, key)
	k.want(t, key, nil, 1)
	k.advance(time.Minute)
	k.answers(http.NotFound)
	k.want(t, newSigner("2", 2), identity.ErrUnreachable, 2)
	k.want(t, key, nil, 2)
	k.advance(24*time.Hour - time.Minute)
	k.want(t, key, identity.ErrUnreachable, 3)
}

func TestACallerWhoGivesUpDoesNotUseUpTheMinute(t *testing.T) {
	t.Parallel()
	key := newSigner("1", 1)
	k := newKeyRing(t, key)
	good := k.answer
	ctx, cancel := context.WithCancel(t.Context())
	k.answers(func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	})
	_, err := k.client.VerifyRequest(ctx, unbind(k.name, key))
	wantError(t, err, identity.ErrUnreachable)
	if !errors.Is(err, context.Canceled) {
		t.Error("the caller's cancellation cannot be told from the server's silence")
	}
	k.answers(good)
	k.want(t, key, nil, 2)
}

func TestACallerDoesNotWaitForAnotherBeyondItsContext(t *testing.T) {
	t.Parallel()
	key := newSigner("1", 1)
	k := newKeyRing(t, key)
	arrived, release := make(chan struct{}), make(chan struct{})
	good := k.answer
	k.answers(func(rw http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-release
		good(rw, r)
	})
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := k.client.VerifyRequest(t.Context(), unbind(k.name, key)); err != nil {
			t.Error(err)
		}
	})
	<-arrived
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := k.client.VerifyRequest(ctx, unbind(k.name, key))
	wantError(t, err, identity.ErrUnreachable)
	close(release)
	wg.Wait()
}

func TestKeyServersDoNotReachPrivateAddresses(t *testing.T) {
	t.Parallel()
	key := newSigner("1", 1)
	k := newKeyRing(t, key)
	opts := k.options()
	opts.AllowNets = nil
	k.client = newClient(t, opts)
	k.want(t, key, identity.ErrUnreachable, 0)
	_, err := k.client.VerifyRequest(t.Context(), unbind(k.name, key))
	if !errors.Is(err, safehttp.ErrBlocked) {
		t.Error("the reason cannot be found behind the error")
	}
}

// Conformance (federation): keys: `verify_keys` alone, of that very server, signed by itself, for seven days at most; an unknown one is asked for once a minute (also TestKeysAreRemembered, TestExpiredKeysProveNothing, TestAnUnknownKeyIsAskedForOnceAMinute, TestTheCacheIsBounded)
func TestKeysThatAreNotTheServersAreNotUsed(t *testing.T) {
	t.Parallel()
	key, other := newSigner("1", 1), newSigner("2", 2)
	replace := func(old, changed string) func(t *testing.T, good, name string) string {
		return func(t *testing.T, good, _ string) string {
			document := strings.Replace(good, old, changed, 1)
			if document == good {
				t.Errorf("nothing changed by %q", old)
			}
			return document
		}
	}
	for name, document := range map[string]func(t *testing.T, good, name string) string{
		"of another server": func(_ *testing.T, _, name string) string {
			return signedAs(name, "b.example", key)
		},
		"of the server in capitals": func(_ *testing.T, _, name string) string {
			return signedAs(name, strings.ToUpper(name), key)
		},
		"of the server without its port": func(_ *testing.T, _, name string) string {
			return signedAs(name, "a.example", key)
		},
		"of another server, signed by that": func(*testing.T, string, string) string {
			return keyDocument("b.example", farAhead, key)
		},
		"without a server_name":                 replace(`"server_name"`, `"server"`),
		"with a server_name in another case":    replace(`"server_name"`, `"Server_name"`),
		"with a server_name signed and one not": replace(`{"old_`, `{"server_name":"b.example","old_`),
		"with a changed member":                 replace(`"old_verify_keys":{}`, `"old_verify_keys":{"a":1}`),
		"without valid_until_ts":                replace(`"valid_until_ts"`, `"valid_until"`),
		"with a valid_until_ts changed":         replace(`"valid_until_ts":1`, `"valid_until_ts":2`),
		"with a valid_until_ts in quotes":       replace(`"valid_until_ts":1`, `"valid_until_ts":"1","x":1`),
		"with a valid_until_ts beyond 64 bits":  replace(`"valid_until_ts":1`, `"valid_until_ts":99999999999`),
		"without verify_keys":                   replace(`"verify_keys"`, `"verify_key"`),
		"with verify_keys that are a list":      replace(`"verify_keys":{`, `"verify_keys":[],"x":{`),
		"with a key that is no object":          replace(`"verify_keys":{"ed25519:1":{`, `"verify_keys":{"ed25519:1":1,"x":{`),
		"with a key in old_verify_keys only":    replace(`"old_verify_keys":{},`, ``),
		"with another key":                      replace(key.public(), other.public()),
		"with a key that is cut":                replace(key.public(), key.public()[:42]),
		"without signatures":                    replace(`"signatures"`, `"signature"`),
		"with signatures that are none":         replace(`"signatures":{`, `"signatures":[],"x":{`),
		"signed with a key under another name":  replace(`"ed25519:1":"`, `"ed25519:2":"`),
		"signed by another server":              replace(`"signatures":{"a.`, `"signatures":{"b.`),
		"with a signature of other content":     func(_ *testing.T, good, _ string) string { return resigned(good, key.sign("{}")) },
		"with a signature of another key":       func(_ *testing.T, good, _ string) string { return resigned(good, other.sign(unsigned(good))) },
		"followed by something":                 func(_ *testing.T, good, _ string) string { return good + "{}" },
		"in a list":                             func(_ *testing.T, good, _ string) string { return "[" + good + "]" },
		"in an answer of more than 64 KiB":      func(_ *testing.T, good, _ string) string { return good + strings.Repeat(" ", 64<<10) },
		"in an answer that is nested too deep":  replace(`"old_verify_keys":{}`, `"old_verify_keys":`+strings.Repeat("[", 80)+strings.Repeat("]", 80)),
		"among more keys than a server may have": func(_ *testing.T, _, name string) string {
			return keyDocument(name, farAhead, many(key, 33)...)
		},
		"in an answer that is not Unicode at all": replace(`"old_verify_keys":{}`, "\"old_verify_keys\":\"\xff\""),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKeyRing(t, key)
			good := keyDocument(k.name, k.clock().Add(time.Hour), key)
			k.publish(document(t, good, k.name))
			k.want(t, key, identity.ErrUnreachable, 1)
		})
	}
	for name, h := range map[string]http.HandlerFunc{
		"of another status": func(rw http.ResponseWriter, r *http.Request) {
			rw.WriteHeader(http.StatusCreated)
			fmt.Fprint(rw, keyDocument(r.Host, farAhead, key))
		},
		"behind a redirect": func(rw http.ResponseWriter, r *http.Request) {
			http.Redirect(rw, r, r.URL.String(), http.StatusFound)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKeyRing(t, key)
			k.answers(h)
			k.want(t, key, identity.ErrUnreachable, 1)
		})
	}
}

// farAhead is after the clock of every world.
var farAhead = time.UnixMilli(4_000_000_000_000)

// signedAs returns the keys of server with the signature, which is good, called
// that of name.
func signedAs(name, server string, key signer) string {
	document := keyDocument(server, farAhead, key)
	return strings.Replace(document, fmt.Sprintf(`"signatures":{%q`, server), fmt.Sprintf(`"signatures":{%q`, name), 1)
}

// unsigned returns what the signatures of a key document cover.
func unsigned(document string) string {
	before, _, _ := strings.Cut(document, `,"signatures"`)
	return before + "}"
}

// resigned puts sig in the place of a key document's only signature.
func resigned(document, sig string) string {
	return document[:len(document)-len(sig)-len(`"}}}`)] + sig + `"}}}`
}

// many returns key and others, n in all.
func many(key signer, n int) []signer {
	keys := []signer{key}
	for i := range n - 1 {
		keys = append(keys, newSigner(fmt.Sprintf("n%d", i), byte(100+i)))
	}
	return keys
}
