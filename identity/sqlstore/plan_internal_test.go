package sqlstore

import (
	"context"
	"database/sql"
	"regexp"
	"strings"
	"testing"

	"github.com/matrix-herald/herald/identity/storetest"
)

// TestLookupsUseTheIndexes asks the databases how they will look digests up, in
// a directory with one binding: PostgreSQL goes on by the plan it makes then.
func TestLookupsUseTheIndexes(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, newDatabase func(testing.TB) string) {
		url, ctx := newDatabase(t), t.Context()
		db, err := Open(ctx, Options{URL: url})
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		for _, statement := range []string{
			"INSERT INTO peppers (id, value, state) VALUES (1, 'pepper', 'current')",
			"INSERT INTO bindings (medium, address, given, user_id, ts_ms) VALUES ('email', 'a@example.com', '', '@a:example.org', 0)",
			"INSERT INTO hashes (digest, pepper_id, binding_id) VALUES ('a', 1, 1)",
			"ANALYZE",
		} {
			if _, err := db.write.ExecContext(ctx, statement); err != nil {
				t.Fatal(err)
			}
		}
		var plan []string
		scan := regexp.MustCompile("SCAN (hashes|bindings)")
		if strings.HasPrefix(url, "sqlite:") {
			plan, err = collect(ctx, db.read, func(r *sql.Rows) (step string, err error) {
				var ids [3]int
				err = r.Scan(&ids[0], &ids[1], &ids[2], &step)
				return step, err
			}, "EXPLAIN QUERY PLAN "+db.dialect.lookup, db.dialect.list(nil), 1)
		} else {
			scan = regexp.MustCompile("Seq Scan")
			plan, err = explainInPostgreSQL(ctx, db)
		}
		text := strings.Join(plan, "\n")
		if err != nil || !strings.Contains(text, "hashes") || scan.MatchString(text) {
			t.Errorf("a table is read as a whole, %v:\n%s", err, text)
		}
	})
}

func explainInPostgreSQL(ctx context.Context, db *DB) ([]string, error) {
	conn, err := db.read.Conn(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if _, err := conn.ExecContext(ctx, "PREPARE lookup (bytea[], bigint) AS "+db.dialect.lookup); err != nil {
		return nil, err
	}
	return collect(ctx, conn, scanOne[string], "EXPLAIN EXECUTE lookup ('{}', 1)")
}
