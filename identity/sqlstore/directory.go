package sqlstore

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/threepid"
)

// lockDirectory makes the transaction the only one that changes bindings or
// peppers or adds invites until it ends. A binding thus never misses a pepper
// that begins or an invite that arrives at the same moment, and writers that need several rows do not wait for each other in
// a circle. Lookups do not take the lock and never wait.
func lockDirectory(ctx context.Context, tx *sql.Tx) error {
	_, err := tx.ExecContext(ctx, `UPDATE directory SET bindings = bindings WHERE id = 1`)
	return err
}

func addBindings(ctx context.Context, tx *sql.Tx, n int) error {
	_, err := tx.ExecContext(ctx, `UPDATE directory SET bindings = bindings + $1 WHERE id = 1`, n)
	return err
}

// Bind implements identity.DirectoryStore.
func (db *DB) Bind(ctx context.Context, b identity.Binding) error {
	err := db.write.tx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		if err := lockDirectory(ctx, tx); err != nil {
			return err
		}
		id, err := upsertBinding(ctx, tx, b)
		if err != nil {
			return err
		}
		peppers, err := collect(ctx, tx, scanPepper,
			`SELECT id, value FROM peppers WHERE state <> 'retired'`)
		if err != nil {
			return err
		}
		var hashes []hash
		for _, p := range peppers {
			hashes = p.appendHashes(hashes, id, b)
		}
		if err := addHashes(ctx, tx, hashes); err != nil {
			return err
		}
		return takeInvites(ctx, tx, b)
	})
	return doing("bind", err)
}

// upsertBinding makes or replaces a binding, without its hashes, and returns its
// ID. The directory is locked.
func upsertBinding(ctx context.Context, tx *sql.Tx, b identity.Binding) (id int64, err error) {
	row := []any{string(b.ID.Medium), b.ID.Address, b.OriginalSpelling, b.UserID, b.TS.UnixMilli()}
	err = tx.QueryRowContext(ctx,
		`UPDATE bindings SET given = $3, user_id = $4, ts_ms = $5 WHERE medium = $1 AND address = $2
			RETURNING id`, row...).Scan(&id)
	if err == nil {
		_, err = tx.ExecContext(ctx, `DELETE FROM hashes WHERE binding_id = $1`, id)
		return id, err
	}
	if !errors.Is(err, sql.ErrNoRows) {
		return 0, err
	}
	err = tx.QueryRowContext(ctx,
		`INSERT INTO bindings (medium, address, given, user_id, ts_ms) VALUES ($1, $2, $3, $4, $5)
			RETURNING id`, row...).Scan(&id)
	if err != nil {
		return 0, err
	}
	return id, addBindings(ctx, tx, 1)
}

// Unbind implements identity.DirectoryStore.
func (db *DB) Unbind(ctx context.Context, id threepid.ID, userID string, by identity.Removal) (removed bool, err error) {
	err = db.write.tx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		if err := lockDirectory(ctx, tx); err != nil {
			return err
		}
		n, err := affected(tx.ExecContext(ctx, // its hashes go with it
			`DELETE FROM bindings WHERE medium = $1 AND address = $2 AND user_id = $3`,
			string(id.Medium), id.Address, userID))
		if err != nil {
			return err
		}
		if removed = n > 0; !removed {
			return nil
		}
		if err := cancelDeliveries(ctx, tx, id, userID); err != nil {
			return err
		}
		if err := db.note(ctx, tx, by, removedBinding(id)); err != nil {
			return err
		}
		return addBindings(ctx, tx, -n)
	})
	if err != nil {
		return false, fmt.Errorf("unbind: %w", err)
	}
	return removed, nil
}

// Lookup implements identity.DirectoryStore.
func (db *DB) Lookup(ctx context.Context, pepper int64, digests []identity.Digest) (map[identity.Digest]string, error) {
	query := func(args ...any) (*sql.Rows, error) { return db.read.QueryContext(ctx, db.dialect.lookup, args...) }
	if db.lookup != nil {
		query = func(args ...any) (*sql.Rows, error) { return db.lookup.QueryContext(ctx, args...) }
	}
	rows, err := query(db.dialect.list(ordered(digests)), pepper)
	if err != nil {
		return nil, fmt.Errorf("look up: %w", err)
	}
	defer rows.Close()
	users := make(map[identity.Digest]string)
	var digest sql.RawBytes
	var user string
	for rows.Next() {
		if err := rows.Scan(&digest, &user); err != nil {
			return nil, fmt.Errorf("look up: %w", err)
		}
		users[identity.Digest(digest)] = user
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("look up: %w", err)
	}
	return users, nil
}

// ordered returns the digests in about the order of the index. Databases bring
// them into it anyway, and take longer than this.
func ordered(digests []identity.Digest) []identity.Digest {
	const most = 1 << 16
	if len(digests) > most {
		return digests
	}
	keys := make([]uint64, len(digests)) // the first 48 bits of a digest and where it is
	for i := range digests {
		keys[i] = binary.BigEndian.Uint64(digests[i][:])&^(most-1) | uint64(i)
	}
	slices.Sort(keys) // numbers take a third of the time of digests
	sorted := make([]identity.Digest, len(digests))
	for i, key := range keys {
		sorted[i] = digests[key%most]
	}
	return sorted
}

// Binding implements identity.DirectoryStore.
func (db *DB) Binding(ctx context.Context, id threepid.ID) (identity.Binding, error) {
	b := identity.Binding{ID: id}
	var ts int64
	err := db.read.QueryRowContext(ctx, `SELECT user_id, ts_ms FROM bindings WHERE medium = $1 AND address = $2`,
		string(id.Medium), id.Address).Scan(&b.UserID, &ts)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return identity.Binding{}, identity.ErrNotFound
	case err != nil:
		return identity.Binding{}, fmt.Errorf("find a binding: %w", err)
	}
	b.TS = time.UnixMilli(ts)
	return b, nil
}

// Bindings implements identity.DirectoryStore.
func (db *DB) Bindings(ctx context.Context) (n int64, err error) {
	err = db.read.QueryRowContext(ctx, `SELECT bindings FROM directory WHERE id = 1`).Scan(&n)
	return n, doing("number of bindings", err)
}

// hash is a row of hashes.
type hash struct {
	digest          identity.Digest
	pepper, binding int64
}

// pepper is the part of a row of peppers that digests need.
type pepper struct {
	id    int64
	value string
}

func scanPepper(r *sql.Rows) (p pepper, err error) {
	err = r.Scan(&p.id, &p.value)
	return p, err
}

// appendHashes adds the hashes of a binding under p.
func (p pepper) appendHashes(to []hash, binding int64, b identity.Binding) []hash {
	for _, d := range b.Digests(p.value) {
		to = append(to, hash{digest: d, pepper: p.id, binding: binding})
	}
	return to
}

// addHashes adds the rows that are not there yet.
func addHashes(ctx context.Context, tx *sql.Tx, hashes []hash) error {
	const most = 250 // rows in one statement; databases bound its parameters
	for batch := range slices.Chunk(hashes, most) {
		args := make([]any, 0, 3*len(batch))
		for i := range batch {
			args = append(args, batch[i].digest[:], batch[i].pepper, batch[i].binding)
		}
		if _, err := tx.ExecContext(ctx, insertHashes(len(batch)), args...); err != nil {
			return err
		}
	}
	return nil
}

// insertHashes returns the statement that adds n rows.
func insertHashes(n int) string {
	var s strings.Builder
	s.WriteString(`INSERT INTO hashes (digest, pepper_id, binding_id) VALUES `)
	for i := range n {
		if i > 0 {
			s.WriteByte(',')
		}
		fmt.Fprintf(&s, "($%d,$%d,$%d)", 3*i+1, 3*i+2, 3*i+3)
	}
	s.WriteString(` ON CONFLICT (digest) DO NOTHING`)
	return s.String()
}

// millis reads a column of milliseconds that may be NULL, as the zero time.
func millis(ms sql.NullInt64) time.Time {
	if !ms.Valid {
		return time.Time{}
	}
	return time.UnixMilli(ms.Int64)
}
