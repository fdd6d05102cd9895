package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/identity/storetest"
	"github.com/matrix-herald/herald/internal/harness"
)

// TestHomeserversCanCheckWhatTheyAreTold takes an invite from a user of one
// homeserver to a user of another, and checks every signature and key on the way
// as those homeservers do, with none of the service's code.
func TestHomeserversCanCheckWhatTheyAreTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t, storetest.SQLite(t))
	peers, environ := newPeers(t, 2)
	one, two := peers[0], peers[1]
	w.startWith(t, environ)
	const address, room = "o'bob&co@example.com", "!tea:example.org"
	a, b := one.user("a"), two.user("b")
	stored := registerAt(t, w.front.URL, one, "a").invite(t, a, "bob@example.com", room)
	keys := stored["public_keys"].([]any)
	publicKey := func(i int) string { return keys[i].(map[string]any)["public_key"].(string) }
	valid := []string{`{"valid":true}`, `{"valid":true}`}
	if diff := cmp.Diff(valid, keysValid(t, stored)); diff != "" {
		t.Errorf("before the binding: %s", diff)
	}
	for _, k := range keys {
		if u := k.(map[string]any)["key_validity_url"].(string); !strings.HasPrefix(u, w.front.URL+"/_matrix/identity/v2/") {
			t.Errorf("a room checks the keys at %s", u)
		}
	}

	// The invitee, with the key in the mail.
	mailed := w.mailedTo(t, "bob@example.com", "/invite").Query()
	if mailed.Get("token") != stored["token"] {
		t.Errorf("mailed token %s, stored %s", mailed.Get("token"), stored["token"])
	}
	bob := registerAt(t, w.front.URL, two, "b")
	for name, accepted := range map[string]map[string]any{
		"by body": bob.post(t, "/sign-ed25519", `{"mxid":%q,"token":%q,"private_key":%q}`, b, stored["token"], mailed.Get("private_key")),
		"by query": client{base: w.front.URL}.post(t, "/sign-ed25519?"+url.Values{
			"mxid": {b}, "token": {stored["token"].(string)}, "private_key": {mailed.Get("private_key")},
		}.Encode(), ""),
	} {
		signature := accepted["signatures"].(map[string]any)[serverName].(map[string]any)["ed25519:0"].(string)
		delete(accepted, "signatures")
		checkSignature(t, publicKey(1), accepted, signature)
		if diff := cmp.Diff(map[string]any{"mxid": b, "sender": a, "token": stored["token"]}, accepted); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}

	w.bind(t, bob, b, "bob@example.com")
	heard := two.awaitTold(t, 1)[0]
	if auth := heard.header.Values("Authorization"); auth != nil || heard.header.Get("Content-Type") != "application/json" {
		t.Errorf("headers %v", heard.header)
	}
	body, _ := signedBy(t, w.front.URL, heard.object)
	invite := body["invites"].([]any)[0].(map[string]any)
	signed, signer := signedBy(t, w.front.URL, invite["signed"].(map[string]any))
	if signer != publicKey(0) || publicKey(0) != stored["public_key"] {
		t.Errorf("the invite is signed with %s, and the room knows %s", signer, publicKey(0))
	}
	if diff := cmp.Diff(map[string]any{"mxid": b, "token": stored["token"]}, signed); diff != "" {
		t.Errorf("signed: %s", diff)
	}
	delete(invite, "signed")
	for _, name := range []string{"ts", "not_before", "not_after"} {
		if n, is := body[name].(json.Number); !is || strings.ContainsAny(n.String(), ".eE-") {
			t.Errorf("%s: %v", name, body[name])
		}
		delete(body, name)
	}
	if diff := cmp.Diff(map[string]any{
		"medium": "email", "address": "bob@example.com", "mxid": b, "invites": []any{map[string]any{
			"medium": "email", "address": "bob@example.com", "mxid": b, "room_id": room, "sender": a, "token": stored["token"],
		}},
	}, body); diff != "" {
		t.Errorf("told: %s", diff)
	}
	// The homeserver asks for the keys when it lets the invitee in.
	if diff := cmp.Diff(valid, keysValid(t, stored)); diff != "" {
		t.Errorf("after the binding: %s", diff)
	}

	// Without an invite, and an address that tests every rule of the signature.
	w.bind(t, bob, b, address)
	body, _ = signedBy(t, w.front.URL, two.awaitTold(t, 2)[1].object)
	if body["address"] != address || len(body["invites"].([]any)) != 0 {
		t.Errorf("without an invite: %v", body)
	}
	if all := one.allTold(); len(all) != 0 {
		t.Errorf("the inviter's homeserver was told %v", all)
	}
}

// TestNoInviteIsStrandedByAnyReplica has a hundred pairs of somebody who invites
// an address and its owner who binds it at the same moment, each at another of two
// replicas; sixteen pairs at once, because a write waits for others for seconds
// only. Each invite is either refused, because the address is bound, or told to the
// homeserver of the owner, once.
func TestNoInviteIsStrandedByAnyReplica(t *testing.T) {
	t.Parallel()
	storetest.NeedServer(t)
	const pairs = 100
	database := storetest.PostgreSQL(t)
	w := newWorld(t, database)
	peers, environ := newPeers(t, 2)
	one, two := peers[0], peers[1]
	environ = append(environ, fmt.Sprintf("IDENTITY_EMAIL_MAX_SENDING=%d", pairs))
	var replicas [2]*harness.Process
	var starting sync.WaitGroup
	for i := range replicas {
		starting.Go(func() { replicas[i] = w.startWith(t, environ) })
	}
	starting.Wait()
	if t.Failed() {
		t.FailNow()
	}
	// Each of ten users of either homeserver has a tenth of the pairs; one alone
	// would soon be at their limits.
	const users = 10
	var inviters, owners [users]client
	for i := range users {
		inviters[i] = registerAt(t, replicas[0].API, one, fmt.Sprint("a", i))
		owners[i] = registerAt(t, replicas[1].API, two, fmt.Sprint("b", i))
	}
	inviter := func(i int) string { return one.user(fmt.Sprint("a", i%users)) }
	owner := func(i int) string { return two.user(fmt.Sprint("b", i%users)) }
	address := func(i int) string { return fmt.Sprintf("b%d@example.com", i) }
	sids := make([]string, pairs)
	inParallel(pairs, func(i int) bool {
		sids[i] = w.prove(t, owners[i%users], address(i))
		return !t.Failed()
	})
	if t.Failed() {
		t.FailNow()
	}

	var mu sync.Mutex
	invited := make(map[string]string) // the address of each token
	refused := 0
	inParallel(pairs, func(i int) bool {
		var racing sync.WaitGroup
		racing.Go(func() {
			c := client{replicas[i%2].API, inviters[i%users].token}
			status, answer := c.ask(t, http.MethodPost, "/store-invite", fmt.Sprintf(
				`{"medium":"email","address":%q,"room_id":"!room:example.org","sender":%q}`, address(i), inviter(i)))
			mu.Lock()
			defer mu.Unlock()
			switch {
			case status == http.StatusOK:
				invited[answer["token"].(string)] = address(i)
			case answer["errcode"] == "M_THREEPID_IN_USE" && answer["mxid"] == owner(i):
				refused++
			default:
				t.Errorf("store-invite: %d %v", status, answer)
			}
		})
		racing.Go(func() {
			c := client{replicas[1-i%2].API, owners[i%users].token}
			status, answer := c.ask(t, http.MethodPost, "/3pid/bind", fmt.Sprintf(
				`{"sid":%q,"client_secret":"monkeys","mxid":%q}`, sids[i], owner(i)))
			if status != http.StatusOK {
				t.Errorf("bind: %d %v", status, answer)
			}
		})
		racing.Wait()
		return true
	})
	t.Logf("%d invites were stored and %d refused", len(invited), refused)

	for _, heard := range two.awaitTold(t, pairs) { // every binding, with its invite or without
		for _, invite := range heard.object["invites"].([]any) {
			invite := invite.(map[string]any)
			token := invite["token"].(string)
			if invited[token] != invite["address"] {
				t.Errorf("told of an invite that was not stored, or twice: %v", invite)
			}
			delete(invited, token)
		}
	}
	if len(invited) != 0 {
		t.Errorf("%d invites are stranded", len(invited))
	}
	db := direct(t, database)
	eventually(t, "all that was told is written down", func() bool { return count(t, db, `deliveries`) == 0 })
	if all := two.allTold(); len(all) != pairs {
		t.Errorf("told %d things, want %d", len(all), pairs)
	}
	if n := count(t, db, `invites WHERE used_ms IS NULL`); n != 0 {
		t.Errorf("%d invites are not used", n)
	}
}
