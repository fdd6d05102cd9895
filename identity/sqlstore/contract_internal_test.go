package sqlstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/matrix-herald/herald/identity/storetest"
	"github.com/matrix-herald/herald/threepid/validation"
)

// TestContract runs the contract of the stores. Then it looks at the plans of all
// statements that PostgreSQL was sent, there and in SQLite, for half a million rows in
// each table that grows: none may read the whole of one.
//
// Conformance (requestToken): the same medium, canonical address and secret are one session | the same sid (also TestFromRegistrationToLogout)
// Conformance (requestToken): an attempt that is not above the last sends nothing (≠ Sydent: mails again each time), also with many at once and on two replicas | one mail (also TestTwoReplicasAnswerAlike)
// Conformance (requestToken): an attempt counts once its message was sent | a failed one may be repeated (also TestFailedSending)
// Conformance (requestToken): one number written in two ways | one session (also TestParsePhone)
// Conformance (requestToken): every message has its own token (≠ Sydent: one for a session) | the one before holds until the new one is sent
// Conformance (submitToken): ten wrong guesses at the code of a text message, a thousand at once | the code is void; a new attempt brings another
// Conformance (submitToken): ten wrong guesses at a number within a day, over all its sessions, accounts and replicas | its codes of six digits are void, and the next messages carry twelve digits, which need no counting: nobody is locked out (also TestACodeCannotBeGuessedInParallel)
// Conformance (submitToken): the token of a mailed link | is too long to guess, and wrong ones are not counted
// Conformance (sessions): a session lasts 24 hours after it was begun or validated (≠ Sydent: after the last request)
// Conformance (sessions): an expired session (≠ Sydent: revived with its old token) | a new sid and a new token
// Conformance (lookup): one query, by the indexes, whatever the directory was like when it was planned
// Conformance (invites): a bind at the same moment, at another replica | refuses the invite or takes it (also TestNoInviteIsStrandedByAnyReplica)
// Conformance (security): wrong guesses are counted, a thousand at once too
// Conformance (identity): tables that grow | no statement reads all of one
func TestContract(t *testing.T) {
	t.Parallel()
	var all statements
	t.Run("of", func(t *testing.T) { // ends when all of it has ended
		storetest.Each(t, func(t *testing.T, newDatabase func(testing.TB) string) {
			// Databases are copies of one that is empty and up to date.
			empty := newDatabase(t)
			if err := openTraced(t, empty, &all).Close(); err != nil {
				t.Fatal(err)
			}
			opened := func(t *testing.T) *DB {
				t.Helper()
				db := openTraced(t, storetest.Copy(t, empty), &all)
				t.Cleanup(func() {
					if err := db.Close(); err != nil {
						t.Errorf("close: %v", err)
					}
				})
				return db
			}
			storetest.Run(t, func(t *testing.T) storetest.Store { return opened(t) })
			storetest.Sessions(t, func(t *testing.T) validation.Store { return opened(t) })
			storetest.RunImports(t, func(t *testing.T) storetest.ImportStore { return opened(t) })
		})
	})
	t.Run("plans", func(t *testing.T) {
		storetest.NeedServer(t)
		if len(all.args) < 80 {
			t.Skipf("only %d statements were sent", len(all.args)) // not all of the contract was run
		}
		all.planInPostgreSQL(t)
		all.planInSQLite(t)
	})
}

func openTraced(t *testing.T, url string, seen *statements) *DB {
	t.Helper()
	db, err := Open(t.Context(), Options{URL: url, tracer: seen})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// statements are those that were sent to PostgreSQL, each with values once sent
// with it.
type statements struct {
	mu   sync.Mutex
	args map[string][]any
}

// ours are statements of this package, and not of migrations.
var ours = regexp.MustCompile(`^\s*(SELECT|INSERT|UPDATE|DELETE)\s[^;]*$`)

// TraceQueryStart implements pgx.QueryTracer.
func (s *statements) TraceQueryStart(ctx context.Context, _ *pgx.Conn, q pgx.TraceQueryStartData) context.Context {
	if !ours.MatchString(q.SQL) || strings.Contains(q.SQL, "goose") || strings.Contains(q.SQL, "pg_") {
		return ctx
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.args == nil {
		s.args = make(map[string][]any)
	}
	s.args[q.SQL] = slices.Clone(q.Args)
	return ctx
}

// TraceQueryEnd implements pgx.QueryTracer.
func (*statements) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// small are the tables that do not grow with the number of users.
var small = []string{"service", "directory", "peppers", "signing_keys", "imports"}

// planInPostgreSQL plans each statement as the connections that write do, for its
// values, and as those that read do, for any.
func (s *statements) planInPostgreSQL(t *testing.T) {
	t.Helper()
	ctx, url := t.Context(), storetest.PostgreSQL(t)
	db, err := Open(ctx, Options{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	fill(t, db)
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	for _, settings := range []string{useIndexes, useIndexes + planOnce} {
		if _, err := conn.Exec(ctx, settings); err != nil {
			t.Fatal(err)
		}
		for query, args := range s.args {
			var plan []byte
			if err := conn.QueryRow(ctx, "EXPLAIN (FORMAT JSON) "+query, args...).Scan(&plan); err != nil {
				t.Fatalf("%v:\n%s", err, query)
			}
			var plans []struct{ Plan node }
			if err := json.Unmarshal(plan, &plans); err != nil {
				t.Fatal(err)
			}
			if bad := plans[0].Plan.scan(); bad != "" {
				t.Errorf("PostgreSQL reads all of %s for\n%s\n%s", bad, query, plan)
			}
		}
	}
}

// node is a step of a plan of PostgreSQL's.
type node struct {
	Type     string `json:"Node Type"`
	Relation string `json:"Relation Name"`
	Index    string `json:"Index Name"`
	Cond     string `json:"Index Cond"`
	Plans    []node
}

// scan returns the name of a table that grows, or of its index, of which the plan
// reads everything.
func (n node) scan() string {
	grows := !slices.Contains(small, n.Relation)
	if strings.HasPrefix(n.Type, "Seq Scan") && grows {
		return n.Relation
	}
	if n.Index != "" && n.Cond == "" && grows && n.Type != "Bitmap Heap Scan" {
		return n.Relation + " " + n.Index
	}
	for _, p := range n.Plans {
		if bad := p.scan(); bad != "" {
			return bad
		}
	}
	return ""
}

// planInSQLite does the same with and without what ANALYZE tells SQLite of the rows.
func (s *statements) planInSQLite(t *testing.T) {
	t.Helper()
	db, err := Open(t.Context(), Options{URL: storetest.SQLite(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	s.explainInSQLite(t, db)
	fill(t, db)
	s.explainInSQLite(t, db)
}

func (s *statements) explainInSQLite(t *testing.T, db *DB) {
	t.Helper()
	step := regexp.MustCompile(`^SCAN ([a-z]\w*)`)
	others := append([]string{"json_each", "CONSTANT", "subquery"}, small...)
	dialect := strings.NewReplacer(postgres().inList, sqlite().inList, postgres().skipLocked, sqlite().skipLocked)
	for query, args := range s.args {
		plan, err := collect(t.Context(), db.write, func(r *sql.Rows) (text string, err error) {
			var ids [3]int
			err = r.Scan(&ids[0], &ids[1], &ids[2], &text)
			return text, err
		}, "EXPLAIN QUERY PLAN "+dialect.Replace(query), make([]any, len(args))...)
		if err != nil {
			t.Fatalf("%v:\n%s", err, query)
		}
		for _, text := range plan {
			if m := step.FindStringSubmatch(text); m != nil && !slices.Contains(others, m[1]) {
				t.Errorf("SQLite reads all of %s for\n%s\n%s", m[1], query, strings.Join(plan, "\n"))
			}
		}
	}
}

// fill puts rows into each table that grows, of which none is due for anything when
// the contract's statements were made. What both databases then know of them, and
// plan by, is made what they would know of half a million.
func fill(t *testing.T, db *DB) {
	t.Helper()
	run := func(statement string) {
		t.Helper()
		if _, err := db.write.DB.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	rows := `FROM generate_series(1, 5000) AS s(n)`
	unbind := "ALTER TABLE %s DISABLE TRIGGER ALL" // foreign keys
	dialect := strings.NewReplacer()
	larger := []string{"UPDATE pg_class SET reltuples = 100 * reltuples WHERE relnamespace = 'public'::regnamespace AND reltuples > 1000"}
	if db.dialect.prepares { // SQLite
		rows = `FROM (WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 5000) SELECT n FROM s)`
		unbind = "PRAGMA foreign_keys = OFF -- %s"
		dialect = strings.NewReplacer(`decode(lpad(to_hex(n), 64, '0'), 'hex')`, `unhex(printf('%064x', n))`)
		// A row of sqlite_stat1 has the number of rows, and then how many of them are
		// alike in the first column of the index, in the first two, and so on.
		larger = []string{"UPDATE sqlite_stat1 SET stat = replace(replace(stat, '5000', '500000'), '2500', '250000')", "DELETE FROM sqlite_stat4", "ANALYZE sqlite_schema"}
	}
	for table, columns := range map[string]string{
		"tokens (hash, user_id, used_ms)":                   `decode(lpad(to_hex(n), 64, '0'), 'hex'), '@u' || n, later + n`,
		"accepted_terms (user_id, url, accepted_ms)":        `'@u' || n, 'u', later + n`,
		"bindings (medium, address, given, user_id, ts_ms)": `'email', 'a' || n, '', '@u' || n, later + n`,
		"hashes (digest, pepper_id, binding_id)":            `decode(lpad(to_hex(n), 64, '0'), 'hex'), 1, n`,
		"sessions (sid, medium, address, owner, secret_hash, retired, expires_ms)": `'s' || n, 'email', 'a' || n, '@u' || n,
			decode(lpad(to_hex(n), 64, '0'), 'hex'), n % 2, later + n`,
		"wrong_guesses (medium, address, since_ms, wrong)": `'email', 'a' || n, later + n, 1`,
		`invites (token, ephemeral, key_id, medium, address, room_id, sender, room_name, room_type, room_avatar, sender_name, client,
			created_ms, expires_ms, taken_by, used_ms)`: `'t' || n, decode(lpad(to_hex(n), 64, '0'), 'hex'), 'k', 'email', 'a' || n, '!r', '@u' || n, '', '', '', '', '', later + n, later + n,
			CASE WHEN n % 2 = 0 THEN '@v' || n END, CASE WHEN n % 2 = 0 THEN later + n END`,
		"deliveries (medium, address, user_id, server, ts_ms, until_ms, due_ms, invite_id)": `'email', 'a' || n, '@u' || n, 's' || n,
			later + n, later + n, later + n, n`,
		"delivery_servers (server, due_ms)":                    `'s' || n, later + n`,
		"imported_keys (public_key, expires_ms)":               `decode(lpad(to_hex(n), 64, '0'), 'hex'), later + n`,
		"removals (fingerprint, kind, removed_ms, removed_by)": `decode(lpad(to_hex(n), 64, '0'), 'hex'), 'binding', later + n, ''`,
	} {
		name, _, _ := strings.Cut(table, " ")
		run(fmt.Sprintf(unbind, name))
		run("INSERT INTO " + table + " SELECT " + strings.ReplaceAll(dialect.Replace(columns), "later", "1900000000000") + " " + rows)
		run("ANALYZE " + name)
	}
	for _, statement := range larger {
		run(statement)
	}
}
