package main

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/identity/storetest"
)

// TestErasingAPersonLeavesNothing erases somebody with something in every table,
// beside a running service, and looks for their user ID and addresses in all of
// the database.
//
// Conformance (security): a person can be erased: nothing of them is left in a table, in Redis, or in SQLite's files (also TestErasingFailsWhileSomethingIsLeft, TestEraseForgetsBudgets, TestContract)
func TestErasingAPersonLeavesNothing(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, newDatabase func(testing.TB) string) {
		database := newDatabase(t)
		w := newWorld(t, database)
		peers, environ := newPeers(t, 2)
		one, two := peers[0], peers[1]
		budgets := `budgets 0 0`
		if w.redis.Enabled() {
			budgets = `budgets [1-9]\d* 0` // servers that share it count in Redis
		}
		w.startWith(t, environ)
		erase := func(user string) (code int, stdout, stderr string) {
			t.Helper()
			return command(t, nil, "-config", w.config, "erase", user)
		}

		user := two.user("erika")
		erika, anna := registerAt(t, w.front.URL, two, "erika"), registerAt(t, w.front.URL, one, "anna")
		anna.invite(t, one.user("anna"), "erika@example.com", "!tea:example.org")
		two.die() // so that there is something to be told
		w.bind(t, erika, user, "erika@example.com")
		erika.invite(t, user, "erikas-friend@example.com", "!cake:example.org")
		w.bind(t, anna, one.user("anna"), "anna@example.com")
		erika.post(t, "/validate/email/requestToken", `{"client_secret":"other","email":"erika@example.com","send_attempt":1}`)

		code, out, errs := erase(user)
		if code != 0 || errs != "" {
			t.Fatalf("exit status %d\n%s%s", code, out, errs)
		}
		want := []string{"tokens 1 0", "terms 1 0", "guesses 0 0", "sessions 2 0", "invites 2 0", "deliveries 1 0", "hashes 1 0", "bindings 1 0"}
		got := cells(out)
		if last := len(got) - 1; !regexp.MustCompile(budgets).MatchString(got[last]) {
			t.Errorf("%s, want %s", got[last], budgets)
		} else if diff := cmp.Diff(want, got[:last]); diff != "" {
			t.Error(diff)
		}
		db := direct(t, database)
		for table, columns := range map[string]string{
			"tokens": "user_id", "accepted_terms": "user_id", "bindings": "user_id || address || given",
			"sessions": "owner || address || given || COALESCE(claim_given, '')",
			"invites":  "address || sender || COALESCE(taken_by, '')", "deliveries": "user_id || address",
		} {
			if n := count(t, db, table+` WHERE `+columns+` LIKE '%erika%'`); n != 0 {
				t.Errorf("%d rows of %s still tell of the person", n, table)
			}
			if n := count(t, db, table); n == 0 && table != "invites" && table != "deliveries" {
				t.Errorf("%s has lost the other person", table)
			}
		}
		if status, answer := erika.ask(t, http.MethodGet, "/account", ""); status != http.StatusUnauthorized {
			t.Errorf("the token: %d %v", status, answer)
		}
		if found, _ := anna.lookup(t, "erika@example.com"); found != nil {
			t.Errorf("found %v", found)
		}
		if found, _ := anna.lookup(t, "anna@example.com"); found != one.user("anna") {
			t.Errorf("the other person's address is %v's", found)
		}

		if path, is := strings.CutPrefix(database, "sqlite:"); is {
			for _, name := range []string{path, path + "-wal"} {
				if data, err := os.ReadFile(name); err != nil || bytes.Contains(data, []byte("erika")) {
					t.Errorf("%s: %v, or it still holds what was removed", filepath.Base(name), err)
				}
			}
		}

		if code, out, _ := erase(user); code != 0 || strings.Count(out, "0        0") != len(got) {
			t.Errorf("again: exit status %d\n%s", code, out)
		}
		if code, _, errs := erase("erika"); code != 1 || !strings.Contains(errs, `"erika" is not a user ID`) {
			t.Errorf("what is no user ID: exit status %d, %s", code, errs)
		}
	})
}

// TestErasingFailsWhileSomethingIsLeft has the database keep a row, as somebody
// does who comes back at that very moment.
func TestErasingFailsWhileSomethingIsLeft(t *testing.T) {
	t.Parallel()
	database := storetest.SQLite(t)
	w := newWorld(t, database)
	w.register(t, w.start(t).API, "alice")
	db := direct(t, database)
	change(t, db, `CREATE TRIGGER back AFTER DELETE ON tokens BEGIN
		INSERT INTO tokens (hash, user_id, used_ms) VALUES (OLD.hash, OLD.user_id, OLD.used_ms); END`)
	code, out, errs := command(t, nil, "-config", w.config, "erase", "@alice:"+w.homeserver)
	if code != 1 || cells(out)[0] != "tokens 1 1" || !strings.Contains(errs, "erase once more") {
		t.Errorf("exit status %d\n%s%s", code, out, errs)
	}
}
