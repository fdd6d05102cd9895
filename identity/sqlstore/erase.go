package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/threepid"
)

// How much of a person is removed in one transaction, so that others wait for
// milliseconds.
const (
	eraseRows       = 1000
	eraseConditions = 100
)

// erasable is a table with rows of people.
type erasable struct {
	name, table, key string
	// byUser are conditions for the rows of the user $1, and byAddress is one for
	// those of the address $2 of the medium $1. Each finds its rows by an index, and
	// is never NULL.
	byUser    []string
	byAddress string
	// bound says that the rows of an address are only those of who has bound it.
	bound bool
	// cascades says that other rows take these with them.
	cascades bool
	// noted makes of the columns notedBy what is noted of each row, unless it is nil.
	noted   func(*sql.Rows) (removed, error)
	notedBy string
}

// erasableTables are the tables to erase people from, in that order: by the
// bindings the others are found, so they come last.
func erasableTables() []erasable {
	const ofAddress = `medium = $1 AND address = $2`
	const takenBy = `taken_by IS NOT NULL AND taken_by = $1`
	return []erasable{
		{name: "tokens", table: "tokens", key: "hash", byUser: []string{`user_id = $1`}},
		{name: "terms", table: "accepted_terms", key: "user_id, url", byUser: []string{`user_id = $1`}},
		{name: "guesses", table: "wrong_guesses", key: "medium, address", byAddress: ofAddress},
		{
			name: "sessions", table: "sessions", key: "sid", // retired ones have neither owner nor address
			byUser: []string{`owner = $1 AND owner <> '' AND retired = 0`}, byAddress: ofAddress + ` AND retired = 0`,
		},
		{
			name: "invites", table: "invites", key: "id", byUser: []string{`sender = $1`, takenBy}, byAddress: ofAddress,
			noted: func(r *sql.Rows) (removed, error) {
				token, err := scanOne[string](r)
				return removedInvite(token), err
			}, notedBy: "token",
		},
		{
			name: "deliveries", table: "deliveries", key: "id", byAddress: ofAddress,
			byUser: []string{`user_id = $1`, `invite_id IS NOT NULL AND invite_id IN (SELECT id FROM invites WHERE sender = $1)`},
		},
		{
			name: "hashes", table: "hashes", key: "digest", bound: true, cascades: true,
			byUser:    []string{`binding_id IN (SELECT id FROM bindings WHERE user_id = $1)`},
			byAddress: `binding_id IN (SELECT id FROM bindings WHERE ` + ofAddress + `)`,
		},
		{
			name: "bindings", table: "bindings", key: "id", bound: true, byUser: []string{`user_id = $1`}, byAddress: ofAddress,
			noted: func(r *sql.Rows) (removed, error) {
				id, err := scanAddress(r)
				return removedBinding(id), err
			}, notedBy: "medium, address",
		},
	}
}

// condition is one that rows are found by, with its arguments.
type condition struct {
	where string
	args  []any
}

// conditions find each row of a person once.
func (in erasable) conditions(p identity.Person) (all []condition) {
	others := "" // than those that the conditions before find
	if p.UserID != "" {
		for _, c := range in.byUser {
			all = append(all, condition{c + others, []any{p.UserID}})
			others += ` AND NOT (` + c + `)`
		}
	}
	if in.byAddress == "" || in.bound && p.UserID != "" {
		return all
	}
	for _, id := range p.Addresses {
		c := condition{in.byAddress, []any{string(id.Medium), id.Address}}
		if others != "" {
			c.where += strings.ReplaceAll(others, "$1", "$3")
			c.args = append(c.args, p.UserID)
		}
		all = append(all, c)
	}
	return all
}

// BoundAddresses implements identity.EraseStore.
func (db *DB) BoundAddresses(ctx context.Context, userID string) ([]threepid.ID, error) {
	ids, err := collect(ctx, db.read, scanAddress, `SELECT medium, address FROM bindings WHERE user_id = $1`, userID)
	if err != nil {
		return nil, fmt.Errorf("addresses of a user: %w", err)
	}
	return ids, nil
}

func scanAddress(r *sql.Rows) (id threepid.ID, err error) {
	err = r.Scan(&id.Medium, &id.Address)
	return id, err
}

// Erase implements identity.EraseStore.
func (db *DB) Erase(ctx context.Context, p identity.Person, by identity.Removal, progress identity.Progress) ([]identity.Erased, error) {
	found, err := db.countOf(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("count what there is: %w", err)
	}
	if _, err := db.jobs.ExecContext(ctx, db.dialect.beforeErasing); err != nil {
		return nil, fmt.Errorf("erase: %w", err)
	}
	if err := db.erase(ctx, p, by, found, progress); err != nil {
		return nil, fmt.Errorf("erase: %w", err)
	}
	if _, err := db.jobs.ExecContext(ctx, db.dialect.afterErasing); err != nil {
		return nil, fmt.Errorf("overwrite what was erased: %w", err)
	}
	left, err := db.countOf(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("count what is left: %w", err)
	}
	for i := range found {
		found[i].Left = left[i].Found
	}
	return found, nil
}

// countOf returns how many rows of a person there are in each table, as Found.
func (db *DB) countOf(ctx context.Context, p identity.Person) (all []identity.Erased, err error) {
	for _, table := range erasableTables() {
		e := identity.Erased{Table: table.name}
		for _, c := range table.conditions(p) {
			n, err := collect(ctx, db.read, scanOne[int], `SELECT COUNT(*) FROM `+table.table+` WHERE `+c.where, c.args...)
			if err != nil {
				return nil, err
			}
			e.Found += n[0]
		}
		all = append(all, e)
	}
	return all, nil
}

// erase removes the rows of a person in steps. Somebody who is erased again when
// it was broken off loses the rest.
func (db *DB) erase(ctx context.Context, p identity.Person, by identity.Removal, found []identity.Erased, progress identity.Progress) error {
	done, total := 0, 0
	for _, e := range found {
		total += e.Found
	}
	who := each(p.Addresses, func(id threepid.ID) []removed { return []removed{removedAddress(id)} })
	if p.UserID != "" {
		who = append(who, removedUser(p.UserID))
	}
	// First, because nobody knows a user's addresses once it was broken off.
	for some := range slices.Chunk(who, eraseRows) {
		if err := db.jobs.tx(ctx, func(ctx context.Context, tx *sql.Tx) error { return db.note(ctx, tx, by, some...) }); err != nil {
			return err
		}
	}
	for _, table := range erasableTables() {
		if table.cascades {
			continue
		}
		for conditions := range slices.Chunk(table.conditions(p), eraseConditions) {
			for more := true; more; {
				n, rest, err := db.eraseSome(ctx, table, conditions, by)
				if err != nil {
					return err
				}
				more, done = rest, min(done+n, total)
				progress("rows erased", done, total)
			}
		}
	}
	progress("rows erased", total, total) // with those that others took with them
	return nil
}

// eraseSome removes up to eraseRows rows for each condition, and reports how many
// there were and whether there may be more.
func (db *DB) eraseSome(ctx context.Context, in erasable, conditions []condition, by identity.Removal) (rows int, more bool, err error) {
	err = db.jobs.tx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		rows, more = 0, false
		if err := lockDirectory(ctx, tx); err != nil {
			return err
		}
		for _, c := range conditions {
			statement := fmt.Sprintf(`DELETE FROM %s WHERE (%s) IN (SELECT %s FROM %s WHERE %s LIMIT %d)`,
				in.table, in.key, in.key, in.table, c.where, eraseRows)
			var n int
			if in.noted == nil {
				n, err = affected(tx.ExecContext(ctx, statement, c.args...))
			} else {
				var gone []removed
				if gone, err = collect(ctx, tx, in.noted, statement+` RETURNING `+in.notedBy, c.args...); err == nil {
					n, err = len(gone), db.note(ctx, tx, by, gone...)
				}
			}
			if err != nil {
				return err
			}
			rows, more = rows+n, more || n == eraseRows
		}
		if in.name == "bindings" {
			return addBindings(ctx, tx, -rows)
		}
		return nil
	})
	return rows, more, err
}
