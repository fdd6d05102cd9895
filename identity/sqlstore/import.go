package sqlstore

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/threepid"
)

// importRows is how many rows one statement of an import adds; databases bound
// its parameters.
const importRows = 250

// LastImport returns when the last import that came to its end was begun, the
// zero time if none has.
func (db *DB) LastImport(ctx context.Context) (time.Time, error) {
	var begun sql.NullInt64
	err := db.read.QueryRowContext(ctx, `SELECT begun_ms FROM imports WHERE id = 1`).Scan(&begun)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return time.Time{}, fmt.Errorf("last import: %w", err)
	}
	return millis(begun), nil
}

// FinishImport notes that an import begun at begun has come to its end.
func (db *DB) FinishImport(ctx context.Context, begun time.Time) error {
	_, err := db.write.ExecContext(ctx,
		`INSERT INTO imports (id, begun_ms) VALUES (1, $1)
			ON CONFLICT (id) DO UPDATE SET begun_ms = excluded.begun_ms`, begun.UnixMilli())
	if err != nil {
		return fmt.Errorf("finish an import: %w", err)
	}
	return nil
}

// ImportBindings makes bindings, each of another identifier, in one transaction.
// Where there is one already, the newer of the two stays. It returns how many
// were made or replaced.
func (db *DB) ImportBindings(ctx context.Context, bindings []identity.Binding) (changed int, err error) {
	err = db.write.tx(ctx, func(tx *sql.Tx) error {
		if err := lockDirectory(ctx, tx); err != nil {
			return err
		}
		peppers, err := collect(ctx, tx, scanPepper, `SELECT id, value FROM peppers WHERE state <> 'retired'`)
		if err != nil {
			return err
		}
		var hashes []hash
		for batch := range slices.Chunk(bindings, importRows) {
			ids, err := importBindings(ctx, tx, batch)
			if err != nil {
				return err
			}
			changed += len(ids)
			for _, b := range batch {
				if id, ok := ids[b.ID]; ok {
					for _, p := range peppers {
						hashes = p.appendHashes(hashes, id, b)
					}
				}
			}
		}
		return addHashes(ctx, tx, hashes)
	})
	if err != nil {
		return 0, fmt.Errorf("import bindings: %w", err)
	}
	return changed, nil
}

// importBindings adds up to importRows bindings, without their hashes, and
// returns the IDs of those that were made or replaced. The directory is locked.
func importBindings(ctx context.Context, tx *sql.Tx, batch []identity.Binding) (map[threepid.ID]int64, error) {
	args := make([]any, 0, 5*len(batch))
	for _, b := range batch {
		args = append(args, string(b.ID.Medium), b.ID.Address, b.Given, b.UserID, b.TS.UnixMilli())
	}
	made, err := collect(ctx, tx, func(r *sql.Rows) (s stored, err error) {
		var medium string
		err = r.Scan(&s.id, &medium, &s.ID.Address)
		s.ID.Medium = threepid.Medium(medium)
		return s, err
	}, `INSERT INTO bindings (medium, address, given, user_id, ts_ms) VALUES `+placeholders(len(batch), 5)+
		` ON CONFLICT (medium, address) DO NOTHING RETURNING id, medium, address`, args...)
	if err != nil {
		return nil, err
	}
	ids := make(map[threepid.ID]int64, len(batch))
	for _, s := range made {
		ids[s.ID] = s.id
	}
	for _, b := range batch {
		if _, ok := ids[b.ID]; ok {
			continue
		}
		id, err := renewBinding(ctx, tx, b)
		if errors.Is(err, sql.ErrNoRows) {
			continue
		}
		if err != nil {
			return nil, err
		}
		ids[b.ID] = id
	}
	return ids, addBindings(ctx, tx, len(made))
}

// renewBinding replaces an older binding, removes its hashes and returns its ID,
// or sql.ErrNoRows if there is none that is older.
func renewBinding(ctx context.Context, tx *sql.Tx, b identity.Binding) (id int64, err error) {
	err = tx.QueryRowContext(ctx,
		`UPDATE bindings SET given = $3, user_id = $4, ts_ms = $5
			WHERE medium = $1 AND address = $2 AND ts_ms < $5 RETURNING id`,
		string(b.ID.Medium), b.ID.Address, b.Given, b.UserID, b.TS.UnixMilli()).Scan(&id)
	if err != nil {
		return 0, err
	}
	_, err = tx.ExecContext(ctx, `DELETE FROM hashes WHERE binding_id = $1`, id)
	return id, err
}

// ImportRemovals removes, in one transaction, the bindings of identifiers that
// are not newer than the TS at which they were removed elsewhere, whoever's they
// are. It returns how many there were.
func (db *DB) ImportRemovals(ctx context.Context, removals []identity.Binding) (removed int, err error) {
	err = db.write.tx(ctx, func(tx *sql.Tx) error {
		if err := lockDirectory(ctx, tx); err != nil {
			return err
		}
		for _, r := range removals {
			n, err := affected(tx.ExecContext(ctx,
				`DELETE FROM bindings WHERE medium = $1 AND address = $2 AND ts_ms <= $3`,
				string(r.ID.Medium), r.ID.Address, r.TS.UnixMilli()))
			if err != nil {
				return err
			}
			removed += n
		}
		return addBindings(ctx, tx, -removed)
	})
	if err != nil {
		return 0, fmt.Errorf("import removals: %w", err)
	}
	return removed, nil
}

// ImportTokens adds access tokens of users, used at now, in one transaction, and
// returns how many were not there yet.
func (db *DB) ImportTokens(ctx context.Context, users map[identity.Digest]string, now time.Time) (added int, err error) {
	digests := make([]identity.Digest, 0, len(users))
	for d := range users {
		digests = append(digests, d)
	}
	// In one order, so that two imports do not deadlock.
	slices.SortFunc(digests, func(a, b identity.Digest) int { return bytes.Compare(a[:], b[:]) })
	rows := make([][]any, len(digests))
	for i, d := range digests {
		rows[i] = []any{d[:], users[d], now.UnixMilli()}
	}
	added, err = db.importNew(ctx, rows,
		`INSERT INTO tokens (hash, user_id, used_ms) VALUES `, ` ON CONFLICT (hash) DO NOTHING`)
	if err != nil {
		return 0, fmt.Errorf("import tokens: %w", err)
	}
	return added, nil
}

// ImportTerms adds to what users accepted the URLs that users maps them to, in
// one transaction, and returns how many were not there yet.
func (db *DB) ImportTerms(ctx context.Context, users map[string][]string, now time.Time) (added int, err error) {
	var rows [][]any
	for user, urls := range users {
		for _, u := range urls {
			rows = append(rows, []any{user, u, now.UnixMilli()})
		}
	}
	slices.SortFunc(rows, func(a, b []any) int {
		return strings.Compare(a[0].(string)+"\x00"+a[1].(string), b[0].(string)+"\x00"+b[1].(string))
	})
	added, err = db.importNew(ctx, rows,
		`INSERT INTO accepted_terms (user_id, url, accepted_ms) VALUES `, ` ON CONFLICT (user_id, url) DO NOTHING`)
	if err != nil {
		return 0, fmt.Errorf("import accepted terms: %w", err)
	}
	return added, nil
}

// ImportInvites adds, in one transaction, the invites that are not there yet and
// whose addresses nobody has bound. It returns how many were added, and how many
// were not because the address is bound.
func (db *DB) ImportInvites(ctx context.Context, invites []identity.Invite) (added, bound int, err error) {
	err = db.write.tx(ctx, func(tx *sql.Tx) error {
		if err := lockDirectory(ctx, tx); err != nil {
			return err
		}
		for _, i := range invites {
			_, err := boundTo(ctx, tx, i.Address)
			if err == nil {
				bound++
				continue
			}
			if !errors.Is(err, identity.ErrNotFound) {
				return err
			}
			n, err := affected(insertInvite(ctx, tx, i, ` ON CONFLICT DO NOTHING`))
			if err != nil {
				return err
			}
			added += n
		}
		return nil
	})
	if err != nil {
		return 0, 0, fmt.Errorf("import invites: %w", err)
	}
	return added, bound, nil
}

// ImportKeys adds keys of invites in one transaction, and returns how many were
// not there yet.
func (db *DB) ImportKeys(ctx context.Context, keys []identity.InviteKey) (added int, err error) {
	keys = slices.SortedFunc(slices.Values(keys), func(a, b identity.InviteKey) int { return bytes.Compare(a.Public, b.Public) })
	rows := make([][]any, len(keys))
	for i, k := range keys {
		rows[i] = []any{[]byte(k.Public), k.Expires.UnixMilli()}
	}
	added, err = db.importNew(ctx, rows,
		`INSERT INTO imported_keys (public_key, expires_ms) VALUES `, ` ON CONFLICT (public_key) DO NOTHING`)
	if err != nil {
		return 0, fmt.Errorf("import keys of invites: %w", err)
	}
	return added, nil
}

// importNew adds rows, all of one length, in one transaction and returns how
// many were added.
func (db *DB) importNew(ctx context.Context, rows [][]any, insert, onConflict string) (added int, err error) {
	err = db.write.tx(ctx, func(tx *sql.Tx) error {
		for batch := range slices.Chunk(rows, importRows) {
			n, err := affected(tx.ExecContext(ctx,
				insert+placeholders(len(batch), len(batch[0]))+onConflict, slices.Concat(batch...)...))
			if err != nil {
				return err
			}
			added += n
		}
		return nil
	})
	return added, err
}

// placeholders returns "($1,$2),($3,$4)" for two rows of two columns.
func placeholders(rows, columns int) string {
	var s strings.Builder
	for i := range rows * columns {
		switch {
		case i == 0:
			s.WriteByte('(')
		case i%columns == 0:
			s.WriteString("),(")
		default:
			s.WriteByte(',')
		}
		fmt.Fprintf(&s, "$%d", i+1)
	}
	s.WriteByte(')')
	return s.String()
}
