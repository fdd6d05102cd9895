package sqlstore_test

import (
	"crypto/rand"
	"database/sql"
	"fmt"
	"strings"
	"testing"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/identity/storetest"
)

// BenchmarkLookup looks up 1,000 hashes, 100 of them bound, in directories of
// several sizes, beside the same query without the store. Neither the size nor
// the store should make much of a difference.
//
// Conformance (lookup): its time beside the bare query's, small and large
func BenchmarkLookup(b *testing.B) {
	storetest.EachBench(b, func(b *testing.B, newDatabase func(testing.TB) string) {
		for _, size := range []int{10_000, 1_000_000} {
			url := newDatabase(b)
			db, bare := open(b, url), direct(b, url)
			digests := fillDirectory(b, url, bare, size)
			b.Run(fmt.Sprintf("bindings=%d/store", size), func(b *testing.B) {
				for b.Loop() {
					users, err := db.Lookup(b.Context(), 1, digests)
					if err != nil || len(users) != 100 {
						b.Fatal(len(users), err)
					}
				}
			})
			b.Run(fmt.Sprintf("bindings=%d/bare", size), func(b *testing.B) {
				query, list := bareLookup(url, digests)
				for b.Loop() {
					if n := bareFound(b, bare, query, list); n != 100 {
						b.Fatal(n)
					}
				}
			})
		}
	})
}

const bareQuery = `SELECT digest, user_id FROM hashes JOIN bindings ON id = binding_id WHERE digest `

// bareLookup returns the query of a lookup and its parameter.
func bareLookup(url string, digests []identity.Digest) (query string, list any) {
	if strings.HasPrefix(url, "sqlite:") {
		hex := make([]string, len(digests))
		for i, d := range digests {
			hex[i] = fmt.Sprintf(`"%x"`, d)
		}
		return bareQuery + `IN (SELECT unhex(value) FROM json_each($1))`, "[" + strings.Join(hex, ",") + "]"
	}
	all := make([][]byte, len(digests))
	for i := range digests {
		all[i] = digests[i][:]
	}
	return bareQuery + `= ANY($1)`, all
}

func bareFound(b *testing.B, db *sql.DB, query string, list any) (n int) {
	rows, err := db.QueryContext(b.Context(), query, list)
	if err != nil {
		b.Fatal(err)
	}
	defer rows.Close()
	for ; rows.Next(); n++ {
		var digest []byte
		var user string
		if err := rows.Scan(&digest, &user); err != nil {
			b.Fatal(err)
		}
	}
	if err := rows.Err(); err != nil {
		b.Fatal(err)
	}
	return n
}

// fillDirectory makes size bindings under two peppers and returns 100 digests of
// the first one and 900 that are nobody's.
func fillDirectory(b *testing.B, url string, db *sql.DB, size int) []identity.Digest {
	b.Helper()
	series, hash := "generate_series(1, $1) AS s(n)", "sha256((n * 2 + p)::text::bytea)"
	if strings.HasPrefix(url, "sqlite:") {
		series, hash = "(WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < $1) SELECT n FROM s)", "randomblob(32)"
	}
	for _, statement := range []string{
		`INSERT INTO bindings (medium, address, given, user_id, ts_ms)
			SELECT 'email', n || '@example.com', '', '@user' || n || ':example.org', 0 FROM ` + series,
		`INSERT INTO hashes (digest, pepper_id, binding_id)
			SELECT ` + hash + `, p, n FROM ` + series + ` CROSS JOIN (SELECT 1 AS p UNION ALL SELECT 2) AS peppers`,
	} {
		if _, err := db.ExecContext(b.Context(), statement, size); err != nil {
			b.Fatal(err)
		}
	}
	if _, err := db.ExecContext(b.Context(), "ANALYZE"); err != nil {
		b.Fatal(err)
	}
	digests := make([]identity.Digest, 1000)
	rows, err := db.QueryContext(b.Context(), `SELECT digest FROM hashes WHERE pepper_id = 1 LIMIT 100`)
	if err != nil {
		b.Fatal(err)
	}
	defer rows.Close()
	for i := 0; rows.Next(); i++ {
		var digest []byte
		if err := rows.Scan(&digest); err != nil {
			b.Fatal(err)
		}
		digests[i] = identity.Digest(digest)
	}
	if err := rows.Err(); err != nil {
		b.Fatal(err)
	}
	for i := 100; i < len(digests); i++ {
		if _, err := rand.Read(digests[i][:]); err != nil {
			b.Fatal(err)
		}
	}
	return digests
}
