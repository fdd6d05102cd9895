package signing_test

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"maps"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/identity/signing"
)

// The key of the specification's cryptographic test vectors.
const (
	vectorSeed   = "YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1"
	vectorServer = "domain"
	vectorKeyID  = "ed25519:1"
)

func vectorKey(t *testing.T) signing.Key {
	t.Helper()
	key, err := signing.NewKey(vectorKeyID, vectorSeed)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func parse(t *testing.T, s string) map[string]any {
	t.Helper()
	o, err := signing.ParseObject([]byte(s))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// Appendices, "Cryptographic Test Vectors". The two events are given as they
// are signed: redacted and with their content hash.
//
// Conformance (canonical forms): the specification's vectors; no HTML escapes, U+2028 as it is, order by code point (also TestCanonicalJSON)
func TestSignTheVectorsOfTheSpecification(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ in, signature string }{
		"an empty object": {
			`{}`, "K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ",
		},
		"an object with data": {
			`{"one": 1, "two": "Two"}`, "KqmLSbO39/Bzb0QIYE82zqLwsA+PDzYIpIRA2sRQ4sL53+sN6/fpNSoqE7BP7vBZhG6kYdD13EIMJpvhJI+6Bw",
		},
		"a minimal event": {
			`{"room_id": "!x:domain", "sender": "@a:domain", "origin": "domain", "origin_server_ts": 1000000, "signatures": {},
			  "hashes": {"sha256": "5jM4wQpv6lnBo7CLIghJuHdW+s2CMBJPUOGOC89ncos"}, "type": "X", "content": {}, "prev_events": [],
			  "auth_events": [], "depth": 3, "unsigned": {"age_ts": 1000000}}`,
			"KxwGjPSDEtvnFgU00fwFz+l6d2pJM6XBIaMEn81SXPTRl16AqLAYqfIReFGZlHi5KLjAWbOoMszkwsQma+lYAg",
		},
		"a redacted message": {
			`{"content": {}, "event_id": "$0:domain", "hashes": {"sha256": "onLKD1bGljeBWQhWZ1kaP9SorVmRQNdN5aM2JYU2n/g"},
			  "origin": "domain", "origin_server_ts": 1000000, "type": "m.room.message", "room_id": "!r:domain", "sender": "@u:domain",
			  "signatures": {}, "unsigned": {"age_ts": 1000000}}`,
			"Wm+VzmOUOz08Ds+0NTWb1d4CZrVsJSikkeRxh6aCcUwu6pNC78FunoD7KNWzqFn241eYHYMGCA5McEiVPdhzBA",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, want := parse(t, tc.in), parse(t, tc.in)
			if err := signing.Sign(got, vectorServer, vectorKey(t)); err != nil {
				t.Fatal(err)
			}
			want["signatures"] = map[string]any{vectorServer: map[string]any{vectorKeyID: tc.signature}}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			if err := signing.Verify(got, vectorServer, vectorKeyID, vectorKey(t).Public()); err != nil {
				t.Errorf("verify: %v", err)
			}
		})
	}
}

func TestSignKeepsOtherSignatures(t *testing.T) {
	t.Parallel()
	first, second := vectorKey(t), generate(t, "2")
	obj := parse(t, `{"a":1,"unsigned":{"b":1.5}}`)
	for _, s := range []struct {
		server string
		key    signing.Key
	}{{"one.example", first}, {"one.example", second}, {"two.example", first}, {"two.example", first}} {
		if err := signing.Sign(obj, s.server, s.key); err != nil {
			t.Fatal(err)
		}
	}
	obj["unsigned"] = "other"
	for server, keys := range map[string][]signing.Key{"one.example": {first, second}, "two.example": {first}} {
		for _, key := range keys {
			if err := signing.Verify(obj, server, key.ID(), key.Public()); err != nil {
				t.Errorf("%s with %s: %v", server, key.ID(), err)
			}
		}
	}
	if n := len(obj["signatures"].(map[string]any)); n != 2 {
		t.Errorf("%d servers have signed", n)
	}
}

func TestSignLeavesAnObjectThatSharesSignaturesAlone(t *testing.T) {
	t.Parallel()
	obj := parse(t, `{"signatures":{"one.example":{"ed25519:x":"y"}}}`)
	shared := maps.Clone(obj)
	if err := signing.Sign(obj, "one.example", vectorKey(t)); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(parse(t, `{"signatures":{"one.example":{"ed25519:x":"y"}}}`), shared); d != "" {
		t.Errorf("the other object changed (-before +after):\n%s", d)
	}
}

func TestSignRefuses(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		obj map[string]any
		key signing.Key
		err error
	}{
		"the zero key":                          {map[string]any{"a": "b"}, signing.Key{}, signing.ErrKey},
		"a fraction":                            {map[string]any{"a": json.Number("1.5")}, vectorKey(t), signing.ErrNumber},
		"a float":                               {map[string]any{"a": 1.5}, vectorKey(t), signing.ErrUnsupported},
		"signatures that are no object":         {map[string]any{"signatures": "a"}, vectorKey(t), signing.ErrSignatures},
		"signatures that are null":              {map[string]any{"signatures": nil}, vectorKey(t), signing.ErrSignatures},
		"a server's signatures are no object":   {map[string]any{"signatures": map[string]any{vectorServer: "a"}}, vectorKey(t), signing.ErrSignatures},
		"a server's signatures are of no value": {map[string]any{"signatures": map[string]any{vectorServer: nil}}, vectorKey(t), signing.ErrSignatures},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			before := maps.Clone(tc.obj)
			if err := signing.Sign(tc.obj, vectorServer, tc.key); !errors.Is(err, tc.err) {
				t.Errorf("%v, want %v", err, tc.err)
			}
			if d := cmp.Diff(before, tc.obj); d != "" {
				t.Errorf("the object changed (-before +after):\n%s", d)
			}
		})
	}
}

func TestVerifyRefuses(t *testing.T) {
	t.Parallel()
	key := vectorKey(t)
	const good = "KqmLSbO39/Bzb0QIYE82zqLwsA+PDzYIpIRA2sRQ4sL53+sN6/fpNSoqE7BP7vBZhG6kYdD13EIMJpvhJI+6Bw"
	signed := func(rest, signature string) string {
		return `{` + rest + `,"signatures":{"domain":{"ed25519:1":` + signature + `}}}`
	}
	data := `"one":1,"two":"Two"`
	for name, tc := range map[string]struct {
		obj, server, keyID string
		public             ed25519.PublicKey
		err                error
	}{
		"nothing is wrong":                          {signed(data, `"`+good+`"`), "domain", vectorKeyID, key.Public(), nil},
		"the same value written in another way":     {signed(`"two":"T\u0077o","one":1.0`, `"`+good+`"`), "domain", vectorKeyID, key.Public(), nil},
		"padding":                                   {signed(data, `"`+good+`=="`), "domain", vectorKeyID, key.Public(), nil},
		"changed content":                           {signed(`"one":2,"two":"Two"`, `"`+good+`"`), "domain", vectorKeyID, key.Public(), signing.ErrBadSignature},
		"added content":                             {signed(data+`,"x":null`, `"`+good+`"`), "domain", vectorKeyID, key.Public(), signing.ErrBadSignature},
		"another key":                               {signed(data, `"`+good+`"`), "domain", vectorKeyID, generate(t, "1").Public(), signing.ErrBadSignature},
		"a changed signature":                       {signed(data, `"L`+good[1:]+`"`), "domain", vectorKeyID, key.Public(), signing.ErrBadSignature},
		"a short signature":                         {signed(data, `"`+good[:84]+`"`), "domain", vectorKeyID, key.Public(), signing.ErrBadSignature},
		"no base64":                                 {signed(data, `"!"`), "domain", vectorKeyID, key.Public(), signing.ErrBadSignature},
		"a signature that is no string":             {signed(data, `1`), "domain", vectorKeyID, key.Public(), signing.ErrBadSignature},
		"a signature that is null":                  {signed(data, `null`), "domain", vectorKeyID, key.Public(), signing.ErrBadSignature},
		"no signatures":                             {`{"one":1}`, "domain", vectorKeyID, key.Public(), signing.ErrNoSignature},
		"another server":                            {signed(data, `"`+good+`"`), "other", vectorKeyID, key.Public(), signing.ErrNoSignature},
		"a server that differs in case":             {signed(data, `"`+good+`"`), "Domain", vectorKeyID, key.Public(), signing.ErrNoSignature},
		"another key identifier":                    {signed(data, `"`+good+`"`), "domain", "ed25519:2", key.Public(), signing.ErrNoSignature},
		"another algorithm":                         {signed(data, `"`+good+`"`), "domain", "rsa:1", key.Public(), signing.ErrKeyID},
		"a short public key":                        {signed(data, `"`+good+`"`), "domain", vectorKeyID, key.Public()[:31], signing.ErrKey},
		"no public key":                             {signed(data, `"`+good+`"`), "domain", vectorKeyID, nil, signing.ErrKey},
		"content without a canonical form":          {signed(`"one":1.5`, `"`+good+`"`), "domain", vectorKeyID, key.Public(), signing.ErrNumber},
		"signatures that are no object":             {`{"signatures":[]}`, "domain", vectorKeyID, key.Public(), signing.ErrSignatures},
		"the server's signatures are not an object": {`{"signatures":{"domain":"` + good + `"}}`, "domain", vectorKeyID, key.Public(), signing.ErrSignatures},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := signing.Verify(parse(t, tc.obj), tc.server, tc.keyID, tc.public); !errors.Is(err, tc.err) {
				t.Errorf("%v, want %v", err, tc.err)
			}
		})
	}
}

// A signature over what Go holds verifies on what was sent over the wire.
func TestASignatureSurvivesTheWire(t *testing.T) {
	t.Parallel()
	key := generate(t, "a_0")
	obj := map[string]any{
		"text": "<&>\u2028\"\\\x00é😀", "n": int64(1)<<53 - 1, "min": -(int64(1)<<53 - 1), "list": []any{nil, true, map[string]any{}}, "zero": math.MinInt64 + math.MaxInt64 + 1,
	}
	if err := signing.Sign(obj, "is.example", key); err != nil {
		t.Fatal(err)
	}
	wire, err := json.MarshalIndent(obj, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	if err := signing.Verify(parse(t, string(wire)), "is.example", key.ID(), key.Public()); err != nil {
		t.Error(err)
	}
	tampered := strings.Replace(string(wire), "true", "false", 1)
	if err := signing.Verify(parse(t, tampered), "is.example", key.ID(), key.Public()); !errors.Is(err, signing.ErrBadSignature) {
		t.Errorf("tampered: %v", err)
	}
}
