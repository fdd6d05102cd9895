package sqlstore_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/identity/sqlstore"
	"github.com/matrix-herald/herald/identity/storetest"
	"github.com/matrix-herald/herald/threepid"
)

// TestManyOpenOneNewDatabase is eight replicas that start at once, each with
// its own connections, and then write.
func TestManyOpenOneNewDatabase(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, newDatabase func(testing.TB) string) {
		url := newDatabase(t)
		const replicas = 8
		errs := make([]error, replicas)
		start := make(chan struct{})
		var all sync.WaitGroup
		for i := range replicas {
			all.Go(func() {
				<-start
				db, err := sqlstore.Open(t.Context(), sqlstore.Options{URL: url})
				if err != nil {
					errs[i] = err
					return
				}
				b := identity.Binding{
					ID:     threepid.ID{Medium: threepid.MediumMSISDN, Address: fmt.Sprint("4477009000", i)},
					UserID: "@a:example.org", TS: time.Now(),
				}
				for range 10 {
					if err := db.Bind(t.Context(), b); err != nil {
						errs[i] = err
					}
				}
				if err := db.Close(); err != nil {
					errs[i] = err
				}
			})
		}
		close(start)
		all.Wait()
		if err := errors.Join(errs...); err != nil {
			t.Error(err)
		}
		if n, err := open(t, url).Bindings(t.Context()); n != replicas || err != nil {
			t.Errorf("%d bindings, %v; want %d", n, err, replicas)
		}
	})
}

func TestDatabaseOfALaterReleaseIsRefused(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, newDatabase func(testing.TB) string) {
		url := newDatabase(t)
		if err := open(t, url).Try(t.Context()); err != nil {
			t.Fatal(err)
		}
		_, err := direct(t, url).ExecContext(t.Context(),
			"INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, TRUE)")
		if err != nil {
			t.Fatal(err)
		}
		db, err := sqlstore.Open(t.Context(), sqlstore.Options{URL: url})
		if err == nil {
			db.Close()
		}
		if !errors.Is(err, sqlstore.ErrNewer) {
			t.Errorf("got %v, want ErrNewer", err)
		}
	})
}

// direct opens a database without the store.
func direct(t testing.TB, url string) *sql.DB {
	t.Helper()
	driver, name := "pgx", url
	if path, ok := strings.CutPrefix(url, "sqlite:"); ok {
		driver, name = "sqlite", path
	}
	db, err := sql.Open(driver, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func TestURLsThatAreRefused(t *testing.T) {
	t.Parallel()
	for name, url := range map[string]string{
		"nothing":                      "",
		"another database":             "mysql://herald:hunter2@localhost/herald",
		"no file":                      "sqlite:",
		"memory":                       "sqlite::memory:",
		"a folder that is not there":   "sqlite:" + filepath.Join(t.TempDir(), "no", "identity.db"),
		"a password with a bad escape": "postgres://herald:hunter2%zz@localhost/herald",
		"a server that is not there":   "postgres://herald:hunter2@127.0.0.1:1/herald",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, err := sqlstore.Open(t.Context(), sqlstore.Options{URL: url})
			if err == nil {
				db.Close()
				t.Fatal("opened")
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error shows the password: %v", err)
			}
		})
	}
}

func TestSQLiteFileIsItsOwnersOnlyWhateverItsName(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"identity.db", "a b?mode=memory#c%20d.db"} {
		dir := t.TempDir()
		db := open(t, "sqlite:"+filepath.Join(dir, name))
		if err := db.ClaimServerName(t.Context(), "id.example.org", named); err != nil {
			t.Fatal(err)
		}
		files, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if !strings.HasPrefix(f.Name(), name) {
				t.Errorf("%q made the file %q", name, f.Name())
			}
			if info, err := f.Info(); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%q: %v, %v", f.Name(), info.Mode(), err)
			}
		}
		if len(files) == 0 {
			t.Errorf("%q made no file", name)
		}
	}
}

func TestABackupSaysHowFarItIs(t *testing.T) {
	t.Parallel()
	url := storetest.SQLite(t)
	db, pages := open(t, url), 0
	check(t, direct(t, url).QueryRowContext(t.Context(), "SELECT page_count - freelist_count FROM pragma_page_count, pragma_freelist_count").Scan(&pages))
	progress := new(storetest.Progress)
	check(t, db.BackUp(t.Context(), filepath.Join(t.TempDir(), "copy"), nil, progress.Add))
	progress.Ended(t, "pages copied", pages)
}

func TestTracesHoldNoValues(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, newDatabase func(testing.TB) string) {
		spans := tracetest.NewSpanRecorder()
		provider := trace.NewTracerProvider(trace.WithSpanProcessor(spans))
		db, err := sqlstore.Open(t.Context(), sqlstore.Options{URL: newDatabase(t), TracerProvider: provider})
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		b := identity.Binding{
			ID:     threepid.ID{Medium: threepid.MediumEmail, Address: "secret@example.com"},
			UserID: "@secret:example.org", TS: time.Now(),
		}
		ctx, request := provider.Tracer("test").Start(t.Context(), "request")
		if err := db.Bind(ctx, b); err != nil {
			t.Fatal(err)
		}
		request.End()
		inserts := 0
		for _, s := range spans.Ended() {
			text := fmt.Sprint(s.Name(), s.Attributes(), s.Events(), s.Status())
			if strings.Contains(text, "secret") {
				t.Errorf("a span shows a value: %s", text)
			}
			if strings.Contains(text, "INSERT INTO bindings") {
				inserts++
			}
		}
		if want := strings.HasSuffix(t.Name(), "PostgreSQL"); (inserts > 0) != want {
			t.Errorf("%d spans of the statement", inserts)
		}
	})
}

// TestLookupsDoNotWaitForWriters holds the lock that all who change bindings and
// peppers take: lookups do not wait for it, and the others do until their
// deadlines. With SQLite the lock is that of all writers, and the wait for
// another process's ends otherwise.
func TestLookupsDoNotWaitForWriters(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, newDatabase func(testing.TB) string) {
		url := newDatabase(t)
		db, ctx := open(t, url), t.Context()
		b := identity.Binding{
			ID:     threepid.ID{Medium: threepid.MediumEmail, Address: "a@example.com"},
			UserID: "@a:example.org", TS: time.Now(),
		}
		if err := db.BeginPepper(ctx, "pepper", 0); err != nil {
			t.Fatal(err)
		}
		if err := db.Bind(ctx, b); err != nil {
			t.Fatal(err)
		}
		writer, err := direct(t, url).Conn(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer writer.Close()
		for _, statement := range []string{"BEGIN", "UPDATE directory SET bindings = bindings"} {
			if _, err := writer.ExecContext(ctx, statement); err != nil {
				t.Fatal(err)
			}
		}
		users, err := db.Lookup(ctx, 1, b.Digests("pepper"))
		if err != nil || len(users) != 1 {
			t.Errorf("%d users, %v", len(users), err)
		}
		if _, err := db.Peppers(ctx); err != nil {
			t.Error(err)
		}
		for name, change := range map[string]func(context.Context) error{
			"bind": func(ctx context.Context) error { return db.Bind(ctx, b) },
			"unbind": func(ctx context.Context) error {
				_, err := db.Unbind(ctx, b.ID, b.UserID, identity.Removal{At: b.TS})
				return err
			},
			"begin": func(ctx context.Context) error { return db.BeginPepper(ctx, "other", 0) },
			"fill":  func(ctx context.Context) error { _, err := db.FillPepper(ctx, 1, b.TS, b.TS); return err },
			"drain": func(ctx context.Context) error { _, err := db.DrainPeppers(ctx, b.TS, 1); return err },
		} {
			if strings.HasPrefix(url, "sqlite:") {
				break
			}
			short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
			if err := change(short); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: got %v, want a wait until the deadline", name, err)
			}
			cancel()
		}
		if _, err := writer.ExecContext(ctx, "COMMIT"); err != nil {
			t.Fatal(err)
		}
		if err := db.Bind(ctx, b); err != nil {
			t.Errorf("after the lock: %v", err)
		}
	})
}

// TestAddressesLeaveNoTrace looks for what was removed in the tables, where
// only the count may tell that it was there.
func TestAddressesLeaveNoTrace(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, newDatabase func(testing.TB) string) {
		url := newDatabase(t)
		db, ctx := open(t, url), t.Context()
		if err := db.BeginPepper(ctx, "pepper", 0); err != nil {
			t.Fatal(err)
		}
		b := identity.Binding{
			ID:     threepid.ID{Medium: threepid.MediumEmail, Address: "strauss@bücher.example"},
			UserID: "@a:example.org", OriginalSpelling: "strauß@bücher.example", TS: time.Now(),
		}
		if err := db.Bind(ctx, b); err != nil {
			t.Fatal(err)
		}
		if got := count(t, url, "SELECT COUNT(*) FROM hashes"); got != 3 {
			t.Errorf("%d hashes, want one for each spelling", got)
		}
		if _, err := db.Unbind(ctx, b.ID, b.UserID, identity.Removal{At: b.TS}); err != nil {
			t.Fatal(err)
		}
		if got := count(t, url, "SELECT (SELECT COUNT(*) FROM hashes) + (SELECT COUNT(*) FROM bindings)"); got != 0 {
			t.Errorf("%d rows are left", got)
		}
	})
}

func count(t *testing.T, url, query string) (n int) {
	t.Helper()
	if err := direct(t, url).QueryRowContext(t.Context(), query).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}
