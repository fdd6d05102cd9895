package identity_test

import (
	"crypto/sha256"
	"database/sql"
	"os"
	"strings"
	"testing"

	"github.com/matrix-herald/herald/identity/storetest"
)

// TestAccessTokensAreKeptAsHashes looks for a token in the database and in its
// files.
//
// Conformance (accounts): access tokens: 260 bits, kept as SHA-256
func TestAccessTokensAreKeptAsHashes(t *testing.T) {
	t.Parallel()
	url := storetest.SQLite(t)
	s := newServiceOn(t, url)
	token := register(t, s.accounts(t))
	if len(token)*5 < 256 || strings.Trim(token, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") != "" { // five bits for each character of base32
		t.Errorf("%q has less than 256 bits", token)
	}
	path := strings.TrimPrefix(url, "sqlite:")
	db, err := sql.Open("sqlite", path+"?_pragma=busy_timeout(20000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	hash := sha256.Sum256([]byte(token))
	var n int
	if err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM tokens WHERE hash = $1", hash[:]).Scan(&n); err != nil || n != 1 {
		t.Errorf("%d rows with its SHA-256, want 1: %v", n, err)
	}
	for _, name := range []string{path, path + "-wal"} {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(data), token) {
			t.Errorf("the token is in %s", name)
		}
	}
}
