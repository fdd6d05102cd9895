package httpapi_test

import (
	"encoding/json"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/identity/httpapi"
	"github.com/matrix-herald/herald/identity/signing"
	"github.com/matrix-herald/herald/threepid"
)

func bindBody(t testing.TB, c threepid.Challenge, mxid string) string {
	t.Helper()
	return encode(t, map[string]string{"sid": c.SID, "client_secret": c.ClientSecret, "mxid": mxid})
}

func query(c threepid.Challenge) string {
	return "?" + url.Values{"sid": {c.SID}, "client_secret": {c.ClientSecret}}.Encode()
}

// Conformance (sessions): `validated_at` is when it was validated, in milliseconds (≠ Sydent: before)
func TestValidatedAddressIsTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	token := w.register(t, alice)
	c := w.session(t, token, "Alice@Example.org", "secret")
	w.send(t, get(getValidated+query(c), token)).refused(t, 400, "M_SESSION_NOT_VALIDATED")
	w.clock.advance(time.Hour)
	at := w.clock.Now()
	w.prove(t, token, c)
	w.clock.advance(time.Hour)
	want := map[string]any{"medium": "email", "address": "alice@example.org", "validated_at": float64(at.UnixMilli())}
	if diff := cmp.Diff(want, w.send(t, get(getValidated+query(c), token)).object(t)); diff != "" {
		t.Error(diff)
	}
	other := c
	other.ClientSecret = "another"
	w.send(t, get(getValidated+query(other), token)).refused(t, 404, "M_NO_VALID_SESSION")
	w.clock.advance(24 * time.Hour)
	w.send(t, get(getValidated+query(c), token)).refused(t, 400, "M_SESSION_EXPIRED")
}

// Conformance (bind): the answer: canonical address, milliseconds, valid for a hundred years, signed | verified with the published key (also TestBindSignsWhatItBound, TestFromRegistrationToLogout)
// Conformance (bind): the answer has no `invites` (≠ Sydent), and nothing of one user shows in another's (also TestNothingOfOneUserIsToldToAnother)
// Conformance (callers): Synapse: bind with the user's access token, which needs `medium` and `address` in the answer
func TestBindAnswersASignedAssociation(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	token := w.register(t, alice)
	c := w.session(t, token, "Alice@Example.org", "secret")
	w.prove(t, token, c)
	res := w.send(t, post(bindPath, token, bindBody(t, c, alice)))
	now := float64(w.clock.Now().UnixMilli())
	want := map[string]any{
		"medium": "email", "address": "alice@example.org", "mxid": alice,
		"ts": now, "not_before": now, "not_after": now + 3153600000000,
	}
	got := res.object(t)
	delete(got, "signatures")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	// A client checks the signature with the key that we publish.
	var signed map[string]any
	dec := json.NewDecoder(strings.NewReader(string(res.body)))
	dec.UseNumber()
	check(t, dec.Decode(&signed))
	key, err := w.keys.Active(t.Context())
	check(t, err)
	public, err := signing.ParsePublicKey(w.send(t, get("/_matrix/identity/v2/pubkey/"+key.ID(), "")).text(t, "public_key"))
	check(t, err)
	check(t, signing.Verify(signed, serverName, key.ID(), public))
}

// Conformance (bind): another mxid than the account's | 403 `M_UNAUTHORIZED` (also TestBindsThatAreRefused)
func TestBindIsForTheAccountsOwnUser(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	token := w.register(t, alice)
	c := w.session(t, token, "alice@example.org", "secret")
	w.prove(t, token, c)
	w.send(t, post(bindPath, token, bindBody(t, c, bob))).refused(t, 403, "M_UNAUTHORIZED")
	if got := w.lookup(t, token, "none", "alice@example.org email"); len(got) != 0 {
		t.Errorf("bound: %v", got)
	}
}

func TestBindFindsEverySpelling(t *testing.T) {
	t.Parallel()
	w, token := bound(t, "STRAUß@Bücher.example")
	pepper := w.send(t, get(hashDetails, token)).text(t, "lookup_pepper")
	for _, spelling := range []string{
		"strauss@bücher.example",        // folded
		"strauss@xn--bcher-kva.example", // folded, as mail is sent
		"strauß@bücher.example",         // toLowerCase() of what was typed
	} {
		hash := threepid.LookupHash(spelling, threepid.MediumEmail, pepper)
		if diff := cmp.Diff(map[string]any{hash: alice}, w.lookup(t, token, "sha256", hash)); diff != "" {
			t.Errorf("%s: %s", spelling, diff)
		}
	}
	// The mail went to the mailbox that is bound, not to the one that was typed.
	if got := w.mail.last(t).To; got != "strauss@xn--bcher-kva.example" {
		t.Errorf("mail to %s", got)
	}
}

func unbindBody(t testing.TB, c threepid.Challenge, mxid, medium, address string) string {
	t.Helper()
	return encode(t, map[string]any{
		"sid": c.SID, "client_secret": c.ClientSecret, "mxid": mxid,
		"threepid": map[string]string{"medium": medium, "address": address},
	})
}

// Conformance (sessions): unbinding by session | by whoever has its sid and client_secret: who lost the account cannot have begun it with that
// Conformance (federation): unbinding with a session: no access token, both of `sid` and `client_secret`; not validated (≠ Sydent: hangs), expired (≠ Sydent: 500), another address, wrong secret (≠ Sydent: 401) | 403 `M_FORBIDDEN` (also TestUnbindNeedsAProofOfTheVeryAddress)
func TestUnbindBySession(t *testing.T) {
	t.Parallel()
	w, token := bound(t, "alice@example.org")
	isBound := func() bool { return len(w.lookup(t, token, "none", "alice@example.org email")) == 1 }
	open := w.session(t, token, "alice@example.org", "open")
	proven := w.session(t, token, "alice@example.org", "proven")
	w.prove(t, token, proven)
	other := w.session(t, token, "other@example.org", "other")
	w.prove(t, token, other)
	stranger := proven
	stranger.ClientSecret = "wrong"
	refusals := map[string]string{
		"a session that is not completed":  unbindBody(t, open, alice, "email", "alice@example.org"),
		"a session of another address":     unbindBody(t, other, alice, "email", "alice@example.org"),
		"another medium":                   unbindBody(t, proven, alice, "msisdn", "447700900001"),
		"an unknown medium":                unbindBody(t, proven, alice, "pigeon", "alice@example.org"),
		"what is no address":               unbindBody(t, proven, alice, "email", "alice"),
		"a wrong secret":                   unbindBody(t, stranger, alice, "email", "alice@example.org"),
		"a malformed sid":                  unbindBody(t, threepid.Challenge{SID: "?", ClientSecret: "proven"}, alice, "email", "alice@example.org"),
		"neither sid nor secret":           `{"mxid":"` + alice + `","threepid":{"medium":"email","address":"alice@example.org"}}`,
		"a sid without secret":             `{"sid":"` + proven.SID + `","mxid":"` + alice + `","threepid":{"medium":"email","address":"alice@example.org"}}`,
		"a secret without sid":             `{"client_secret":"proven","mxid":"` + alice + `","threepid":{"medium":"email","address":"alice@example.org"}}`,
		"sid and secret that are null":     `{"sid":null,"client_secret":null,"mxid":"` + alice + `","threepid":{"medium":"email","address":"alice@example.org"}}`,
		"a session nobody ever asked for":  unbindBody(t, threepid.Challenge{SID: "unknown", ClientSecret: "proven"}, alice, "email", "alice@example.org"),
		"a session of a mail, for a phone": unbindBody(t, proven, alice, "msisdn", "alice@example.org"),
	}
	for name, body := range refusals {
		t.Run(name+" is refused with 403", func(t *testing.T) {
			w.send(t, post(unbindPath, "", body)).refused(t, 403, "M_FORBIDDEN")
		})
	}
	if !isBound() {
		t.Fatal("a refused request unbound the address")
	}
	// Bound to somebody else: nothing to do, and no error.
	w.send(t, post(unbindPath, "", unbindBody(t, proven, bob, "email", "alice@example.org"))).object(t)
	if !isBound() {
		t.Fatal("one user unbound another's address")
	}
	for range 2 { // the second time nothing is bound
		w.send(t, post(unbindPath, "", unbindBody(t, proven, alice, "email", "ALICE@Example.org"))).object(t)
	}
	if isBound() {
		t.Error("still bound")
	}
	w.clock.advance(24 * time.Hour)
	w.send(t, post(unbindPath, "", unbindBody(t, proven, alice, "email", "alice@example.org"))).refused(t, 403, "M_FORBIDDEN")
}

// TestASessionIsOfWhoBeganIt has somebody ask for a mail to another's address, and
// another account use what came of it. By version 1 a session is of the homeservers
// at an address.
//
// Conformance (sessions): a session belongs to the Matrix ID that began it, with whichever of its tokens, by version 1 to the homeservers at that address: getValidated3pid and bind by another (≠ Sydent: taken), also before it is validated | 404 `M_NO_VALID_SESSION` (also TestContract)
func TestASessionIsOfWhoBeganIt(t *testing.T) {
	t.Parallel()
	w := limitedWorld(t, httpapi.Limits{}, func(s *settings) {
		s.api.V1 = everything()
		s.api.V1.Sources = nil
		for ip, servers := range map[string][]string{
			"192.0.2.1/32": {"example.org", "example.com"}, "192.0.2.2/32": {"example.com", "example.org"}, "192.0.2.3/32": {"example.net"},
		} {
			s.api.V1.Sources = append(s.api.V1.Sources, httpapi.Source{Network: netip.MustParsePrefix(ip), Servers: servers})
		}
	})
	const mallory, first, second, elsewhere = "@mallory:example.org", "192.0.2.1", "192.0.2.2", "192.0.2.3"
	its, again, another := w.register(t, mallory), w.register(t, mallory), w.register(t, bob)
	c := w.session(t, its, "alice@example.org", "secret")
	for _, proven := range []bool{false, true} {
		w.send(t, get(getValidated+query(c), another)).refused(t, 404, "M_NO_VALID_SESSION")
		w.send(t, post(bindPath, another, bindBody(t, c, bob))).refused(t, 404, "M_NO_VALID_SESSION")
		w.send(t, get(v1+"/3pid/getValidated3pid"+query(c), "").from(first)).refused(t, 404, "M_NO_VALID_SESSION")
		w.send(t, form("/3pid/bind", query(c)[1:]+"&mxid="+url.QueryEscape(mallory)).from(first)).refused(t, 404, "M_NO_VALID_SESSION")
		if !proven {
			w.prove(t, its, c)
		}
	}
	w.send(t, get(getValidated+query(c), again)).object(t)
	w.send(t, post(bindPath, again, bindBody(t, c, mallory))).object(t)

	w.send(t, form("/validate/email/requestToken", "client_secret=s&email=bob%40example.org&send_attempt=1").from(first)).object(t)
	c = w.mail.last(t)
	w.send(t, get(linkTo(emailSubmit, c), "")).isPage(t, 200, "Email address confirmed")
	w.send(t, get(v1+"/3pid/getValidated3pid"+query(c), "").from(elsewhere)).refused(t, 404, "M_NO_VALID_SESSION")
	w.send(t, form("/3pid/bind", query(c)[1:]+"&mxid=%40bob%3Aexample.net").from(elsewhere)).refused(t, 404, "M_NO_VALID_SESSION")
	w.send(t, post(bindPath, another, bindBody(t, c, bob))).refused(t, 404, "M_NO_VALID_SESSION")
	w.send(t, get(v1+"/3pid/getValidated3pid"+query(c), "").from(second)).object(t)
	w.send(t, form("/3pid/bind", query(c)[1:]+"&mxid="+url.QueryEscape(bob)).from(second)).object(t)
}
