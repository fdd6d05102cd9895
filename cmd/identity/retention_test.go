package main

import (
	"crypto/rand"
	"database/sql"
	"testing"
	"time"

	"github.com/matrix-herald/herald/identity/sqlstore"
	"github.com/matrix-herald/herald/identity/storetest"
)

// TestNothingIsKeptLongerThanPromised starts a service on a database in which each
// thing that ends is once just too old and once not, and waits for the former to
// go. docs/operate.md has them as a table.
//
// Conformance (security): nothing but bindings and signing keys is kept without an end
func TestNothingIsKeptLongerThanPromised(t *testing.T) {
	t.Parallel()
	database := storetest.SQLite(t)
	store, err := sqlstore.Open(t.Context(), sqlstore.Options{URL: database})
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	db := direct(t, database)
	const day = 24 * time.Hour
	// Somebody with a token and one with a binding keep the terms they accepted.
	change(t, db, `INSERT INTO tokens (hash, user_id, used_ms) VALUES ($1, '@old:example.org', $2)`, random(), millisAgo(0))
	change(t, db, `INSERT INTO bindings (medium, address, given, user_id, ts_ms) VALUES ('email', 'a@example.com', '', '@bound:example.org', 0)`)
	change(t, db, `UPDATE directory SET bindings = 1`)
	change(t, db, `INSERT INTO accepted_terms (user_id, url, accepted_ms) VALUES ('@old:example.org', 'u', $1), ('@bound:example.org', 'u', $1)`, millisAgo(400*day))

	const minute = time.Minute // what the service may take to start, many times over
	rows := []struct {
		name     string
		add      func(name string, age time.Duration) // what was touched that long ago
		count    string                               // of those with the name $1
		old, new time.Duration
	}{
		{"access tokens", func(name string, age time.Duration) {
			change(t, db, `INSERT INTO tokens (hash, user_id, used_ms) VALUES ($1, $2, $3)`, random(), name, millisAgo(age))
		}, `tokens WHERE user_id = $1`, 180 * day, 180*day - 30*minute},
		{"terms", func(name string, age time.Duration) {
			change(t, db, `INSERT INTO accepted_terms (user_id, url, accepted_ms) VALUES ($1, 'u', $2)`, name, millisAgo(age))
		}, `accepted_terms WHERE user_id = $1`, 180 * day, 180*day - 30*minute},
		{"addresses of sessions", func(name string, age time.Duration) { addSession(t, db, name, 0, millisAgo(age)) },
			`sessions WHERE sid = $1 AND (address <> '' OR owner <> '')`, 0, -30 * minute},
		{"sessions", func(name string, age time.Duration) { addSession(t, db, name, 1, millisAgo(age)) },
			`sessions WHERE sid = $1`, 7 * day, 7*day - 30*minute},
		{"wrong guesses", func(name string, age time.Duration) {
			change(t, db, `INSERT INTO wrong_guesses (medium, address, since_ms, wrong) VALUES ('msisdn', $1, $2, 1)`, name, millisAgo(age))
		}, `wrong_guesses WHERE address = $1`, day, day - 30*minute},
		{"invites", func(name string, age time.Duration) { addInvite(t, db, name, millisAgo(age), nil) },
			`invites WHERE token = $1`, 0, -30 * minute},
		{"invites that were used", func(name string, age time.Duration) { addInvite(t, db, name, millisAgo(-day), millisAgo(age)) },
			`invites WHERE token = $1`, day, day - 30*minute},
		{"what homeservers are to be told", func(name string, age time.Duration) {
			change(t, db, `INSERT INTO deliveries (medium, address, user_id, server, ts_ms, until_ms, due_ms)
				VALUES ('email', 'x@example.com', '@x:example.org', $1, 0, $2, $3)`, name, millisAgo(age), millisAgo(-day))
		}, `deliveries WHERE server = $1`, 0, -30 * minute},
		{"keys of imported invites", func(name string, age time.Duration) {
			change(t, db, `INSERT INTO imported_keys (public_key, expires_ms) VALUES ($1, $2)`, []byte(name), millisAgo(age))
		}, `imported_keys WHERE public_key = $1`, 0, -30 * minute},
		{"digests under old peppers", func(name string, age time.Duration) {
			change(t, db, `INSERT INTO peppers (id, value, state, since_ms, until_ms)
				SELECT COALESCE(MAX(id), 0) + 1, $1, 'previous', 0, $2 FROM peppers`, name, millisAgo(age))
			change(t, db, `INSERT INTO hashes (digest, pepper_id, binding_id) SELECT $1, MAX(peppers.id), MAX(bindings.id) FROM peppers, bindings`, random())
		}, `peppers JOIN hashes ON hashes.pepper_id = peppers.id WHERE peppers.value = $1`, 10 * minute, -30 * minute},
	}
	counted := func(query, name string) int {
		if query == `imported_keys WHERE public_key = $1` {
			return count(t, db, query, []byte(name))
		}
		return count(t, db, query, name)
	}
	for _, r := range rows {
		r.add("old "+r.name, r.old)
		r.add("new "+r.name, r.new)
		if counted(r.count, "old "+r.name) != 1 {
			t.Fatalf("%s: what is to go is not there", r.name)
		}
	}
	newWorld(t, database).start(t)
	for _, r := range rows {
		eventually(t, r.name+" are removed", func() bool { return counted(r.count, "old "+r.name) == 0 })
		if counted(r.count, "new "+r.name) != 1 {
			t.Errorf("%s are removed too early", r.name)
		}
	}
	if n := count(t, db, `accepted_terms WHERE user_id IN ('@old:example.org', '@bound:example.org')`); n != 2 {
		t.Errorf("%d of 2 people with a token or a binding keep what they accepted", n)
	}
}

func random() []byte { return []byte(rand.Text() + rand.Text()) }

// millisAgo returns a time in the past, or the future if ago is negative.
func millisAgo(ago time.Duration) int64 { return time.Now().Add(-ago).UnixMilli() }

func addSession(t *testing.T, db *sql.DB, sid string, retired int, expires int64) {
	t.Helper()
	address, owner := sid+"@example.com", "@a:example.com"
	if retired == 1 {
		address, owner = "", ""
	}
	change(t, db, `INSERT INTO sessions (sid, medium, address, owner, secret_hash, retired, expires_ms) VALUES ($1, 'email', $2, $3, $4, $5, $6)`,
		sid, address, owner, random(), retired, expires)
}

func addInvite(t *testing.T, db *sql.DB, token string, expires int64, used any) {
	t.Helper()
	change(t, db, `INSERT INTO invites (token, ephemeral, key_id, medium, address, room_id, sender,
			room_name, room_type, room_avatar, sender_name, client, created_ms, expires_ms, used_ms)
		VALUES ($1, $2, 'ed25519:1', 'email', 'x@example.com', '!r:example.org', '@x:example.org', '', '', '', '', '', 0, $3, $4)`,
		token, random(), expires, used)
}
