package identity_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/threepid"
)

func pepper(t testing.TB, d *identity.Directory) string {
	t.Helper()
	details, err := d.HashDetails(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return details.Pepper
}

func plainLookup(t testing.TB, d *identity.Directory, pairs ...string) map[string]string {
	t.Helper()
	users, err := d.Lookup(t.Context(), identity.LookupRequest{
		Algorithm: identity.AlgorithmNone, Pepper: pepper(t, d), Addresses: pairs,
	})
	if err != nil {
		t.Fatal(err)
	}
	return users
}

// hashLookup looks up the hashes of addresses, and returns the users by address.
func hashLookup(t *testing.T, d *identity.Directory, medium threepid.Medium, addresses ...string) map[string]string {
	t.Helper()
	p := pepper(t, d)
	hashes := make([]string, len(addresses))
	for i, a := range addresses {
		hashes[i] = threepid.LookupHash(a, medium, p)
	}
	users, err := d.Lookup(t.Context(), identity.LookupRequest{
		Algorithm: identity.AlgorithmSHA256, Pepper: p, Addresses: hashes,
	})
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]string)
	for i, a := range addresses {
		if u, ok := users[hashes[i]]; ok {
			found[a] = u
			delete(users, hashes[i])
		}
	}
	if len(users) > 0 {
		t.Errorf("%d users for what was not asked", len(users))
	}
	return found
}

func TestHashDetails(t *testing.T) {
	t.Parallel()
	for plain, want := range map[bool][]string{true: {"sha256", "none"}, false: {"sha256"}} {
		s := newService(t)
		d := s.directory(t, s.peppers(t, nil), func(o *identity.DirectoryOptions) { o.PlainLookup = plain })
		details, err := d.HashDetails(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, details.Algorithms); diff != "" {
			t.Error(diff)
		}
		if len(details.Pepper) < 32 || strings.Trim(details.Pepper, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") != "" {
			t.Errorf("pepper %q", details.Pepper)
		}
	}
}

// Conformance (lookup): spellings of one address as clients hash them: folded, lower-cased by matrix-js-sdk, U-label or A-label | all found (also TestBindFindsEverySpelling)
func TestEverySpellingIsFound(t *testing.T) {
	t.Parallel()
	s := newService(t)
	d := s.directory(t, s.peppers(t, nil), nil)
	bind(t, s, d, "1", "email", "Strauß@Bücher.example")
	bind(t, s, d, "2", "msisdn", "447700900001")

	spellings := []string{"strauss@bücher.example", "strauss@xn--bcher-kva.example", "strauß@bücher.example"}
	want := map[string]string{spellings[0]: alice, spellings[1]: alice, spellings[2]: alice}
	got := hashLookup(t, d, "email", append(spellings, "strausz@bücher.example")...)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{"447700900001": alice}, hashLookup(t, d, "msisdn", "447700900001")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{}, hashLookup(t, d, "email", "447700900001")); diff != "" {
		t.Errorf("under another medium: %s", diff)
	}
}

// Conformance (lookup): `none`: the mappings have what the client sent (≠ Sydent: what is stored; ma1sd: swapped) (also TestLookup, FuzzPlainLookup)
func TestPlainLookupEchoesWhatWasAsked(t *testing.T) {
	t.Parallel()
	s := newService(t)
	d := s.directory(t, s.peppers(t, nil), nil)
	bind(t, s, d, "1", "email", "strauß@bücher.example")
	bind(t, s, d, "2", "msisdn", "447700900001")
	found := []string{
		"strauss@bücher.example email", "strauss@xn--bcher-kva.example email", "strauß@bücher.example email",
		"STRAUSS@BÜCHER.EXAMPLE email", "447700900001 msisdn", "+447700900001 msisdn",
	}
	nothing := []string{
		"", " ", "email", "strauss@bücher.example", "email strauss@bücher.example", "strauss@bücher.example  email",
		" strauss@bücher.example email", "strauss@bücher.example email ", "strauss@bücher.example email email",
		"strauss@bücher.example\temail", "strauss@bücher.example Email", "447700900001 email", "447700900002 msisdn",
		"447700900001 fax", "\xff\xfe email", "strauss@bücher.example\x00 email",
	}
	want := make(map[string]string)
	for _, f := range found {
		want[f] = alice
	}
	asked := slices.Concat(found, nothing, found) // twice is no fault
	if diff := cmp.Diff(want, plainLookup(t, d, asked...)); diff != "" {
		t.Error(diff)
	}
}

func TestHashesThatAreNoneMatchNothing(t *testing.T) {
	t.Parallel()
	s := newService(t)
	d := s.directory(t, s.peppers(t, nil), nil)
	bind(t, s, d, "1", "email", "a@example.com")
	hash := threepid.LookupHash("a@example.com", "email", pepper(t, d))
	users, err := d.Lookup(t.Context(), identity.LookupRequest{
		Algorithm: "sha256", Pepper: pepper(t, d),
		Addresses: []string{"", "a@example.com", hash + "=", " " + hash, hash[1:], hash, hash, strings.ToUpper(hash)},
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{hash: alice}, users); diff != "" {
		t.Error(diff)
	}
}

func TestLookupsThatAreRefused(t *testing.T) {
	t.Parallel()
	s := newService(t)
	d := s.directory(t, s.peppers(t, nil), func(o *identity.DirectoryOptions) { o.PlainLookup = false })
	full, over := make([]string, identity.MaxLookup), make([]string, identity.MaxLookup+1)
	current := pepper(t, d)
	for name, c := range map[string]struct {
		request identity.LookupRequest
		want    error
	}{
		"an unknown algorithm":              {identity.LookupRequest{Algorithm: "md5", Pepper: current}, identity.ErrBadAlgorithm},
		"no algorithm":                      {identity.LookupRequest{Pepper: current}, identity.ErrBadAlgorithm},
		"none where it is off":              {identity.LookupRequest{Algorithm: "none", Pepper: current}, identity.ErrBadAlgorithm},
		"the algorithm before the number":   {identity.LookupRequest{Algorithm: "md5", Addresses: over}, identity.ErrBadAlgorithm},
		"ten thousand addresses and one":    {identity.LookupRequest{Algorithm: "sha256", Pepper: current, Addresses: over}, identity.ErrTooMany},
		"the number before the pepper":      {identity.LookupRequest{Algorithm: "sha256", Addresses: over}, identity.ErrTooMany},
		"another pepper":                    {identity.LookupRequest{Algorithm: "sha256", Pepper: "x"}, identity.ErrBadPepper},
		"no pepper":                         {identity.LookupRequest{Algorithm: "sha256"}, identity.ErrBadPepper},
		"ten thousand addresses, no pepper": {identity.LookupRequest{Algorithm: "sha256", Addresses: full}, identity.ErrBadPepper},
		"ten thousand addresses":            {identity.LookupRequest{Algorithm: "sha256", Pepper: current, Addresses: full}, nil},
		"none at all":                       {identity.LookupRequest{Algorithm: "sha256", Pepper: current}, nil},
	} {
		users, err := d.Lookup(t.Context(), c.request)
		if !errors.Is(err, c.want) || (err == nil) != (users != nil) {
			t.Errorf("%s: got %v, %v; want %v", name, users, err, c.want)
		}
		var bad *identity.BadPepperError
		if errors.Is(err, identity.ErrBadPepper) &&
			(!errors.As(err, &bad) || bad.Pepper != current || bad.Algorithm != c.request.Algorithm) {
			t.Errorf("%s: got %+v", name, bad)
		}
	}
	if err := testutil.GatherAndCompare(s.registry, strings.NewReader(`
# HELP herald_identity_lookup_addresses_total Addresses in answered lookups by algorithm.
# TYPE herald_identity_lookup_addresses_total counter
herald_identity_lookup_addresses_total{algorithm="none"} 0
herald_identity_lookup_addresses_total{algorithm="other"} 0
herald_identity_lookup_addresses_total{algorithm="sha256"} 10000
# HELP herald_identity_lookups_total Lookups by algorithm and outcome.
# TYPE herald_identity_lookups_total counter
herald_identity_lookups_total{algorithm="none",outcome="bad_algorithm"} 1
herald_identity_lookups_total{algorithm="none",outcome="bad_pepper"} 0
herald_identity_lookups_total{algorithm="none",outcome="error"} 0
herald_identity_lookups_total{algorithm="none",outcome="ok"} 0
herald_identity_lookups_total{algorithm="none",outcome="too_many"} 0
herald_identity_lookups_total{algorithm="other",outcome="bad_algorithm"} 3
herald_identity_lookups_total{algorithm="other",outcome="bad_pepper"} 0
herald_identity_lookups_total{algorithm="other",outcome="error"} 0
herald_identity_lookups_total{algorithm="other",outcome="ok"} 0
herald_identity_lookups_total{algorithm="other",outcome="too_many"} 0
herald_identity_lookups_total{algorithm="sha256",outcome="bad_algorithm"} 0
herald_identity_lookups_total{algorithm="sha256",outcome="bad_pepper"} 3
herald_identity_lookups_total{algorithm="sha256",outcome="error"} 0
herald_identity_lookups_total{algorithm="sha256",outcome="ok"} 2
herald_identity_lookups_total{algorithm="sha256",outcome="too_many"} 2
`), "herald_identity_lookups_total", "herald_identity_lookup_addresses_total"); err != nil {
		t.Error(err)
	}
}

// FuzzPlainLookup looks for a string that is answered although it is no pair of
// an address and a medium, or under another key than the string itself.
func FuzzPlainLookup(f *testing.F) {
	for _, seed := range []string{
		"a@example.com email", "A@EXAMPLE.COM email", "email a@example.com", "447700900001 msisdn", "+447700900001 msisdn",
		"a@example.com  email", " ", "", "a@example.com email ", "a@example.com\u00a0email", "a b@example.com email",
	} {
		f.Add(seed)
	}
	s := newService(f)
	d := s.directory(f, s.peppers(f, nil), nil)
	bind(f, s, d, "1", "email", "a@example.com")
	bind(f, s, d, "2", "msisdn", "447700900001")
	f.Fuzz(func(t *testing.T, pair string) {
		for asked, user := range plainLookup(t, d, pair) {
			address, medium, ok := strings.Cut(asked, " ")
			if !ok || asked != pair || user != alice {
				t.Fatalf("asked for %q, got %q: %q", pair, asked, user)
			}
			id, err := threepid.ParseAddress(medium, address)
			if err != nil || id.Address != "a@example.com" && id.Address != "447700900001" {
				t.Fatalf("%q is not what was bound", pair)
			}
		}
	})
}
