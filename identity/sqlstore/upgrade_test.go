package sqlstore_test

import (
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/identity/sqlstore"
	"github.com/matrix-herald/herald/identity/storetest"
	"github.com/matrix-herald/herald/threepid"
	"github.com/matrix-herald/herald/threepid/validation"
)

// TestOldDataGoesThroughEveryMigration opens what an earlier schema held, with
// something in each table, and finds all of it. The files in testdata are dumps
// by sqlite3 and pg_dump --inserts and never change.
//
// Conformance (identity): data of an earlier release | goes through every migration
func TestOldDataGoesThroughEveryMigration(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, newDatabase func(testing.TB) string) {
		url := newDatabase(t)
		var keys identity.KeyStore
		if path, ok := strings.CutPrefix(url, "sqlite:"); ok {
			restore(t, url, "schema-40-sqlite.sql")
			copyFile(t, path+".keys", filepath.Join("testdata", "schema-40.keys"))
		} else {
			restore(t, url, "schema-40-postgres.sql")
		}
		db := open(t, url)
		if keys = db; strings.HasPrefix(url, "sqlite:") {
			keys = sqlstore.NewKeyFile(strings.TrimPrefix(url, "sqlite:")+".keys", db)
		}
		oldService(t, db, keys)
		oldDirectory(t, db)
		oldInvites(t, db)
		oldPerson(t, db)
	})
}

// restore runs the statements of a file of testdata on an empty database.
func restore(t *testing.T, url, name string) {
	t.Helper()
	dump, err := os.ReadFile(filepath.Join("testdata", name))
	check(t, err)
	if strings.HasPrefix(url, "sqlite:") {
		_, err = direct(t, url).ExecContext(t.Context(), string(dump))
		check(t, err)
		return
	}
	conn, err := pgx.Connect(t.Context(), url)
	check(t, err)
	_, err = conn.Exec(t.Context(), string(dump))
	check(t, errors.Join(err, conn.Close(t.Context())))
}

func copyFile(t *testing.T, to, from string) {
	t.Helper()
	data, err := os.ReadFile(from)
	check(t, err)
	check(t, os.WriteFile(to, data, 0o600))
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var then = time.UnixMilli(1_800_000_000_123) // when the dumps were made

func sum(s string) identity.Digest { return sha256.Sum256([]byte(s)) }

func oldService(t *testing.T, db *sqlstore.DB, keys identity.KeyStore) {
	t.Helper()
	ctx := t.Context()
	check(t, db.ClaimServerName(ctx, "id.example.org", named))
	all, err := keys.Keys(ctx)
	check(t, err)
	states := make(map[string]identity.KeyState)
	for _, k := range all {
		states[k.Key.ID()] = k.State
	}
	if diff := cmp.Diff(map[string]identity.KeyState{"ed25519:old": identity.KeyRetired, "ed25519:new": identity.KeyActive}, states); diff != "" {
		t.Error(diff)
	}
	if user, _, err := db.Token(ctx, sum("token of alice"), time.Time{}); user != "@alice:example.org" || err != nil {
		t.Errorf("the token: %q, %v", user, err)
	}
	if urls, err := db.AcceptedTerms(ctx, "@alice:example.org"); len(urls) != 1 || err != nil {
		t.Errorf("terms: %q, %v", urls, err)
	}
	if begun, err := db.LastImport(ctx); !begun.Equal(then) || err != nil {
		t.Errorf("the last import: %v, %v", begun, err)
	}
	if r, err := db.FindSession(ctx, "validated", sum("secret"), then); r.Validated.IsZero() || err != nil {
		t.Errorf("the validated session: %+v, %v", r, err)
	}
	if _, err := db.FindSession(ctx, "retired", sum("secret"), then); !errors.Is(err, threepid.ErrSessionExpired) {
		t.Errorf("the retired session: %v", err)
	}
	_, verdict, err := db.GuessCode(ctx, validation.Guess{
		SID: "open", Medium: threepid.MediumEmail, Secret: sum("secret"), Code: sum("code"), MaxTries: 10,
		Now: then, SessionExpires: then.Add(time.Hour),
	})
	if verdict != validation.Right || err != nil {
		t.Errorf("the code of the open session: %v, %v", verdict, err)
	}
}

func oldDirectory(t *testing.T, db *sqlstore.DB) {
	t.Helper()
	ctx := t.Context()
	for more := true; more; {
		done, err := db.FillPepper(ctx, 2, then, then)
		check(t, err)
		more = !done
	}
	all := map[string]string{"bob@example.com": "@bob:example.net", "carl@example.com": "@carl:example.com"}
	for _, spelling := range []string{"strauss@bücher.example", "strauss@xn--bcher-kva.example", "strauß@bücher.example"} {
		all[spelling] = "@alice:example.org"
	}
	for id, pepper := range map[int64]string{1: "pepper1", 2: "pepper2", 3: "pepper3"} {
		for address, user := range all {
			d := threepid.LookupDigest(address, threepid.MediumEmail, pepper)
			if found, err := db.Lookup(ctx, id, []identity.Digest{d}); found[d] != user || err != nil {
				t.Errorf("%s under %s: %q, %v", address, pepper, found[d], err)
			}
		}
	}
	if n, err := db.Bindings(ctx); n != 4 || err != nil {
		t.Errorf("%d bindings, %v", n, err)
	}
}

func oldInvites(t *testing.T, db *sqlstore.DB) {
	t.Helper()
	ctx := t.Context()
	records, err := db.Invites(ctx, 0, 10)
	check(t, err)
	var states []identity.InviteState
	for _, r := range records {
		states = append(states, r.State)
	}
	want := []identity.InviteState{
		identity.InviteUsed, identity.InviteFailed, identity.InviteWaiting, identity.InviteDelivering, identity.InviteDelivering,
	}
	if diff := cmp.Diff(want, states); diff != "" {
		t.Error(diff)
	}
	imported := sum("imported")
	if known, err := db.ImportedKey(ctx, imported[:], then); !known || err != nil {
		t.Errorf("the imported key: %v, %v", known, err)
	}
	due, err := db.ClaimDeliveries(ctx, "upgraded", then, then.Add(time.Minute), 10)
	if err != nil || len(due) != 1 || due[0].Invite == nil || due[0].Invite.Token != "invite4" {
		t.Errorf("due: %+v, %v", due, err)
	}
}

func oldPerson(t *testing.T, db *sqlstore.DB) {
	t.Helper()
	p := identity.Person{UserID: "@alice:example.org"}
	var err error
	p.Addresses, err = db.BoundAddresses(t.Context(), p.UserID)
	check(t, err)
	erased, err := db.Erase(t.Context(), p, identity.Removal{At: then}, func(string, int, int) {})
	check(t, err)
	got := make(map[string]int)
	for _, e := range erased {
		got[e.Table] = e.Found
		if e.Left != 0 {
			t.Errorf("%d rows of %s are left", e.Left, e.Table)
		}
	}
	want := map[string]int{"tokens": 1, "terms": 1, "bindings": 2, "guesses": 0, "sessions": 1, "invites": 5, "deliveries": 3, "hashes": 12}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
