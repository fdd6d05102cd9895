package main

import (
	"crypto/sha256"
	"database/sql"
	"database/sql/driver"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	"modernc.org/sqlite"

	"github.com/matrix-herald/herald/identity/sqlstore"
	"github.com/matrix-herald/herald/threepid"
)

// firstPepper is that of a filled directory.
const firstPepper = "matrixrocks"

// filledAddress is the address of the n-th binding of a filled directory, 1 the
// first; filledUser is who it is bound to.
func filledAddress(n int) string { return fmt.Sprintf("%d@example.com", n) }
func filledUser(n int) string    { return fmt.Sprintf("@user%d:example.org", n) }

// digestInSQLite gives SQLite the function that PostgreSQL has.
var digestInSQLite = sync.OnceValue(func() error {
	return sqlite.RegisterDeterministicScalarFunction("sha256", 1,
		func(_ *sqlite.FunctionContext, args []driver.Value) (driver.Value, error) {
			sum := sha256.Sum256([]byte(args[0].(string)))
			return sum[:], nil
		})
})

// direct opens a database as the service does, but for what it does with it.
func direct(t testing.TB, database string) *sql.DB {
	t.Helper()
	if err := digestInSQLite(); err != nil {
		t.Fatal(err)
	}
	name, source := "pgx", database
	if path, ok := strings.CutPrefix(database, "sqlite:"); ok {
		name, source = "sqlite", "file:"+path+"?_pragma=busy_timeout(10000)&_pragma=foreign_keys(1)"
	}
	db, err := sql.Open(name, source)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// fill makes a directory of size bindings under firstPepper in an empty database.
func fill(t testing.TB, database string, size int) {
	t.Helper()
	store, err := sqlstore.Open(t.Context(), sqlstore.Options{URL: database})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	if err = store.BeginPepper(t.Context(), firstPepper, 0); err == nil {
		_, err = store.FillPepper(t.Context(), 1, now, now)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	series, text := "generate_series(1, %d) AS s(n)", "convert_to(%s, 'UTF8')"
	if strings.HasPrefix(database, "sqlite:") {
		series, text = "(WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < %d) SELECT n FROM s) AS s", "%s"
	}
	db := direct(t, database)
	for _, statement := range []string{
		fmt.Sprintf(`INSERT INTO bindings (medium, address, given, user_id, ts_ms)
			SELECT 'email', n || '@example.com', '', '@user' || n || ':example.org', 0 FROM `+series, size),
		fmt.Sprintf(`UPDATE directory SET bindings = %d`, size),
		// In the order of the digests, a table of a million fills ten times as fast.
		`DROP INDEX hashes_binding`,
		fmt.Sprintf(`INSERT INTO hashes (digest, pepper_id, binding_id)
			SELECT sha256(`+text+`), 1, id FROM bindings ORDER BY 1`, `address || ' email `+firstPepper+`'`),
		`CREATE INDEX hashes_binding ON hashes (binding_id, pepper_id)`,
		`ANALYZE`,
	} {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
}

// mixedHashes returns different hashes to look up in a filled directory: every
// second is bound, beginning with the first, and the others are nobody's.
func mixedHashes(random *rand.Rand, size, n int) []string {
	hashes := make([]string, n)
	start := random.IntN(size)
	for i := range hashes {
		number := 1 + (start+i*7919)%size // prime, so none comes twice
		if i%2 != 0 {
			number += size
		}
		hashes[i] = threepid.LookupHash(filledAddress(number), threepid.MediumEmail, firstPepper)
	}
	return hashes
}

// bareLookup is the query of a lookup without the service: on a connection of its
// own, with the same parameters.
type bareLookup struct {
	query string
	list  func(hashes []string) any
	db    *sql.DB
}

func newBareLookup(t testing.TB, database string) *bareLookup {
	const query = `SELECT hashes.digest, bindings.user_id FROM hashes JOIN bindings ON bindings.id = hashes.binding_id
		WHERE hashes.digest %s AND hashes.pepper_id = $2`
	b := &bareLookup{}
	if strings.HasPrefix(database, "sqlite:") {
		b.db = direct(t, database)
		b.query = fmt.Sprintf(query, "IN (SELECT unhex(value) FROM json_each($1))")
		b.list = func(hashes []string) any {
			list := make([]string, len(hashes))
			for i, h := range hashes {
				digest, _ := threepid.ParseLookupHash(h)
				list[i] = `"` + hex.EncodeToString(digest[:]) + `"`
			}
			return "[" + strings.Join(list, ",") + "]"
		}
		return b
	}
	b.db = direct(t, database+"&plan_cache_mode=force_generic_plan") // the fastest plan, which the service has as well
	b.query = fmt.Sprintf(query, "= ANY($1)")
	b.list = func(hashes []string) any {
		list := make([][]byte, len(hashes))
		for i, h := range hashes {
			digest, _ := threepid.ParseLookupHash(h)
			list[i] = digest[:]
		}
		return list
	}
	return b
}

// find returns how many of a list are bound.
func (b *bareLookup) find(t testing.TB, list any) (found int) {
	rows, err := b.db.QueryContext(t.Context(), b.query, list, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var digest sql.RawBytes
	var user string
	for ; rows.Next(); found++ {
		if err := rows.Scan(&digest, &user); err != nil {
			t.Fatal(err)
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return found
}
