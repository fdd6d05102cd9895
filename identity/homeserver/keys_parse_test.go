package homeserver_test

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/identity/homeserver"
	"github.com/matrix-herald/herald/identity/signing"
)

func ids(keys []signer) []string {
	var ids []string
	for _, k := range keys {
		ids = append(ids, k.id)
	}
	return slices.Sorted(slices.Values(ids))
}

func TestParseServerKeys(t *testing.T) {
	t.Parallel()
	now := time.UnixMilli(1_800_000_000_000)
	one, two := newSigner("1", 1), newSigner("2", 2)
	long := newSigner(strings.Repeat("a", 250), 3)
	document := func(until, keys string, signers ...signer) string {
		canonical := fmt.Sprintf(`{"server_name":"a.example","valid_until_ts":%s,"verify_keys":{%s}}`, until, keys)
		var signatures []string
		for _, s := range signers {
			signatures = append(signatures, fmt.Sprintf(`%q:%q`, s.id, s.sign(canonical)))
		}
		return strings.TrimSuffix(canonical, "}") + `,"signatures":{"a.example":{` + strings.Join(signatures, ",") + `},"notary.example":{"ed25519:1":"x"}},"unsigned":{}}`
	}
	published := func(s signer) string { return fmt.Sprintf(`%q:{"key":%q}`, s.id, s.public()) }
	const until = "1800000060000"
	tests := map[string]struct {
		document string
		want     []string
		until    time.Time
	}{
		"two keys":                         {document(until, published(one)+","+published(two), one, two), []string{"ed25519:1", "ed25519:2"}, now.Add(time.Minute)},
		"the one of two that signed":       {document(until, published(one)+","+published(two), two), []string{"ed25519:2"}, now.Add(time.Minute)},
		"an algorithm of the future":       {document(until, published(one)+`,"falcon:1":{"key":"x"}`, one), []string{"ed25519:1"}, now.Add(time.Minute)},
		"members of the future":            {document(until, `"ed25519:1":{"key":"`+one.public()+`","uses":["sign"]}`, one), []string{"ed25519:1"}, now.Add(time.Minute)},
		"a key with an endless name":       {document(until, published(one)+","+published(long), one, long), []string{"ed25519:1"}, now.Add(time.Minute)},
		"32 keys":                          {keyDocument("a.example", now.Add(time.Minute), many(one, 32)...), ids(many(one, 32)), now.Add(time.Minute)},
		"a time in the past":               {document("1", published(one), one), []string{"ed25519:1"}, time.UnixMilli(1)},
		"a time before all others":         {document("-9007199254740991", published(one), one), []string{"ed25519:1"}, time.UnixMilli(-9007199254740991)},
		"a time after all others":          {document("9007199254740991", published(one), one), []string{"ed25519:1"}, now.Add(7 * 24 * time.Hour)},
		"a time that no signature covers":  {document("9223372036854775807", published(one), one), nil, time.Time{}},
		"a time that is not a whole one":   {document("1.5", published(one), one), nil, time.Time{}},
		"the example of the specification": {strings.Replace(specKeys, "example.org", "a.example", 2), nil, time.Time{}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			keys, until, err := homeserver.ParseServerKeys([]byte(tc.document), parse(t, "a.example"), now)
			if (err != nil) != tc.until.IsZero() || !until.Equal(tc.until) {
				t.Fatalf("until %v, %v; want %v", until, err, tc.until)
			}
			if diff := cmp.Diff(tc.want, slices.Sorted(maps.Keys(keys))); diff != "" {
				t.Errorf("keys (-want +got):\n%s", diff)
			}
		})
	}
}

// specKeys is the specification's example, whose signature is none.
const specKeys = `{"server_name":"example.org","verify_keys":{"ed25519:abc123":{"key":"VGhpcyBzaG91bGQgYmUgYSByZWFsIGVkMjU1MTkgcGF5bG9hZA"}},
"old_verify_keys":{"ed25519:0ldk3y":{"expired_ts":1532645052628,"key":"VGhpcyBzaG91bGQgYmUgeW91ciBvbGQga2V5J3MgZWQyNTUxOSBwYXlsb2FkLg"}},
"signatures":{"example.org":{"ed25519:auto2":"VGhpcyBzaG91bGQgYWN0dWFsbHkgYmUgYSBzaWduYXR1cmU"}},"valid_until_ts":1652262000000}`

// The fuzzer cannot sign, so a document with the key that it yields must say
// what was signed, however it is written.
func FuzzParseServerKeys(f *testing.F) {
	key := newSigner("1", 1)
	now := time.UnixMilli(1_800_000_000_000)
	good := keyDocument("a.example", now.Add(time.Hour), key)
	f.Add([]byte(good))
	f.Add([]byte(strings.Replace(good, `{"old`, `{ "unsigned" : {"x":1.5}, "old`, 1)))
	f.Add([]byte(specKeys))
	f.Add([]byte(`{"server_name":"a.example","valid_until_ts":1e3,"verify_keys":{"ed25519:1":{"key":""}},"signatures":{"a.example":1}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		keys, until, err := homeserver.ParseServerKeys(body, parse(t, "a.example"), now)
		if err != nil {
			if keys != nil || !until.IsZero() {
				t.Errorf("an error and %v", keys)
			}
			return
		}
		if len(keys) == 0 || until.After(now.Add(7*24*time.Hour)) {
			t.Errorf("%d keys until %v", len(keys), until)
		}
		if !key.private.Public().(ed25519.PublicKey).Equal(keys[key.id]) {
			return
		}
		var object map[string]json.RawMessage
		if err := json.Unmarshal(body, &object); err != nil {
			t.Fatal(err)
		}
		delete(object, "signatures")
		delete(object, "unsigned")
		bare, err := json.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		canonical, err := signing.CanonicalJSON(bare)
		if err != nil || string(canonical) != unsigned(good) {
			t.Errorf("%s passes for what the key signed, %v", body, err)
		}
	})
}
