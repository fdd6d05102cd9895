package sqlstore

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
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
	_, err := db.jobs.ExecContext(ctx,
		`INSERT INTO imports (id, begun_ms) VALUES (1, $1)
			ON CONFLICT (id) DO UPDATE SET begun_ms = excluded.begun_ms`, begun.UnixMilli())
	return doing("finish an import", err)
}

// ImportBindings makes bindings, each of another identifier, in one transaction,
// but for those that were removed here since they were made. Where there is a
// binding already, the newer of the two stays.
func (db *DB) ImportBindings(ctx context.Context, bindings []identity.Binding) (r identity.Imported, err error) {
	err = db.jobs.tx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		r = identity.Imported{}
		if err := lockDirectory(ctx, tx); err != nil {
			return err
		}
		known, err := db.findRemovals(ctx, tx, each(bindings, removalsOf))
		if err != nil {
			return err
		}
		peppers, err := collect(ctx, tx, scanPepper, `SELECT id, value FROM peppers WHERE state <> 'retired'`)
		if err != nil {
			return err
		}
		var hashes []hash
		for batch := range slices.Chunk(bindings, importRows) {
			batch = slices.DeleteFunc(slices.Clone(batch), func(b identity.Binding) bool {
				return known.since(b.TS, removalsOf(b)...)
			})
			ids, err := importBindings(ctx, tx, batch)
			if err != nil {
				return err
			}
			r.New += len(ids)
			r.Removed -= len(batch)
			for _, b := range batch {
				if id, ok := ids[b.ID]; ok {
					for _, p := range peppers {
						hashes = p.appendHashes(hashes, id, b)
					}
				}
			}
		}
		r.Removed += len(bindings)
		return addHashes(ctx, tx, hashes)
	})
	if err != nil {
		return identity.Imported{}, fmt.Errorf("import bindings: %w", err)
	}
	return r, nil
}

// removalsOf are the removals that keep a binding from being made again.
func removalsOf(b identity.Binding) []removed {
	return []removed{removedBinding(b.ID), removedAddress(b.ID), removedUser(b.UserID)}
}

// each returns what of makes of all, one after the other.
func each[T, U any](all []T, of func(T) []U) (made []U) {
	for _, one := range all {
		made = append(made, of(one)...)
	}
	return made
}

// importBindings adds up to importRows bindings, without their hashes, and
// returns the IDs of those that were made or replaced. The directory is locked.
func importBindings(ctx context.Context, tx *sql.Tx, batch []identity.Binding) (map[threepid.ID]int64, error) {
	if len(batch) == 0 {
		return nil, nil
	}
	args := make([]any, 0, 5*len(batch))
	for _, b := range batch {
		args = append(args, string(b.ID.Medium), b.ID.Address, b.OriginalSpelling, b.UserID, b.TS.UnixMilli())
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
		string(b.ID.Medium), b.ID.Address, b.OriginalSpelling, b.UserID, b.TS.UnixMilli()).Scan(&id)
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
	err = db.jobs.tx(ctx, func(ctx context.Context, tx *sql.Tx) error {
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

// ImportTokens adds access tokens of users, used at now, in one transaction, but
// for those that were removed here, or whose user was.
func (db *DB) ImportTokens(ctx context.Context, users map[identity.Digest]string, now time.Time) (identity.Imported, error) {
	// In one order, so that two imports do not deadlock.
	digests := slices.SortedFunc(maps.Keys(users), func(a, b identity.Digest) int { return bytes.Compare(a[:], b[:]) })
	r, err := importNew(ctx, db, digests,
		func(d identity.Digest) []removed { return []removed{removedToken(d), removedUser(users[d])} },
		func(d identity.Digest) []any { return []any{d[:], users[d], now.UnixMilli(), 1} },
		`INSERT INTO tokens (hash, user_id, used_ms, imported) VALUES `, ` ON CONFLICT (hash) DO NOTHING`)
	if err != nil {
		return r, fmt.Errorf("import tokens: %w", err)
	}
	return r, nil
}

// ImportTerms adds to what users accepted the URLs that users maps them to, in
// one transaction, but for users who were removed here.
func (db *DB) ImportTerms(ctx context.Context, users map[string][]string, now time.Time) (identity.Imported, error) {
	var accepted [][2]string
	for _, user := range slices.Sorted(maps.Keys(users)) {
		for _, u := range users[user] {
			accepted = append(accepted, [2]string{user, u})
		}
	}
	r, err := importNew(ctx, db, accepted,
		func(a [2]string) []removed { return []removed{removedUser(a[0])} },
		func(a [2]string) []any { return []any{a[0], a[1], now.UnixMilli()} },
		`INSERT INTO accepted_terms (user_id, url, accepted_ms) VALUES `, ` ON CONFLICT (user_id, url) DO NOTHING`)
	if err != nil {
		return r, fmt.Errorf("import accepted terms: %w", err)
	}
	return r, nil
}

// ImportInvites adds, in one transaction, the invites that are not there yet, whose
// addresses nobody has bound, and that were not removed here.
func (db *DB) ImportInvites(ctx context.Context, invites []identity.Invite) (r identity.Imported, err error) {
	people := func(i identity.Invite) []removed { return []removed{removedUser(i.Sender), removedAddress(i.Address)} }
	err = db.jobs.tx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		r = identity.Imported{}
		if err := lockDirectory(ctx, tx); err != nil {
			return err
		}
		known, err := db.findRemovals(ctx, tx, each(invites, func(i identity.Invite) []removed {
			return append(people(i), removedInvite(i.Token))
		}))
		if err != nil {
			return err
		}
		for _, i := range invites {
			if known.since(time.Time{}, removedInvite(i.Token)) || known.since(i.Created, people(i)...) {
				r.Removed++
				continue
			}
			_, err := boundTo(ctx, tx, i.Address)
			if err == nil {
				r.Bound++
				continue
			}
			if !errors.Is(err, identity.ErrNotFound) {
				return err
			}
			n, err := affected(insertInvite(ctx, tx, i, ` ON CONFLICT DO NOTHING`))
			if err != nil {
				return err
			}
			r.New += n
		}
		return nil
	})
	if err != nil {
		return identity.Imported{}, fmt.Errorf("import invites: %w", err)
	}
	return r, nil
}

// ImportKeys adds keys of invites in one transaction.
func (db *DB) ImportKeys(ctx context.Context, keys []identity.InviteKey) (identity.Imported, error) {
	keys = slices.SortedFunc(slices.Values(keys), func(a, b identity.InviteKey) int { return bytes.Compare(a.Public, b.Public) })
	r, err := importNew(ctx, db, keys,
		func(identity.InviteKey) []removed { return nil },
		func(k identity.InviteKey) []any { return []any{[]byte(k.Public), k.Expires.UnixMilli()} },
		`INSERT INTO imported_keys (public_key, expires_ms) VALUES `, ` ON CONFLICT (public_key) DO NOTHING`)
	if err != nil {
		return r, fmt.Errorf("import keys of invites: %w", err)
	}
	return r, nil
}

// importNew adds a row for each of all, in one transaction, but for those that
// were removed here at any time.
func importNew[T any](ctx context.Context, db *DB, all []T, of func(T) []removed, row func(T) []any, insert, onConflict string) (r identity.Imported, err error) {
	err = db.jobs.tx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		r = identity.Imported{}
		known, err := db.findRemovals(ctx, tx, each(all, of))
		if err != nil {
			return err
		}
		var rows [][]any
		for _, one := range all {
			if known.since(time.Time{}, of(one)...) {
				r.Removed++
			} else {
				rows = append(rows, row(one))
			}
		}
		for batch := range slices.Chunk(rows, importRows) {
			n, err := affected(tx.ExecContext(ctx,
				insert+placeholders(len(batch), len(batch[0]))+onConflict, slices.Concat(batch...)...))
			if err != nil {
				return err
			}
			r.New += n
		}
		return nil
	})
	return r, err
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
