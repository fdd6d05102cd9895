package identity_test

import (
	"database/sql"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/identity/storetest"
)

// BenchmarkDeliveries tells a homeserver, over TLS, of bindings while a hundred
// thousand are due to it.
func BenchmarkDeliveries(b *testing.B) {
	storetest.EachBench(b, func(b *testing.B, newDatabase func(testing.TB) string) {
		const due = 100_000
		url := newDatabase(b)
		s, n := newServiceOn(b, url), newNetwork(b)
		heard := make(chan struct{}, due)
		name := n.ca.Server(b, "127.0.0.1:0", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			fmt.Fprint(w, "{}")
			heard <- struct{}{}
		}), "127.0.0.1").Listener.Addr().String()
		addDeliveries(b, url, name, due, s.clock.Now().UnixMilli())
		stop := s.deliver(b, n, func(o *identity.DeliveriesOptions) { o.Now = s.clock.Now })
		for range 100 { // connections are open by then
			<-heard
		}
		for b.Loop() {
			<-heard
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "deliveries/s")
		stop()
	})
}

// addDeliveries adds n deliveries to a homeserver, due at now.
func addDeliveries(b *testing.B, url, server string, n int, now int64) {
	b.Helper()
	driver, name, series := "pgx", url, "generate_series(1, $1) AS s(n)"
	if path, ok := strings.CutPrefix(url, "sqlite:"); ok {
		driver, name = "sqlite", path
		series = "(WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < $1) SELECT n FROM s)"
	}
	db, err := sql.Open(driver, name)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(b.Context(), `INSERT INTO deliveries (medium, address, user_id, server, ts_ms, until_ms, due_ms)
		SELECT 'email', 'a' || n || '@example.com', '@alice:' || CAST($2 AS TEXT), CAST($2 AS TEXT),
			CAST($3 AS BIGINT), CAST($3 AS BIGINT) + 86400000, CAST($3 AS BIGINT) FROM `+series, n, server, now); err != nil {
		b.Fatal(err)
	}
	if _, err := db.ExecContext(b.Context(), `INSERT INTO delivery_servers (server, due_ms) VALUES ($1, $2)`, server, now); err != nil {
		b.Fatal(err)
	}
}
