package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/threepid"
)

// Peppers implements identity.PepperStore.
func (db *DB) Peppers(ctx context.Context) ([]identity.Pepper, error) {
	peppers, err := collect(ctx, db.read, func(r *sql.Rows) (identity.Pepper, error) {
		var p identity.Pepper
		var since, until sql.NullInt64
		err := r.Scan(&p.ID, &p.Value, &p.State, &since, &until)
		p.Since, p.Until = millis(since), millis(until)
		return p, err
	}, `SELECT id, value, state, since_ms, until_ms FROM peppers ORDER BY id`)
	if err != nil {
		return nil, fmt.Errorf("peppers: %w", err)
	}
	return peppers, nil
}

// BeginPepper implements identity.PepperStore.
func (db *DB) BeginPepper(ctx context.Context, value string, current int64) error {
	err := db.jobs.tx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		if err := lockDirectory(ctx, tx); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx,
			`INSERT INTO peppers (id, value, state)
				SELECT COALESCE(MAX(id), 0) + 1, $1, 'next' FROM peppers
				HAVING COUNT(CASE WHEN state = 'next' THEN 1 END) = 0
					AND COALESCE(MAX(CASE WHEN state = 'current' THEN id END), 0) = $2`, value, current)
		return err
	})
	return doing("begin a pepper", err)
}

// stored is a binding with its ID in the database.
type stored struct {
	id int64
	identity.Binding
}

// FillPepper implements identity.PepperStore. Its transaction locks the
// directory, so several replicas that do the same take turns, each one batch.
func (db *DB) FillPepper(ctx context.Context, limit int, now, until time.Time) (done bool, err error) {
	err = db.jobs.tx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		if err := lockDirectory(ctx, tx); err != nil {
			return err
		}
		var p pepper
		var cursor int64
		err := tx.QueryRowContext(ctx, `SELECT id, value, cursor FROM peppers WHERE state = 'next'`).
			Scan(&p.id, &p.value, &cursor)
		if errors.Is(err, sql.ErrNoRows) {
			done = true
			return nil
		}
		if err != nil {
			return err
		}
		batch, err := bindingsAfter(ctx, tx, cursor, limit)
		if err != nil {
			return err
		}
		var hashes []hash
		for _, b := range batch {
			hashes = p.appendHashes(hashes, b.id, b.Binding)
		}
		if err := addHashes(ctx, tx, hashes); err != nil {
			return err
		}
		if done = len(batch) < limit; done {
			return promote(ctx, tx, p.id, now, until)
		}
		_, err = tx.ExecContext(ctx, `UPDATE peppers SET cursor = $2 WHERE id = $1`, p.id, batch[len(batch)-1].id)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("fill the next pepper: %w", err)
	}
	return done, nil
}

// bindingsAfter returns up to limit bindings in the order of their IDs.
func bindingsAfter(ctx context.Context, tx *sql.Tx, id int64, limit int) ([]stored, error) {
	return collect(ctx, tx, func(r *sql.Rows) (s stored, err error) {
		var medium string
		err = r.Scan(&s.id, &medium, &s.ID.Address, &s.OriginalSpelling)
		s.ID.Medium = threepid.Medium(medium)
		return s, err
	}, `SELECT id, medium, address, given FROM bindings WHERE id > $1 ORDER BY id LIMIT $2`, id, limit)
}

// promote makes the next pepper the current one.
func promote(ctx context.Context, tx *sql.Tx, id int64, now, until time.Time) error {
	_, err := tx.ExecContext(ctx,
		`UPDATE peppers SET state = 'previous', until_ms = $1 WHERE state = 'current'`, until.UnixMilli())
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx,
		`UPDATE peppers SET state = 'current', since_ms = $2, cursor = 0 WHERE id = $1`, id, now.UnixMilli())
	return err
}

// DrainPeppers implements identity.PepperStore.
func (db *DB) DrainPeppers(ctx context.Context, before time.Time, limit int) (done bool, err error) {
	err = db.jobs.tx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		if err := lockDirectory(ctx, tx); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx,
			`UPDATE peppers SET state = 'retired' WHERE state = 'previous' AND until_ms <= $1`, before.UnixMilli())
		if err != nil {
			return err
		}
		var pepper, cursor int64
		err = tx.QueryRowContext(ctx, `SELECT id, cursor FROM peppers WHERE state = 'retired' ORDER BY id LIMIT 1`).
			Scan(&pepper, &cursor)
		if errors.Is(err, sql.ErrNoRows) {
			done = true
			return nil
		}
		if err != nil {
			return err
		}
		return drain(ctx, tx, pepper, cursor, limit)
	})
	if err != nil {
		return false, fmt.Errorf("drain retired peppers: %w", err)
	}
	return done, nil
}

// drain removes the hashes of up to limit bindings under a retired pepper, or
// the pepper if there are none. The cursor saves walking over the remains of
// those that were removed before.
func drain(ctx context.Context, tx *sql.Tx, pepper, cursor int64, limit int) error {
	bindings, err := collect(ctx, tx, scanOne[int64],
		`DELETE FROM hashes WHERE pepper_id = $1 AND binding_id IN
			(SELECT binding_id FROM hashes WHERE pepper_id = $1 AND binding_id > $2 ORDER BY binding_id LIMIT $3)
			RETURNING binding_id`, pepper, cursor, limit)
	if err != nil {
		return err
	}
	if len(bindings) == 0 {
		_, err = tx.ExecContext(ctx, `DELETE FROM peppers WHERE id = $1`, pepper)
		return err
	}
	for _, id := range bindings {
		cursor = max(cursor, id)
	}
	_, err = tx.ExecContext(ctx, `UPDATE peppers SET cursor = $2 WHERE id = $1`, pepper, cursor)
	return err
}
