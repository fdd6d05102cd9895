package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/threepid"
)

// personal is a table with rows of people.
type personal struct {
	name, table string
	// byUser is the condition for the rows of the user $1, which must not be NULL,
	// and byAddress says that those of addresses bound to the user are theirs, too.
	byUser    string
	byAddress bool
}

// personalTables are the tables to erase people from, in the order in which
// transactions lock them. Hashes go with their bindings.
func personalTables() []personal {
	const ofUser = `invites.sender = $1 OR invites.taken_by IS NOT NULL AND invites.taken_by = $1`
	return []personal{
		{name: "tokens", table: "tokens", byUser: `user_id = $1`},
		{name: "terms", table: "accepted_terms", byUser: `user_id = $1`},
		{name: "bindings", table: "bindings", byUser: `user_id = $1`},
		{name: "guesses", table: "wrong_guesses", byAddress: true},
		{name: "sessions", table: "sessions", byUser: `owner = $1 AND owner <> '' AND retired = 0`, byAddress: true}, // retired ones have neither
		{name: "invites", table: "invites", byUser: ofUser, byAddress: true},
		{name: "deliveries", table: "deliveries", byAddress: true, byUser: `user_id = $1 OR
			EXISTS (SELECT 1 FROM invites WHERE invites.id = deliveries.invite_id AND (` + ofUser + `))`},
	}
}

// person is what the rows of somebody are found by. It outlives those rows.
type person struct {
	userID    string
	addresses []threepid.ID
	bindings  []int64
}

// condition is one that rows are found by, with its arguments.
type condition struct {
	where string
	args  []any
}

// conditions find each row of a person in a table once.
func (p person) conditions(in personal) (all []condition) {
	if in.byUser != "" {
		all = append(all, condition{in.byUser, []any{p.userID}})
	}
	if !in.byAddress {
		return all
	}
	for _, id := range p.addresses {
		c := condition{`medium = $1 AND address = $2`, []any{string(id.Medium), id.Address}}
		if in.byUser != "" {
			c.where += ` AND NOT (` + strings.ReplaceAll(in.byUser, "$1", "$3") + `)`
			c.args = append(c.args, p.userID)
		}
		all = append(all, c)
	}
	return all
}

// BoundAddresses implements identity.EraseStore.
func (db *DB) BoundAddresses(ctx context.Context, userID string) ([]threepid.ID, error) {
	p := person{userID: userID}
	if err := p.find(ctx, db.read); err != nil {
		return nil, fmt.Errorf("addresses of a user: %w", err)
	}
	return p.addresses, nil
}

// Erase implements identity.EraseStore.
func (db *DB) Erase(ctx context.Context, userID string) ([]identity.Erased, error) {
	p := person{userID: userID}
	var found []identity.Erased
	if _, err := db.write.ExecContext(ctx, db.dialect.beforeErasing); err != nil {
		return nil, fmt.Errorf("erase: %w", err)
	}
	err := db.write.tx(ctx, func(tx *sql.Tx) error {
		err := lockDirectory(ctx, tx)
		if err != nil {
			return err
		}
		if err := p.find(ctx, tx); err != nil {
			return err
		}
		if found, err = p.count(ctx, tx); err != nil {
			return err
		}
		return p.erase(ctx, tx)
	})
	if err != nil {
		return nil, fmt.Errorf("erase: %w", err)
	}
	if _, err := db.write.ExecContext(ctx, db.dialect.afterErasing); err != nil {
		return nil, fmt.Errorf("overwrite what was erased: %w", err)
	}
	left, err := p.count(ctx, db.read)
	if err != nil {
		return nil, fmt.Errorf("count what is left: %w", err)
	}
	for i := range found {
		found[i].Left = left[i].Found
	}
	return found, nil
}

// find reads what is bound to the person.
func (p *person) find(ctx context.Context, q querier) error {
	bound, err := collect(ctx, q, func(r *sql.Rows) (s stored, err error) {
		err = r.Scan(&s.id, &s.ID.Medium, &s.ID.Address)
		return s, err
	}, `SELECT id, medium, address FROM bindings WHERE user_id = $1`, p.userID)
	for _, b := range bound {
		p.addresses, p.bindings = append(p.addresses, b.ID), append(p.bindings, b.id)
	}
	return err
}

// count returns how many rows of the person there are in each table, as Found.
func (p person) count(ctx context.Context, q querier) ([]identity.Erased, error) {
	count := func(table string, c condition) (int, error) {
		n, err := collect(ctx, q, scanOne[int], `SELECT COUNT(*) FROM `+table+` WHERE `+c.where, c.args...)
		if err != nil {
			return 0, err
		}
		return n[0], nil
	}
	var all []identity.Erased
	for _, table := range personalTables() {
		e := identity.Erased{Table: table.name}
		for _, c := range p.conditions(table) {
			n, err := count(table.table, c)
			if err != nil {
				return nil, err
			}
			e.Found += n
		}
		all = append(all, e)
	}
	hashes := identity.Erased{Table: "hashes"}
	for _, id := range p.bindings {
		n, err := count("hashes", condition{`binding_id = $1`, []any{id}})
		if err != nil {
			return nil, err
		}
		hashes.Found += n
	}
	return append(all, hashes), nil
}

// erase removes the rows of the person. The directory is locked.
func (p person) erase(ctx context.Context, tx *sql.Tx) error {
	for _, table := range personalTables() {
		for _, c := range p.conditions(table) {
			_, err := tx.ExecContext(ctx, `DELETE FROM `+table.table+` WHERE `+c.where, c.args...) //nolint:gosec // all of it is above
			if err != nil {
				return err
			}
		}
	}
	return addBindings(ctx, tx, -len(p.bindings))
}
