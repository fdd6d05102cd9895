package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"time"

	"github.com/matrix-herald/herald/identity"
)

// aboutRows is how many rows of a table are told of somebody, for each condition
// that finds them.
const aboutRows = 100

// About returns what is kept of a person.
func (db *DB) About(ctx context.Context, p identity.Person) (a identity.About, err error) {
	find := func(name, columns string, scan func(*sql.Rows) error) {
		if err == nil {
			err = db.rowsOf(ctx, p, name, columns, scan)
		}
	}
	find("bindings", `medium, address, user_id, ts_ms`, func(r *sql.Rows) error {
		var b identity.Binding
		err := r.Scan(&b.ID.Medium, &b.ID.Address, &b.UserID, moment{&b.TS})
		a.Bindings = append(a.Bindings, b)
		return err
	})
	find("tokens", `used_ms`, func(r *sql.Rows) error {
		var used time.Time
		err := r.Scan(moment{&used})
		a.Tokens = append(a.Tokens, used)
		return err
	})
	find("terms", `url`, func(r *sql.Rows) error {
		var url string
		err := r.Scan(&url)
		a.Terms = append(a.Terms, url)
		return err
	})
	find("sessions", `medium, address, owner, COALESCE(attempt, 0), code_tries, code_expires_ms, validated_ms, expires_ms`, func(r *sql.Rows) error {
		var s identity.SessionAbout
		err := r.Scan(&s.Address.Medium, &s.Address.Address, &s.Owner, &s.Messages, &s.Tries,
			moment{&s.CodeExpires}, moment{&s.Validated}, moment{&s.Expires})
		a.Sessions = append(a.Sessions, s)
		return err
	})
	find("guesses", `medium, address, wrong, since_ms`, func(r *sql.Rows) error {
		var g identity.GuessesAbout
		err := r.Scan(&g.Address.Medium, &g.Address.Address, &g.Wrong, moment{&g.Since})
		a.Guesses = append(a.Guesses, g)
		return err
	})
	find("invites", recordColumns, func(r *sql.Rows) error {
		one, err := scanRecord(r)
		a.Invites = append(a.Invites, one)
		return err
	})
	find("deliveries", `medium, address, user_id, ts_ms, COALESCE(invite_id, 0), attempts, due_ms, until_ms`, func(r *sql.Rows) error {
		var d identity.DeliveryAbout
		err := r.Scan(&d.Binding.ID.Medium, &d.Binding.ID.Address, &d.Binding.UserID, moment{&d.Binding.TS},
			&d.InviteID, &d.Attempts, moment{&d.Due}, moment{&d.Until})
		a.Deliveries = append(a.Deliveries, d)
		return err
	})
	if err == nil {
		a.Removals, err = db.removalsAbout(ctx, p)
	}
	if err != nil {
		return identity.About{}, fmt.Errorf("what is kept of somebody: %w", err)
	}
	return a, nil
}

// rowsOf reads the rows of a person in one of erasableTables.
func (db *DB) rowsOf(ctx context.Context, p identity.Person, name, columns string, scan func(*sql.Rows) error) error {
	for _, in := range erasableTables() {
		if in.name != name {
			continue
		}
		for _, c := range in.conditions(p) {
			_, err := collect(ctx, db.read, func(r *sql.Rows) (struct{}, error) { return struct{}{}, scan(r) },
				`SELECT `+columns+` FROM `+in.table+` WHERE `+c.where+` LIMIT `+strconv.Itoa(aboutRows), c.args...)
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// removalsAbout returns the removals of a person that are remembered.
func (db *DB) removalsAbout(ctx context.Context, p identity.Person) ([]identity.RemovalRecord, error) {
	var all []removed
	if p.UserID != "" {
		all = append(all, removedUser(p.UserID))
	}
	for _, id := range p.Addresses {
		all = append(all, removedBinding(id), removedAddress(id))
	}
	return collect(ctx, db.read, func(rows *sql.Rows) (r identity.RemovalRecord, err error) {
		err = rows.Scan(&r.Kind, moment{&r.At}, &r.By)
		return r, err
	}, `SELECT kind, removed_ms, removed_by FROM removals WHERE fingerprint `+db.dialect.inList+` ORDER BY removed_ms, id`,
		db.dialect.list(db.fingerprints(all)))
}

// moment scans a column of milliseconds, NULL as the zero time.
type moment struct{ to *time.Time }

// Scan implements sql.Scanner.
func (m moment) Scan(value any) error {
	var ms sql.NullInt64
	err := ms.Scan(value)
	*m.to = millis(ms)
	return err
}
