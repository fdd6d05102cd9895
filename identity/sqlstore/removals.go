package sqlstore

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"time"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/threepid"
)

// removed is something that was removed on purpose: what kind of thing it was, and
// what tells it from others.
type removed struct {
	kind string
	name string
}

// The kinds of what is removed. A binding is removed with its address alone, and
// an address with all that is kept of it.
func removedBinding(id threepid.ID) removed {
	return removed{"binding", id.Address + " " + string(id.Medium)}
}
func removedAddress(id threepid.ID) removed {
	return removed{"address", id.Address + " " + string(id.Medium)}
}
func removedUser(userID string) removed      { return removed{"user", userID} }
func removedToken(t identity.Digest) removed { return removed{"token", string(t[:])} }
func removedInvite(token string) removed     { return removed{"invite", token} }

// fingerprint is what is kept of r.
func (db *DB) fingerprint(r removed) identity.Digest {
	return sha256.Sum256([]byte(db.salt + "\x00" + r.kind + "\x00" + r.name))
}

func (db *DB) fingerprints(all []removed) []identity.Digest {
	prints := make([]identity.Digest, len(all))
	for i, r := range all {
		prints[i] = db.fingerprint(r)
	}
	return prints
}

// note remembers that something was removed. Removing the same thing again changes
// the same row.
func (db *DB) note(ctx context.Context, tx *sql.Tx, by identity.Removal, all ...removed) error {
	for _, r := range all {
		f := db.fingerprint(r)
		onConflict := ""
		if by.By == "" {
			onConflict = ` ON CONFLICT (fingerprint) WHERE removed_by = '' DO UPDATE SET removed_ms = excluded.removed_ms`
		}
		_, err := tx.ExecContext(ctx,
			`INSERT INTO removals (fingerprint, kind, removed_ms, removed_by) VALUES ($1, $2, $3, $4)`+onConflict,
			f[:], r.kind, by.At.UnixMilli(), by.By)
		if err != nil {
			return err
		}
	}
	return nil
}

// removals are when things were removed, by fingerprint.
type removals struct {
	db *DB
	at map[identity.Digest]int64
}

// findRemovals returns when each of some things was removed last.
func (db *DB) findRemovals(ctx context.Context, q querier, all []removed) (removals, error) {
	r := removals{db, make(map[identity.Digest]int64)}
	_, err := collect(ctx, q, func(rows *sql.Rows) (struct{}, error) {
		var found []byte
		var at int64
		err := rows.Scan(&found, &at)
		r.at[identity.Digest(found)] = at
		return struct{}{}, err
	}, `SELECT fingerprint, MAX(removed_ms) FROM removals WHERE fingerprint `+db.dialect.inList+` GROUP BY fingerprint`,
		db.dialect.list(db.fingerprints(all)))
	return r, err
}

// since reports whether one of some things that are as old as at was removed
// then or later.
func (r removals) since(at time.Time, all ...removed) bool {
	for _, one := range all {
		if ms, ok := r.at[r.db.fingerprint(one)]; ok && ms >= at.UnixMilli() {
			return true
		}
	}
	return false
}
