package sydent_test

import (
	"testing"

	"github.com/matrix-herald/herald/identity/sydent"
)

// FuzzRows puts anything into the rows of a Sydent that strangers filled: a row
// that means nothing is left out and counted, and stops nothing.
func FuzzRows(f *testing.F) {
	f.Add("email", "alice@example.com", "@alice:example.org", int64(1_700_000_000_000), "token")
	f.Add("msisdn", "447700900001", "@bob:example.org", int64(0), "")
	f.Add("email", "a@b@c", "alice", int64(-1), "\xff\x00")
	f.Add("", "\xff", "@:", int64(1)<<62, "https://example.org/terms")
	o := newOld(f)
	o.db.SetMaxOpenConns(1)
	o.exec(f, `PRAGMA synchronous = OFF`)
	o.exec(f, `PRAGMA journal_mode = MEMORY`)
	f.Fuzz(func(t *testing.T, medium, address, user string, at int64, text string) {
		for _, table := range []string{
			"local_threepid_associations", "global_threepid_associations", "accounts", "tokens", "accepted_terms_urls", "invite_tokens",
		} {
			o.exec(t, "DELETE FROM "+table)
		}
		o.exec(t, `INSERT INTO local_threepid_associations (medium, address, mxid, ts, notBefore, notAfter) VALUES (?, ?, ?, ?, ?, ?)`,
			medium, address, user, at, at, at)
		o.exec(t, `INSERT INTO global_threepid_associations (medium, address, mxid, ts, notBefore, notAfter, originServer, originId, sgAssoc)
			VALUES (?, ?, ?, ?, ?, ?, ?, 1, '{}')`, medium, address, user, at, at, at, serverName)
		o.exec(t, `INSERT INTO accounts (user_id, created_ts) VALUES (?, ?)`, user, at)
		o.exec(t, `INSERT INTO tokens (token, user_id) VALUES (?, ?)`, text, user)
		o.exec(t, `INSERT INTO accepted_terms_urls (user_id, url) VALUES (?, ?)`, user, text)
		o.exec(t, `INSERT INTO invite_tokens (medium, address, room_id, sender, token, received_ts) VALUES (?, ?, ?, ?, ?, ?)`,
			medium, address, text, user, text, at)
		db, err := sydent.Open(t.Context(), o.path)
		if err != nil {
			t.Fatal(err)
		}
		defer o.close(t, db)
		if _, err := sydent.DryRun(t.Context(), sydent.Options{Database: db, Key: newKey(t, "ed25519:0", seed), Now: now, Progress: silent}); err != nil {
			t.Errorf("%q %q %q %d %q: %v", medium, address, user, at, text, err)
		}
	})
}
