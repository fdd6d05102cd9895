package sqlstore_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/identity/storetest"
)

// crowd runs f many times at once and waits for all.
func crowd(t *testing.T, f func() error) (wait func()) {
	t.Helper()
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if err := f(); err != nil {
				t.Error(err)
			}
		})
	}
	return all.Wait
}

// TestConnectionsAreBounded has a hundred who read and write at once.
func TestConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, newDatabase func(testing.TB) string) {
		if url := newDatabase(t); strings.HasPrefix(url, "sqlite:") {
			boundedInSQLite(t, url)
		} else {
			boundedInPostgreSQL(t, url)
		}
	})
}

// boundedInPostgreSQL has all of them wait for a lock. Those that have no
// connection wait for one.
func boundedInPostgreSQL(t *testing.T, url string) {
	t.Helper()
	const most = 3
	db, ctx := open(t, url+"&pool_max_conns=3"), t.Context()
	observer := direct(t, url)
	locker, err := observer.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer locker.Close()
	if _, err := locker.ExecContext(ctx, "BEGIN; LOCK TABLE directory IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	connections := func(where string) (n int) {
		t.Helper()
		err := observer.QueryRowContext(ctx, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
			AND backend_type = 'client backend' AND pid <> pg_backend_pid() AND `+where).Scan(&n)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	read := crowd(t, func() error { _, err := db.Bindings(ctx); return err })
	write := crowd(t, func() error { return db.BeginPepper(ctx, "pepper", 0) })
	for waiting := 0; waiting < 2*most && !t.Failed(); {
		waiting = connections("wait_event_type = 'Lock'")
	}
	if _, err := locker.ExecContext(ctx, "COMMIT"); err != nil {
		t.Fatal(err)
	}
	read()
	write()
	if n := connections("TRUE") - 1; n > 2*most { // beside the locker's; idle ones stay open
		t.Errorf("%d connections, want at most %d for readers and as many for writers", n, most)
	}
}

func boundedInSQLite(t *testing.T, url string) {
	t.Helper()
	db, ctx := open(t, url), t.Context()
	read := crowd(t, func() error { _, err := db.Bindings(ctx); return err })
	write := crowd(t, func() error { return db.BeginPepper(ctx, "pepper", 0) })
	read()
	write()
	reg := prometheus.NewRegistry()
	db.RegisterMetrics(reg)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	bounds := map[string]float64{"read": 8, "write": 1}
	for _, f := range families {
		if f.GetName() != "go_sql_open_connections" { // idle ones stay open
			continue
		}
		for _, m := range f.GetMetric() {
			name := m.GetLabel()[0].GetValue()
			if n := m.GetGauge().GetValue(); n < 1 || n > bounds[name] {
				t.Errorf("%v connections that %s, want at most %v", n, name, bounds[name])
			}
			delete(bounds, name)
		}
	}
	if len(bounds) > 0 {
		t.Errorf("no metric for %v", bounds)
	}
}
