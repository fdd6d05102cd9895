package httpapi_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/threepid"
)

// Conformance (endpoints): `/versions`, `/v2` | v1.1 to v1.19; `{}`
func TestVersionsAndPing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	var want []any
	for minor := 1; minor <= 19; minor++ {
		want = append(want, fmt.Sprintf("v1.%d", minor))
	}
	if diff := cmp.Diff(map[string]any{"versions": want}, w.send(t, get("/_matrix/identity/versions", "")).object(t)); diff != "" {
		t.Error(diff)
	}
	if got := string(w.send(t, get("/_matrix/identity/v2", "")).body); got != "{}" {
		t.Errorf("GET /v2: %s", got)
	}
}

// Conformance (endpoints): `/pubkey/{keyId}` for every key there is (≠ Sydent: `ed25519:0` alone), others | 404 `M_NOT_FOUND` (also TestRefusals)
func TestKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	key, err := w.keys.Active(t.Context())
	check(t, err)
	for _, id := range []string{key.ID(), url.QueryEscape(key.ID())} { // "ed25519%3A…"
		got := w.send(t, get("/_matrix/identity/v2/pubkey/"+id, "")).text(t, "public_key")
		if got != key.PublicBase64() {
			t.Errorf("%s: %q, want %q", id, got, key.PublicBase64())
		}
	}
	w.send(t, get("/_matrix/identity/v2/pubkey/ed25519:other", "")).refused(t, 404, "M_NOT_FOUND")

	isValid := func(query string) any {
		t.Helper()
		return w.send(t, get("/_matrix/identity/v2/pubkey/isvalid?public_key="+query, "")).object(t)["valid"]
	}
	urlSafe := strings.NewReplacer("+", "-", "/", "_").Replace(key.PublicBase64())
	for _, public := range []string{
		url.QueryEscape(key.PublicBase64()), url.QueryEscape(key.PublicBase64() + "="), urlSafe,
		key.PublicBase64(), // a "+" nobody escaped arrives as a space
	} {
		if isValid(public) != true {
			t.Errorf("%s is not valid", public)
		}
	}
	for _, public := range []string{"", "x", "VXuGitF39UH5iRfvbIknlvlAVKgD1BsLDMvBf0pmp7c"} {
		if isValid(public) != false {
			t.Errorf("%q is valid", public)
		}
	}
	w.send(t, get("/_matrix/identity/v2/pubkey/isvalid", "")).refused(t, 400, "M_MISSING_PARAMS")
}

// Conformance (lookup): the pepper is `[a-zA-Z0-9]+`, and checked for both algorithms (also TestLookupsThatAreRefused)
func TestHashDetails(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	token := w.register(t, alice)
	details := w.send(t, get(hashDetails, token))
	if pepper := details.text(t, "lookup_pepper"); !regexp.MustCompile(`^[a-zA-Z0-9]+$`).MatchString(pepper) {
		t.Errorf("lookup_pepper %q", pepper)
	}
	if diff := cmp.Diff([]any{"sha256", "none"}, details.object(t)["algorithms"]); diff != "" {
		t.Error(diff)
	}
	// As Synapse asks: the token in the query and no header.
	fromQuery := w.send(t, get(hashDetails+"?access_token="+token, ""))
	if diff := cmp.Diff(details.object(t), fromQuery.object(t)); diff != "" {
		t.Error(diff)
	}
	// A header counts before the query.
	w.send(t, get(hashDetails+"?access_token="+token, "other")).refused(t, 401, "M_UNAUTHORIZED")

	hashed := newWorld(t, func(s *settings) { s.hashOnly = true })
	got := hashed.send(t, get(hashDetails, hashed.register(t, alice))).object(t)["algorithms"]
	if diff := cmp.Diff([]any{"sha256"}, got); diff != "" {
		t.Errorf("without plain lookups: %s", diff)
	}
}

// Conformance (endpoints): an access token in the query, which Synapse still sends | taken for `GET /hash_details` only
// Conformance (callers): Synapse: `hash_details?access_token=`, then lookup with the header
func TestQueryTokenIsTakenForHashDetailsOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	query := "?access_token=" + w.register(t, alice)
	for _, r := range []request{
		get("/_matrix/identity/v2/account"+query, ""),
		get(getValidated+query, ""),
		post(termsPath+query, "", `{}`),
		post("/_matrix/identity/v2/account/logout"+query, "", ``),
		post(lookupPath+query, "", `{}`),
		post(emailRequest+query, "", `{}`),
		post(msisdnRequest+query, "", `{}`),
		post(emailSubmit+query, "", `{}`),
		post(msisdnSubmit+query, "", `{}`),
		post(bindPath+query, "", `{}`),
	} {
		w.send(t, r).refused(t, 401, "M_UNAUTHORIZED")
	}
}

// bound makes a world in which alice has bound an address.
func bound(t *testing.T, email string) (w *world, token string) {
	t.Helper()
	w = newWorld(t, nil)
	token = w.register(t, alice)
	c := w.session(t, token, email, "secret")
	w.prove(t, token, c)
	w.send(t, post(bindPath, token, bindBody(t, c, alice))).object(t)
	return w, token
}

// Conformance (security): the log says whose homeserver's user asks, and how many addresses were looked up and found
func TestTheLogSaysWhoseUserAsksAndHowMuch(t *testing.T) {
	t.Parallel()
	w, token := bound(t, "alice@example.org")
	w.logged(t, "route=/_matrix/identity/v2/account/register", "status=200", "homeserver=example.org")
	w.logged(t, "route="+bindPath, "status=200", "homeserver=example.org")
	w.lookup(t, token, "none", "alice@example.org email", "bob@example.org email", "alice@example.org email")
	w.logged(t, "route="+lookupPath, "homeserver=example.org", "addresses=3", "found=1")
	unbind := post(unbindPath, "", encode(t, map[string]any{"mxid": alice, "threepid": map[string]string{"medium": "email", "address": "alice@example.org"}}))
	unbind.header = http.Header{"Authorization": {"signed example.org"}}
	w.send(t, unbind).object(t)
	w.logged(t, "route="+unbindPath, "status=200", "homeserver=example.org")
	for _, name := range []string{"carol@example.net", strings.Repeat("x", 256), "away.example.org"} {
		w.send(t, post(registerPath, "", encode(t, map[string]string{"access_token": "unreachable", "matrix_server_name": name}))).refused(t, 502, "M_UNKNOWN")
	}
	w.logged(t, "status=502", "homeserver=away.example.org")
	if log := w.log.String(); strings.Contains(log, "carol") || strings.Contains(log, "xxx") {
		t.Errorf("the log has what is no server name:\n%s", log)
	}
}

func (w *world) lookup(t testing.TB, token, algorithm string, addresses ...string) map[string]any {
	t.Helper()
	pepper := w.send(t, get(hashDetails, token)).text(t, "lookup_pepper")
	body := encode(t, map[string]any{"algorithm": algorithm, "pepper": pepper, "addresses": addresses})
	mappings, ok := w.send(t, post(lookupPath, token, body)).object(t)["mappings"].(map[string]any)
	if !ok {
		t.Fatal("mappings is no object")
	}
	return mappings
}

// Conformance (lookup): an empty list, something twice, what is no hash or no pair (≠ Sydent: 400) | matches nothing (also TestHashesThatAreNoneMatchNothing)
func TestLookup(t *testing.T) {
	t.Parallel()
	w, token := bound(t, "Alice@Example.com")
	pepper := w.send(t, get(hashDetails, token)).text(t, "lookup_pepper")
	hash := threepid.LookupHash("alice@example.com", threepid.MediumEmail, pepper)
	tests := map[string]struct {
		algorithm string
		addresses []string
		want      map[string]any
	}{
		"a hash":                      {"sha256", []string{hash}, map[string]any{hash: alice}},
		"a hash twice and an unknown": {"sha256", []string{hash, hash, "4kenr7N9drpCJ4AfalmlGQVsOn3o2RHjkADUpXJWZUc"}, map[string]any{hash: alice}},
		"a hash that is none":         {"sha256", []string{"alice@example.com email", "", "\x00"}, map[string]any{}},
		"no address":                  {"sha256", []string{}, map[string]any{}},
		"a plain address":             {"none", []string{"alice@example.com email"}, map[string]any{"alice@example.com email": alice}},
		// matrix-js-sdk throws at a key that it did not send.
		"a plain address as it was asked for": {"none", []string{"ALICE@example.COM email"}, map[string]any{"ALICE@example.COM email": alice}},
		"what is no address and medium":       {"none", []string{"alice@example.com", "email alice@example.com", "alice@example.com msisdn", "alice@example.com  email"}, map[string]any{}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.want, w.lookup(t, token, tt.algorithm, tt.addresses...)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Conformance (lookup): 10,000 addresses; more | 200; 413 `M_TOO_LARGE` (≠ Sydent: 400) (also TestLookupsThatAreRefused)
func TestLookupOfTenThousandHashes(t *testing.T) {
	t.Parallel()
	w, token := bound(t, "alice@example.com")
	pepper := w.send(t, get(hashDetails, token)).text(t, "lookup_pepper")
	hashes := make([]string, 10_000)
	for i := range hashes {
		hashes[i] = threepid.LookupHash(fmt.Sprintf("%d@example.com", i), threepid.MediumEmail, pepper)
	}
	hashes[9_999] = threepid.LookupHash("alice@example.com", threepid.MediumEmail, pepper)
	if diff := cmp.Diff(map[string]any{hashes[9_999]: alice}, w.lookup(t, token, "sha256", hashes...)); diff != "" {
		t.Error(diff)
	}
	tooMany := slices.Concat(hashes, hashes[:1])
	body := encode(t, map[string]any{"algorithm": "sha256", "pepper": pepper, "addresses": tooMany})
	w.send(t, post(lookupPath, token, body)).refused(t, 413, "M_TOO_LARGE")
}

// TestALookupIsRefusedWhileItArrives sends nothing after the first address that is
// too many.
//
// Conformance (attacks): many large lookups at once | refused at the first address that is too many, before more is read (also TestAListIsRefusedWhileItArrives)
func TestALookupIsRefusedWhileItArrives(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	token := w.register(t, alice)
	body := io.MultiReader(strings.NewReader(`{"addresses":[`+strings.Repeat(`"",`, identity.MaxLookup+1)), iotest.ErrReader(errors.New("read on")))
	res := httptest.NewRecorder() // a server would read on before it answers, for a while
	req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, lookupPath, body)
	req.Header.Set("Authorization", "Bearer "+token)
	w.handler.ServeHTTP(res, req)
	if res.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("answered %d", res.Code)
	}
}

// Conformance (callers): Element Android: takes the pepper from `M_INVALID_PEPPER`, and needs the text of an error (also TestRefusals)
func TestRotatedPepperIsTold(t *testing.T) {
	t.Parallel()
	w, token := bound(t, "alice@example.com")
	for _, algorithm := range []string{"sha256", "none"} {
		body := encode(t, map[string]any{"algorithm": algorithm, "pepper": "matrixrocks", "addresses": []string{}})
		refusal := w.send(t, post(lookupPath, token, body)).refused(t, 400, "M_INVALID_PEPPER")
		if refusal["algorithm"] != algorithm || refusal["lookup_pepper"] != w.send(t, get(hashDetails, token)).text(t, "lookup_pepper") {
			t.Errorf("%s: %v", algorithm, refusal)
		}
	}
	check(t, w.peppers.Rotate(t.Context(), func(string, int, int) {}))
	if diff := cmp.Diff(map[string]any{"alice@example.com email": alice}, w.lookup(t, token, "none", "alice@example.com email")); diff != "" {
		t.Error(diff)
	}
}
