package identity_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/matrix-herald/herald/identity"
)

func TestAssociationsAreToldAsTheyWereBound(t *testing.T) {
	t.Parallel()
	s := newService(t)
	d := s.directory(t, s.peppers(t, nil), nil)
	bound := bind(t, s, d, "1", "email", "strauß@bücher.example")
	s.clock.advance(time.Hour)
	for _, spelling := range []string{"strauß@bücher.example", "STRAUSS@xn--bcher-kva.example"} {
		got, err := d.Association(t.Context(), "email", spelling)
		if err != nil {
			t.Fatal(err)
		}
		// The signature, too: the same key signed the same.
		if diff := cmp.Diff(bound.Signed, got.Signed); diff != "" {
			t.Errorf("%s: %s", spelling, diff)
		}
	}
	for _, other := range [][2]string{{"email", "nobody@example.com"}, {"email", "noat"}, {"msisdn", "447700900001"}, {"fax", "1"}} {
		if _, err := d.Association(t.Context(), other[0], other[1]); !errors.Is(err, identity.ErrNotFound) {
			t.Errorf("%v: %v", other, err)
		}
	}
	if err := testutil.GatherAndCompare(s.registry, strings.NewReader(`
# HELP herald_identity_lookup_addresses_total Addresses in answered lookups by algorithm.
# TYPE herald_identity_lookup_addresses_total counter
herald_identity_lookup_addresses_total{algorithm="none"} 6
herald_identity_lookup_addresses_total{algorithm="other"} 0
herald_identity_lookup_addresses_total{algorithm="sha256"} 0
`), "herald_identity_lookup_addresses_total"); err != nil {
		t.Error(err)
	}
}
