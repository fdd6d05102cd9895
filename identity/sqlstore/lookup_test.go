package sqlstore_test

import (
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/identity/storetest"
	"github.com/matrix-herald/herald/threepid"
)

// TestLookupsFindWhatIsBoundAmongAnyNumber asks for more than are brought into
// order, and for as many as are.
func TestLookupsFindWhatIsBoundAmongAnyNumber(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, newDatabase func(testing.TB) string) {
		db := open(t, newDatabase(t))
		b := identity.Binding{
			ID:     threepid.ID{Medium: threepid.MediumEmail, Address: "a@example.com"},
			UserID: "@a:example.org", TS: time.Now(),
		}
		if err := db.BeginPepper(t.Context(), "pepper", 0); err != nil {
			t.Fatal(err)
		}
		if err := db.Bind(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		bound := b.Digests("pepper")
		want := map[identity.Digest]string{bound[0]: b.UserID}
		for _, others := range []int{0, 1, 1<<16 - 1, 1 << 16} {
			digests := make([]identity.Digest, others)
			for i := range digests {
				binary.BigEndian.PutUint32(digests[i][:], uint32(i)*40503)
			}
			got, err := db.Lookup(t.Context(), 1, slices.Concat(digests, bound))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("among %d others: %s", others, diff)
			}
		}
	})
}
