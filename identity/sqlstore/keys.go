package sqlstore

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/matrix-herald/herald/identity"
)

// Keys implements identity.KeyStore.
func (db *DB) Keys(ctx context.Context) ([]identity.StoredKey, error) {
	keys, err := collect(ctx, db.read, func(r *sql.Rows) (k identity.StoredKey, err error) {
		var id, seed, state string
		if err := r.Scan(&id, &seed, &state); err != nil {
			return k, err
		}
		return identity.NewStoredKey(id, seed, identity.KeyState(state))
	}, `SELECT id, seed, state FROM signing_keys`)
	if err != nil {
		return nil, fmt.Errorf("signing keys: %w", err)
	}
	return keys, nil
}

// ActivateKey implements identity.KeyStore.
func (db *DB) ActivateKey(ctx context.Context, old string, key identity.StoredKey) error {
	err := db.write.tx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		if old != "" {
			n, err := affected(tx.ExecContext(ctx,
				`UPDATE signing_keys SET state = 'retired' WHERE id = $1 AND state = 'active'`, old))
			if err != nil {
				return err
			}
			if n == 0 {
				return identity.ErrConflict
			}
		}
		n, err := affected(tx.ExecContext(ctx, // an index permits one active key
			`INSERT INTO signing_keys (id, seed, state) VALUES ($1, $2, 'active') ON CONFLICT DO NOTHING`,
			key.Key.ID(), key.Key.Seed()))
		if err != nil {
			return err
		}
		if n == 0 {
			return identity.ErrConflict
		}
		return nil
	})
	return doing("activate a signing key", err)
}

// CompromiseKey implements identity.KeyStore.
func (db *DB) CompromiseKey(ctx context.Context, id string) error {
	n, err := affected(db.write.ExecContext(ctx,
		`UPDATE signing_keys SET state = 'compromised' WHERE id = $1 AND state <> 'active'`, id))
	if err != nil {
		return fmt.Errorf("declare a signing key compromised: %w", err)
	}
	if n == 0 {
		return identity.ErrNotFound
	}
	return nil
}
