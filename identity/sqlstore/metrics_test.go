package sqlstore_test

import (
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/identity/sqlstore"
	"github.com/matrix-herald/herald/identity/storetest"
)

func TestThePoolsHaveMetrics(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, newDatabase func(testing.TB) string) {
		db, err := sqlstore.Open(t.Context(), sqlstore.Options{URL: newDatabase(t)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = db.Close() })
		reg := prometheus.NewRegistry()
		db.RegisterMetrics(reg)
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, f := range families {
			names = append(names, f.GetName())
		}
		if !slices.Contains(names, "go_sql_in_use_connections") {
			t.Errorf("metrics: %q", names)
		}
	})
}
