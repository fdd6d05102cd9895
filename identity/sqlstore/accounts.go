package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/matrix-herald/herald/identity"
)

// ClaimServerName makes the database that of the service called name, for ever.
// It returns an *identity.ServerNameError if it is another's, unless provisional
// says that the other's name meant nothing to anybody, and nothing is bound or
// invited under it.
func (db *DB) ClaimServerName(ctx context.Context, name string, provisional func(kept string) bool) error {
	_, err := db.write.ExecContext(ctx,
		`INSERT INTO service (id, server_name) VALUES (1, $1) ON CONFLICT (id) DO NOTHING`, name)
	if err != nil {
		return fmt.Errorf("claim the server name: %w", err)
	}
	var kept string
	if err := db.read.QueryRowContext(ctx, `SELECT server_name FROM service WHERE id = 1`).Scan(&kept); err != nil {
		return fmt.Errorf("claim the server name: %w", err)
	}
	if kept == name {
		return nil
	}
	if provisional(kept) {
		n, err := affected(db.write.ExecContext(ctx, `UPDATE service SET server_name = $1 WHERE server_name = $2
			AND NOT EXISTS (SELECT 1 FROM directory WHERE bindings > 0) AND NOT EXISTS (SELECT 1 FROM invites WHERE id > 0)`, name, kept))
		if err != nil {
			return fmt.Errorf("claim the server name: %w", err)
		}
		if n > 0 {
			return nil
		}
	}
	return &identity.ServerNameError{Kept: kept}
}

// AddToken implements identity.AccountStore.
func (db *DB) AddToken(ctx context.Context, token identity.Digest, userID string, now time.Time) error {
	_, err := db.write.ExecContext(ctx,
		`INSERT INTO tokens (hash, user_id, used_ms) VALUES ($1, $2, $3)`, token[:], userID, now.UnixMilli())
	return doing("add a token", err)
}

// Token implements identity.AccountStore.
func (db *DB) Token(ctx context.Context, token identity.Digest, idleSince time.Time) (string, time.Time, error) {
	var userID string
	var used int64
	err := db.read.QueryRowContext(ctx,
		`SELECT user_id, used_ms FROM tokens WHERE hash = $1 AND used_ms > $2`, token[:], idleSince.UnixMilli()).
		Scan(&userID, &used)
	if errors.Is(err, sql.ErrNoRows) {
		return "", time.Time{}, identity.ErrNotFound
	}
	if err != nil {
		return "", time.Time{}, fmt.Errorf("find a token: %w", err)
	}
	return userID, time.UnixMilli(used), nil
}

// TouchToken implements identity.AccountStore.
func (db *DB) TouchToken(ctx context.Context, token identity.Digest, now time.Time) error {
	_, err := db.write.ExecContext(ctx,
		`UPDATE tokens SET used_ms = $2 WHERE hash = $1 AND used_ms < $2`, token[:], now.UnixMilli())
	return doing("touch a token", err)
}

// DeleteToken implements identity.AccountStore.
func (db *DB) DeleteToken(ctx context.Context, token identity.Digest, idleSince time.Time, by identity.Removal) error {
	err := db.write.tx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		var imported bool
		err := tx.QueryRowContext(ctx, `DELETE FROM tokens WHERE hash = $1 AND used_ms > $2 RETURNING imported`,
			token[:], idleSince.UnixMilli()).Scan(&imported)
		if errors.Is(err, sql.ErrNoRows) {
			return identity.ErrNotFound
		}
		if err == nil && imported {
			err = db.note(ctx, tx, by, removedToken(token))
		}
		return err
	})
	return doing("delete a token", err)
}

// SweepAccounts implements identity.AccountStore.
func (db *DB) SweepAccounts(ctx context.Context, idleSince time.Time, limit int) (int, error) {
	tokens, err := affected(db.write.ExecContext(ctx,
		`DELETE FROM tokens WHERE hash IN
			(SELECT hash FROM tokens WHERE used_ms <= $1 ORDER BY used_ms LIMIT $2)`, idleSince.UnixMilli(), limit))
	if err != nil {
		return 0, fmt.Errorf("sweep tokens: %w", err)
	}
	terms, err := affected(db.write.ExecContext(ctx,
		`DELETE FROM accepted_terms WHERE accepted_ms <= $1 AND user_id IN
			(SELECT user_id FROM accepted_terms AS a WHERE accepted_ms <= $1
				AND NOT EXISTS (SELECT 1 FROM tokens WHERE tokens.user_id = a.user_id)
				AND NOT EXISTS (SELECT 1 FROM bindings WHERE bindings.user_id = a.user_id)
				LIMIT $2)`, idleSince.UnixMilli(), limit))
	if err != nil {
		return 0, fmt.Errorf("sweep accepted terms: %w", err)
	}
	return tokens + terms, nil
}

// AcceptTerms implements identity.TermsStore.
func (db *DB) AcceptTerms(ctx context.Context, userID string, urls []string, now time.Time) error {
	err := db.write.tx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		for _, u := range slices.Sorted(slices.Values(urls)) { // two requests in one order do not deadlock
			_, err := tx.ExecContext(ctx,
				`INSERT INTO accepted_terms (user_id, url, accepted_ms) VALUES ($1, $2, $3)
					ON CONFLICT (user_id, url) DO NOTHING`, userID, u, now.UnixMilli())
			if err != nil {
				return err
			}
		}
		return nil
	})
	return doing("accept terms", err)
}

// AcceptedTerms implements identity.TermsStore.
func (db *DB) AcceptedTerms(ctx context.Context, userID string) ([]string, error) {
	urls, err := collect(ctx, db.read, scanOne[string],
		`SELECT url FROM accepted_terms WHERE user_id = $1`, userID)
	if err != nil {
		return nil, fmt.Errorf("accepted terms: %w", err)
	}
	return urls, nil
}

// affected returns how many rows a statement changed.
func affected(r sql.Result, err error) (int, error) {
	if err != nil {
		return 0, err
	}
	n, err := r.RowsAffected()
	return int(n), err
}

// scanOne reads a row of one column.
func scanOne[T any](r *sql.Rows) (v T, err error) {
	err = r.Scan(&v)
	return v, err
}

// querier is a pool or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// collect returns what scan reads from each row that the query finds.
func collect[T any](ctx context.Context, q querier, scan func(*sql.Rows) (T, error), query string, args ...any) ([]T, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		one, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, unavailable(rows.Err())
}
