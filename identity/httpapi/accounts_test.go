package httpapi_test

import (
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/identity/httpapi"
)

// Conformance (accounts): the answer | `token`, and `access_token` with the same value
// Conformance (accounts): logout without a body, and before the terms are accepted (≠ Sydent: 400 without a body and token) | 200 (also TestTermsGuardTheEndpointsOfMSC2140)
// Conformance (accounts): `bearer` in any case (≠ Sydent) | taken
// Conformance (callers): matrix-js-sdk: registers with the whole OpenID object and reads `access_token` or `token`; `send_attempt` as a string; POST submitToken for numbers; lower-cased lookups; GET and POST of terms (also TestSendAttempt, TestPhoneNumberIsValidated, TestEverySpellingIsFound, TestTermsAreAcceptedPieceByPiece)
func TestAccount(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	first := w.send(t, post("/_matrix/identity/v2/account/register", "", encode(t, map[string]string{
		"access_token": alice, "matrix_server_name": "example.org", // the least that some callers send
	})))
	token := first.text(t, "token")
	if got := first.text(t, "access_token"); got != token {
		t.Errorf("access_token %q, token %q", got, token)
	}
	second := w.register(t, alice)
	if second == token {
		t.Error("two registrations gave one token")
	}
	whoami := func(header string) answer {
		return w.send(t, request{method: "GET", path: "/_matrix/identity/v2/account", header: http.Header{"Authorization": {header}}})
	}
	for _, scheme := range []string{"Bearer ", "bearer ", "BEARER  "} {
		if got := whoami(scheme+token).text(t, "user_id"); got != alice {
			t.Errorf("%s: user_id %q", scheme, got)
		}
	}
	for _, header := range []string{token, "Basic " + token, "Bearer", "Bearer ", "Bearer x", "Bearer" + token} {
		whoami(header).refused(t, 401, "M_UNAUTHORIZED")
	}
	logout := func(token string) answer { return w.send(t, post("/_matrix/identity/v2/account/logout", token, "")) }
	if diff := cmp.Diff(map[string]any{}, logout(token).object(t)); diff != "" {
		t.Error(diff)
	}
	whoami("Bearer "+token).refused(t, 401, "M_UNAUTHORIZED")
	logout(token).refused(t, 401, "M_UNKNOWN_TOKEN")
	logout("").refused(t, 401, "M_UNAUTHORIZED")
	if got := whoami("Bearer "+second).text(t, "user_id"); got != alice {
		t.Errorf("after the other token's logout: user_id %q", got)
	}
}

// Conformance (accounts): a body with `matrix_server_name` and `access_token` alone | taken
// Conformance (callers): Dendrite: `expires_in` of its OpenID tokens is a time of day; it says nothing about how long ours work
func TestOpenIDTokenOfDendriteIsTaken(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	// expires_in is a time there and no duration.
	body := `{"access_token":"` + alice + `","token_type":"Bearer","matrix_server_name":"example.org","expires_in":1795297758}`
	w.send(t, post("/_matrix/identity/v2/account/register", "", body)).text(t, "token")
}

var policies = []identity.Policy{
	{ID: "terms", Version: "2.0", Languages: map[string]identity.PolicyText{
		"en": {Name: "Terms of Service", URL: "https://example.org/terms-2.0-en.html"},
		"fr": {Name: "Conditions d'utilisation", URL: "https://example.org/terms-2.0-fr.html"},
	}},
	{ID: "privacy", Version: "1.2", Languages: map[string]identity.PolicyText{
		"en": {Name: "Privacy Policy", URL: "https://example.org/privacy-1.2-en.html"},
	}},
}

// TestHomeserversThatAreAllowed takes a homeserver off the list while tokens of its
// users are about.
//
// Conformance (accounts): users of homeservers that are not allowed; tokens from when they were (≠ Sydent: 403 `M_UNAUTHORIZED`, when they register alone) | 403 `M_FORBIDDEN`, before the homeserver is asked, and at each request but logout (also TestHomeserversAreToldApart)
func TestHomeserversThatAreAllowed(t *testing.T) {
	t.Parallel()
	var opts httpapi.Options
	all := newWorld(t, func(s *settings) { s.options = &opts })
	allowed, stranger := all.register(t, alice), all.register(t, "@alice:example.com")
	all.send(t, get("/_matrix/identity/v2/account", stranger)).object(t)

	opts.Allow, opts.Registerer, opts.V1 = []string{"example.org", "example.net:8448"}, nil, everything()
	opts.V1.Sources[0].Servers = []string{"example.org", "example.com"}
	w := all.with(t, opts)

	register := func(user, homeserver string) answer {
		return w.send(t, post("/_matrix/identity/v2/account/register", "", encode(t, map[string]string{"access_token": user, "matrix_server_name": homeserver})))
	}
	register(alice, "example.org").object(t)
	register("@a:example.net:8448", "example.net:8448").object(t)
	for _, name := range []string{"example.com", "example.net", "Example.org", "org", "", "a/b"} {
		register("unreachable", name).refused(t, 403, "M_FORBIDDEN") // and is not asked
	}
	w.send(t, get("/_matrix/identity/v2/account", allowed)).object(t)
	for _, r := range []request{
		get("/_matrix/identity/v2/account", stranger), get(hashDetails, stranger), get(hashDetails+"?access_token="+stranger, ""),
		post(termsPath, stranger, "{}"), post(lookupPath, stranger, "{}"), post(emailRequest, stranger, "{}"), post(emailSubmit, stranger, "{}"),
		post(msisdnRequest, stranger, "{}"), post(msisdnSubmit, stranger, "{}"), get(getValidated, stranger), post(bindPath, stranger, "{}"),
		post(storeInvitePath, stranger, "{}"), post(signPath, stranger, "{}"), {method: "DELETE", path: invitesPath + "x", token: stranger},
	} {
		w.send(t, r).refused(t, 403, "M_FORBIDDEN")
	}
	// By version 1 a source speaks for those alone that are allowed.
	const bind = "sid=1&client_secret=s&mxid="
	w.send(t, form("/3pid/bind", bind+"@alice:example.com")).refused(t, 403, "M_FORBIDDEN")
	w.send(t, form("/3pid/bind", bind+"@alice:example.org")).refused(t, 404, "M_NO_VALID_SESSION")
	// What a token cannot be used for any more it can still be given up for.
	w.send(t, post("/_matrix/identity/v2/account/logout", stranger, "")).object(t)
	all.send(t, get("/_matrix/identity/v2/account", stranger)).refused(t, 401, "M_UNAUTHORIZED")
}

// Conformance (terms): no terms | `{"policies":{}}`, nobody is asked (also TestWithoutPoliciesEverybodyHasAccepted)
func TestTermsAreListed(t *testing.T) {
	t.Parallel()
	none := newWorld(t, nil).send(t, get(termsPath, "")).object(t)
	if diff := cmp.Diff(map[string]any{"policies": map[string]any{}}, none); diff != "" {
		t.Errorf("without terms: %s", diff)
	}
	w := newWorld(t, func(s *settings) { s.policies = policies })
	want := map[string]any{"policies": map[string]any{
		"terms": map[string]any{
			"version": "2.0",
			"en":      map[string]any{"name": "Terms of Service", "url": "https://example.org/terms-2.0-en.html"},
			"fr":      map[string]any{"name": "Conditions d'utilisation", "url": "https://example.org/terms-2.0-fr.html"},
		},
		"privacy": map[string]any{
			"version": "1.2",
			"en":      map[string]any{"name": "Privacy Policy", "url": "https://example.org/privacy-1.2-en.html"},
		},
	}}
	if diff := cmp.Diff(want, w.send(t, get(termsPath, "")).object(t)); diff != "" {
		t.Error(diff)
	}
}

// Conformance (terms): unknown URLs (≠ Sydent: 400) | ignored, 200
func TestTermsAreAcceptedPieceByPiece(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(s *settings) { s.policies = policies })
	token, other := w.register(t, alice), w.register(t, bob)
	whoami := func(token string) answer { return w.send(t, get("/_matrix/identity/v2/account", token)) }
	accept := func(urls ...string) {
		t.Helper()
		w.send(t, post(termsPath, token, encode(t, map[string]any{"user_accepts": append([]string{}, urls...)}))).object(t)
	}
	whoami(token).refused(t, 403, "M_TERMS_NOT_SIGNED")
	accept()
	accept("https://example.org/of-somebody-else.html")
	accept("https://example.org/terms-2.0-en.html", "https://example.org/terms-2.0-fr.html")
	whoami(token).refused(t, 403, "M_TERMS_NOT_SIGNED") // one policy in two languages is one policy
	accept("https://example.org/privacy-1.2-en.html")
	whoami(token).object(t)
	whoami(w.register(t, alice)).object(t) // the user accepted, not the token
	whoami(other).refused(t, 403, "M_TERMS_NOT_SIGNED")
}

// Conformance (endpoints): terms not accepted | 403 `M_TERMS_NOT_SIGNED`
// Conformance (terms): which endpoints are guarded | those of MSC2140
func TestTermsGuardTheEndpointsOfMSC2140(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(s *settings) { s.policies = policies })
	token := w.register(t, alice)
	guarded := []request{
		get("/_matrix/identity/v2/account", token),
		get(hashDetails, token),
		get(hashDetails+"?access_token="+token, ""),
		post(lookupPath, token, `{}`),
		post(emailRequest, token, `{}`),
		post(msisdnRequest, token, `{}`),
		post(emailSubmit, token, `{}`),
		post(msisdnSubmit, token, `{}`),
		get(getValidated, token),
		post(bindPath, token, `{}`),
		post(storeInvitePath, token, `{}`),
		post(signPath, token, `{}`),
	}
	for _, r := range guarded {
		t.Run(r.method+" "+r.path+" wants them accepted", func(t *testing.T) {
			t.Parallel()
			w.send(t, r).refused(t, 403, "M_TERMS_NOT_SIGNED")
		})
	}
	free := []struct {
		request
		status int // with parameters missing
	}{
		{get("/_matrix/identity/versions", ""), 200},
		{get("/_matrix/identity/v2", ""), 200},
		{get(termsPath, ""), 200},
		{post(termsPath, token, `{}`), 400},
		{post("/_matrix/identity/v2/account/register", "", `{}`), 400},
		{post("/_matrix/identity/v2/account/logout", w.register(t, bob), ""), 200},
		{get("/_matrix/identity/v2/pubkey/ed25519:unknown", ""), 404},
		{get("/_matrix/identity/v2/pubkey/isvalid", ""), 400},
		{get(emailSubmit, ""), 400},
		{get(msisdnSubmit, ""), 400},
		{get(ephemeralPath, ""), 400},
		{post(signPath+"?token=x&private_key=x", "", ""), 400},
		{get(invitePath, ""), 400},
		{request{method: "DELETE", path: invitesPath + "x", token: token}, 404},
		{post(unbindPath, "", `{}`), 400},
	}
	for _, f := range free {
		t.Run(f.method+" "+f.path+" does not", func(t *testing.T) {
			t.Parallel()
			if a := w.send(t, f.request); a.status != f.status {
				t.Errorf("%d %s, want %d", a.status, a.body, f.status)
			}
		})
	}
}
