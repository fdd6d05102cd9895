package sqlstore_test

import (
	"testing"

	"github.com/matrix-herald/herald/identity/sqlstore"
)

// open opens a database for the length of a test.
func open(t testing.TB, url string) *sqlstore.DB {
	t.Helper()
	db, err := sqlstore.Open(t.Context(), sqlstore.Options{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return db
}

// named is for a server name that stays.
func named(string) bool { return false }
