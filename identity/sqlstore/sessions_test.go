package sqlstore_test

import (
	"bytes"
	"crypto/sha256"
	"database/sql"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/identity/storetest"
)

// Conformance (attacks): reading the database | tokens, codes and client secrets are hashes, codes under a key outside of it (also TestNothingTellsSecrets)
func TestSessionsKeepNeitherTokensNorSecrets(t *testing.T) {
	t.Parallel()
	url := storetest.SQLite(t)
	v := storetest.NewValidation(t, open(t, url))
	mail, sms := v.Sent(t, storetest.Email("a-client-secret", 1)), v.Sent(t, storetest.SMS("a-client-secret", 1))

	var content []byte
	file := strings.TrimPrefix(url, "sqlite:")
	for _, name := range []string{file, file + "-wal"} {
		part, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		content = append(content, part...)
	}
	if !bytes.Contains(content, []byte(mail.SID)) || !bytes.Contains(content, []byte(sms.SID)) {
		t.Fatal("this is not where the sessions are")
	}
	for name, secret := range map[string]string{"mailed token": mail.Token, "SMS code": sms.Token, "client_secret": "a-client-secret"} {
		plain := sha256.Sum256([]byte(secret))
		if bytes.Contains(content, []byte(secret)) || bytes.Contains(content, plain[:]) {
			t.Errorf("the %s, or a hash without a key, is in the database", name)
		}
	}
}

// Conformance (sessions): an expired session leaves no address behind
func TestRetiredSessionsKeepNoAddress(t *testing.T) {
	t.Parallel()
	url := storetest.SQLite(t)
	v := storetest.NewValidation(t, open(t, url))
	r := storetest.Email("s", 1)
	r.OriginalSpelling, r.NextLink = "Alice@example.org", "https://example.org/"
	c := v.Sent(t, r)
	if _, err := v.Submit(t.Context(), c.ID.Medium, c.SID, "s", c.Token); err != nil {
		t.Fatal(err)
	}
	v.Clock.Advance(24 * time.Hour)
	if err := v.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	left := slices.Sorted(maps.Keys(row(t, url, "SELECT * FROM sessions")))
	if d := cmp.Diff([]string{"expires_ms", "medium", "retired", "secret_hash", "sid"}, left); d != "" {
		t.Errorf("columns with a value (-want +got):\n%s", d)
	}
}

// row returns the columns of the one row a query finds that are neither NULL,
// nor empty, nor 0.
func row(t *testing.T, url, query string) map[string]any {
	t.Helper()
	db, err := sql.Open("sqlite", strings.TrimPrefix(url, "sqlite:")+"?_pragma=busy_timeout(20000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.QueryContext(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	names, err := rows.Columns()
	if err != nil || !rows.Next() {
		t.Fatalf("no row: %v, %v", err, rows.Err())
	}
	values := make([]any, len(names))
	targets := make([]any, len(names))
	for i := range values {
		targets[i] = &values[i]
	}
	if err := rows.Scan(targets...); err != nil {
		t.Fatal(err)
	}
	if rows.Next() {
		t.Fatal("more than one row")
	}
	found := make(map[string]any)
	for i, value := range values {
		if value != nil && value != "" && value != int64(0) {
			found[names[i]] = value
		}
	}
	return found
}
