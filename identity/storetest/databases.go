package storetest

import (
	"context"
	"crypto/rand"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// Each runs test once for each kind of database, in a subtest named after it:
// SQLite always, PostgreSQL when TEST_DATABASE_URL names a server. Without that
// it skips PostgreSQL, or fails when HERALD_REQUIRE_SERVICES is 1. The function
// given to test makes an empty database that lives as long as the test does,
// and returns the URL that sqlstore.Open takes.
func Each(t *testing.T, test func(t *testing.T, newDatabase func(testing.TB) string)) {
	t.Helper()
	t.Run("SQLite", func(t *testing.T) {
		t.Parallel()
		test(t, SQLite)
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		t.Parallel()
		NeedServer(t)
		test(t, PostgreSQL)
	})
}

// EachBench is Each for benchmarks.
func EachBench(b *testing.B, bench func(b *testing.B, newDatabase func(testing.TB) string)) {
	b.Helper()
	b.Run("SQLite", func(b *testing.B) { bench(b, SQLite) })
	b.Run("PostgreSQL", func(b *testing.B) {
		NeedServer(b)
		bench(b, PostgreSQL)
	})
}

// NeedServer skips the test without a PostgreSQL server, or fails it where
// HERALD_REQUIRE_SERVICES is 1.
func NeedServer(t testing.TB) {
	t.Helper()
	if os.Getenv("TEST_DATABASE_URL") != "" {
		return
	}
	if os.Getenv("HERALD_REQUIRE_SERVICES") == "1" {
		t.Fatal("TEST_DATABASE_URL is not set; run the tests with scripts/services")
	}
	t.Skip("TEST_DATABASE_URL is not set")
}

// SQLite returns the URL of a database that does not exist yet.
func SQLite(t testing.TB) string {
	return "sqlite:" + filepath.Join(t.TempDir(), "identity.db")
}

// PostgreSQL makes an empty database on the server of TEST_DATABASE_URL, drops
// it after the test and returns its URL.
func PostgreSQL(t testing.TB) string {
	t.Helper()
	return create(t, os.Getenv("TEST_DATABASE_URL"), "")
}

// Copy copies a database of Each's, to which nobody is connected, and returns the
// URL of the copy, which lives as long as the test does.
func Copy(t testing.TB, original string) string {
	t.Helper()
	path, ok := strings.CutPrefix(original, "sqlite:")
	if !ok {
		u, err := url.Parse(original)
		if err != nil {
			t.Fatal("the original has no URL")
		}
		return create(t, os.Getenv("TEST_DATABASE_URL"), " TEMPLATE "+strings.TrimPrefix(u.Path, "/"))
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	to := SQLite(t)
	if err := os.WriteFile(strings.TrimPrefix(to, "sqlite:"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	return to
}

func create(t testing.TB, server, options string) string {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil || server == "" {
		t.Fatal("TEST_DATABASE_URL is no URL")
	}
	name := "herald_test_" + strings.ToLower(rand.Text())
	execute(t.Context(), t, server, "CREATE DATABASE "+name+options)
	t.Cleanup(func() {
		execute(context.WithoutCancel(t.Context()), t, server, "DROP DATABASE "+name+" WITH (FORCE)")
	})
	u.Path = "/" + name
	return u.String()
}

func execute(ctx context.Context, t testing.TB, server, statement string) {
	t.Helper()
	conn, err := pgx.Connect(ctx, server)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, statement); err != nil {
		t.Fatal(err)
	}
}
