package sydent_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/matrix-herald/herald/identity/sydent"
)

// Conformance (identity): a Sydent's database that is being written to, half written, damaged or unreadable | a sentence with what to do; all of it is read and checked before anything is written (also TestAnImportReadsEverythingBeforeItWritesAnything)
func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		make func(t *testing.T) (path string)
		want string
	}{
		"a file that is missing": {
			make: func(t *testing.T) string { return filepath.Join(t.TempDir(), "sydent.db") }, want: "no such file",
		},
		"a folder": {
			make: func(t *testing.T) string { return t.TempDir() }, want: "it is a folder",
		},
		"a file that is no database": {
			make: func(t *testing.T) string {
				path := filepath.Join(t.TempDir(), "sydent.db")
				if err := os.WriteFile(path, []byte(strings.Repeat("secret ", 100)), 0o600); err != nil {
					t.Fatal(err)
				}
				return path
			},
			want: "it is damaged, or not a SQLite database; nothing was imported",
		},
		"a database that Sydent is writing to": {
			make: func(t *testing.T) string {
				o := newOld(t)
				conn, err := o.db.Conn(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = conn.Close() })
				if _, err := conn.ExecContext(t.Context(), "BEGIN EXCLUSIVE"); err != nil {
					t.Fatal(err)
				}
				return o.path
			},
			want: "Sydent is writing to it: stop Sydent first",
		},
		"a database whose last change was not completed": {make: unfinished, want: "start Sydent and stop it properly first"},
		"a database that is damaged in the middle":       {make: damaged, want: "it is damaged; nothing was imported"},
		"a file that one may not read": {
			make: func(t *testing.T) string {
				if os.Getuid() == 0 {
					t.Skip("root may read everything")
				}
				o := newOld(t)
				if err := os.Chmod(o.path, 0); err != nil {
					t.Fatal(err)
				}
				return o.path
			},
			want: "it cannot be read by the user with the number",
		},
		"a database of another sort": {
			make: func(t *testing.T) string {
				o := newOld(t)
				o.exec(t, `PRAGMA user_version = 0`)
				return o.path
			},
			want: "its schema has version 0 and not 5: is it Sydent's?",
		},
		"the database of a later Sydent": {
			make: func(t *testing.T) string {
				o := newOld(t)
				o.exec(t, `PRAGMA user_version = 6`)
				return o.path
			},
			want: "its schema has version 6, and only version 5 of Sydent 2 is known here",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := tt.make(t)
			db, err := sydent.Open(t.Context(), path)
			if err == nil {
				_ = db.Close()
				t.Fatal("opened")
			}
			if !strings.Contains(err.Error(), tt.want) || strings.Count(err.Error(), path) != 1 {
				t.Errorf("got %v, want %q and the path once", err, tt.want)
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), "sydent.db-wal")); err == nil {
				t.Error("a file was made")
			}
		})
	}
}

// unfinished is the database of a Sydent that was killed in the middle of a change.
func unfinished(t *testing.T) string {
	t.Helper()
	o := newOld(t)
	conn, err := o.db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, statement := range []string{
		"PRAGMA cache_size = 1", "BEGIN", // so that pages are written before the change is complete
		`INSERT INTO peers (name) WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 5000)
			SELECT 'peer' || n FROM s`,
	} {
		if _, err := conn.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "sydent.db")
	for _, suffix := range []string{"", "-journal"} {
		data, err := os.ReadFile(o.path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path+suffix, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// damaged is a database of which a page in the middle is lost.
func damaged(t *testing.T) string {
	t.Helper()
	o := newOld(t)
	for i := range 2000 {
		o.account(t, fmt.Sprintf("@u%d:example.org", i), before())
	}
	if err := o.db.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(o.path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	const page = 4096
	if _, err := f.WriteAt(make([]byte, page), info.Size()/2/page*page); err != nil {
		t.Fatal(err)
	}
	return o.path
}

// TestAnImportReadsEverythingBeforeItWritesAnything lets what is read last be what
// cannot be read.
func TestAnImportReadsEverythingBeforeItWritesAnything(t *testing.T) {
	t.Parallel()
	o, h := everything(t), newHerald(t)
	o.exec(t, `ALTER TABLE ephemeral_public_keys DROP COLUMN persistence_ts`)
	if _, err := sydent.Import(t.Context(), h.options(t, o)); err == nil {
		t.Fatal("imported")
	}
	if n, err := h.db.Bindings(t.Context()); n != 0 || err != nil {
		t.Errorf("%d bindings were imported, %v", n, err)
	}
	if keys, err := h.db.Keys(t.Context()); len(keys) != 0 || err != nil {
		t.Errorf("%d keys were imported, %v", len(keys), err)
	}
}

func TestMissingTableIsAnError(t *testing.T) {
	t.Parallel()
	for _, table := range []string{
		"hashing_metadata", "global_threepid_associations", "local_threepid_associations", "tokens", "accounts",
		"accepted_terms_urls", "invite_tokens", "peers",
	} {
		t.Run(table, func(t *testing.T) {
			t.Parallel()
			o, h := newOld(t), newHerald(t)
			o.exec(t, `DROP TABLE `+table)
			_, err := sydent.Import(t.Context(), h.options(t, o))
			if err == nil || !strings.Contains(err.Error(), "no such table: "+table) {
				t.Errorf("got %v", err)
			}
			if last, err := h.db.LastImport(t.Context()); err != nil || !last.IsZero() {
				t.Errorf("the import came to its end: %v, %v", last, err)
			}
		})
	}
}

func TestImportLeavesSydentAsItIs(t *testing.T) {
	t.Parallel()
	o, h := everything(t), newHerald(t)
	if err := o.db.Close(); err != nil {
		t.Fatal(err)
	}
	// Not even a file that nobody may write to is a hindrance.
	if err := os.Chmod(o.path, 0o400); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(o.path)
	if err != nil {
		t.Fatal(err)
	}
	h.imports(t, o)
	after, err := os.ReadFile(o.path)
	if err != nil {
		t.Fatal(err)
	}
	if string(before) != string(after) {
		t.Error("the file has changed")
	}
}

// BenchmarkReading reads two sizes of a database that has few indexes. The time
// for a row beside that for writing it stays the same, unless a query walks over
// one table for each row of another.
func BenchmarkReading(b *testing.B) {
	for _, many := range []int{3_000, 12_000} {
		b.Run(fmt.Sprint(many), func(b *testing.B) {
			o, start := newOld(b), time.Now()
			for _, statement := range []string{
				`INSERT INTO accounts (user_id, created_ts) SELECT '@u' || n || ':example.org', $2 FROM numbers`,
				`INSERT INTO tokens (token, user_id) SELECT 'token' || n, '@u' || n || ':example.org' FROM numbers`,
				`INSERT INTO accepted_terms_urls (user_id, url) SELECT '@u' || n || ':example.org', 'https://example.com/' FROM numbers`,
				`INSERT INTO local_threepid_associations (medium, address, mxid, ts, notBefore, notAfter)
			SELECT 'email', n || '@example.com', '@u' || n || ':example.org', $2 + n, $2, 2 * $2 FROM numbers`,
				`INSERT INTO global_threepid_associations (medium, address, mxid, ts, notBefore, notAfter, originServer, originId, sgAssoc)
			SELECT medium, address, mxid, ts, notBefore, notAfter, 'id.example.org', id, '' FROM local_threepid_associations
			WHERE $1 > 0 AND $2 > 0`,
			} {
				o.exec(b, `WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < $1) `+statement,
					many, before().UnixMilli())
			}
			written := time.Since(start)
			options := sydent.Options{Database: o.open(b), Key: newKey(b, "ed25519:0", seed), Now: now, Progress: silent}
			for b.Loop() {
				r, err := sydent.DryRun(b.Context(), options)
				if err != nil {
					b.Fatal(err)
				}
				for _, name := range []string{"bindings", "access tokens", "accepted terms"} {
					if p := part(b, r, name); p.Read != many || p.Done != many {
						b.Errorf("%s: %d read, %d to bring over, want %d", name, p.Read, p.Done, many)
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed())/float64(b.N)/float64(written), "read/written")
		})
	}
}
