package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/threepid"
)

// takeInvites makes the deliveries of a binding that has just been made. The
// directory is locked.
func takeInvites(ctx context.Context, tx *sql.Tx, b identity.Binding) error {
	medium, address, ts := string(b.ID.Medium), b.ID.Address, b.TS.UnixMilli()
	// What another user's homeserver was to be told is no longer true. The same
	// user's keep their place; but one without an invite says nothing that the new
	// ones do not.
	_, err := tx.ExecContext(ctx,
		`DELETE FROM deliveries WHERE medium = $1 AND address = $2 AND (user_id <> $3 OR invite_id IS NULL)`,
		medium, address, b.UserID)
	if err != nil {
		return err
	}
	const waiting = ` WHERE medium = $1 AND address = $2 AND taken_by IS NULL AND expires_ms > $3`
	n, err := affected(tx.ExecContext(ctx,
		`INSERT INTO deliveries (invite_id, medium, address, user_id, server, ts_ms, until_ms, due_ms)
			SELECT id, medium, address, CAST($4 AS TEXT), CAST($5 AS TEXT), CAST($3 AS BIGINT), expires_ms,
				CAST($3 AS BIGINT) FROM invites`+waiting,
		medium, address, ts, b.UserID, b.Server()))
	if err != nil {
		return err
	}
	if n > 0 {
		_, err = tx.ExecContext(ctx, `UPDATE invites SET taken_by = $4`+waiting, medium, address, ts, b.UserID)
		return err
	}
	_, err = tx.ExecContext(ctx,
		`INSERT INTO deliveries (medium, address, user_id, server, ts_ms, until_ms, due_ms)
			VALUES ($1, $2, $3, $4, $5, $6, $5)`,
		medium, address, b.UserID, b.Server(), ts, b.TS.Add(identity.DeliverFor).UnixMilli())
	return err
}

// cancelDeliveries removes what is still to be told about a binding that is no
// more.
func cancelDeliveries(ctx context.Context, tx *sql.Tx, id threepid.ID, userID string) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM deliveries WHERE medium = $1 AND address = $2 AND user_id = $3`,
		string(id.Medium), id.Address, userID)
	return err
}

// ClaimDeliveries implements identity.DeliveryStore.
func (db *DB) ClaimDeliveries(ctx context.Context, claim string, now, lease time.Time, limit int) ([]identity.Delivery, error) {
	n, err := affected(db.write.ExecContext(ctx,
		`UPDATE deliveries SET claim = $1, lease_ms = $3, attempts = attempts + 1 WHERE id IN (
			SELECT id FROM deliveries WHERE lease_ms <= $2 AND id IN (
				SELECT id FROM (
					SELECT id, due_ms, row_number() OVER (PARTITION BY server ORDER BY due_ms, id) AS turn
						FROM deliveries AS d WHERE due_ms <= $2 AND lease_ms <= $2 AND until_ms > $2 AND NOT EXISTS (
							SELECT 1 FROM deliveries AS busy WHERE busy.server = d.server AND busy.lease_ms > $2)
				) AS due WHERE turn = 1 ORDER BY due_ms LIMIT $4
			)`+db.dialect.skipLocked+`)`, claim, now.UnixMilli(), lease.UnixMilli(), limit))
	if err != nil {
		return nil, fmt.Errorf("claim deliveries: %w", err)
	}
	if n == 0 {
		return nil, nil
	}
	claimed, err := collect(ctx, db.write, scanDelivery,
		`SELECT d.id, d.claim, d.attempts, d.medium, d.address, d.user_id, d.ts_ms, d.until_ms, COALESCE(d.invite_id, 0), `+inviteColumns+`
			FROM deliveries AS d LEFT JOIN invites ON invites.id = d.invite_id WHERE d.claim = $1`, claim)
	if err != nil {
		return nil, fmt.Errorf("claimed deliveries: %w", err)
	}
	return claimed, nil
}

func scanDelivery(rows *sql.Rows) (d identity.Delivery, err error) {
	var ts, until int64
	var r inviteRow
	id := &d.Binding.ID
	err = rows.Scan(append([]any{
		&d.ID, &d.Claim, &d.Attempt, &id.Medium, &id.Address, &d.Binding.UserID, &ts, &until, &d.InviteID,
	}, r.fields()...)...)
	d.Binding.TS, d.Until = time.UnixMilli(ts), time.UnixMilli(until)
	if r.token.Valid {
		i := r.invite()
		d.Invite = &i
	}
	return d, err
}

// Delivered implements identity.DeliveryStore.
func (db *DB) Delivered(ctx context.Context, d identity.Delivery, now time.Time) error {
	err := db.write.tx(ctx, func(tx *sql.Tx) error {
		if d.Invite != nil { // first, as DeleteInvite does
			_, err := tx.ExecContext(ctx,
				`UPDATE invites SET used_ms = $2, failure = '' WHERE token = $1 AND used_ms IS NULL`,
				d.Invite.Token, now.UnixMilli())
			if err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM deliveries WHERE id = $1`, d.ID)
		return err
	})
	if err != nil {
		return fmt.Errorf("end a delivery: %w", err)
	}
	return nil
}

// PostponeDelivery implements identity.DeliveryStore.
func (db *DB) PostponeDelivery(ctx context.Context, d identity.Delivery, due time.Time) error {
	_, err := db.write.ExecContext(ctx,
		`UPDATE deliveries SET due_ms = $3, claim = '', lease_ms = 0 WHERE id = $1 AND claim = $2`,
		d.ID, d.Claim, due.UnixMilli())
	if err != nil {
		return fmt.Errorf("postpone a delivery: %w", err)
	}
	return nil
}

// FailDelivery implements identity.DeliveryStore.
func (db *DB) FailDelivery(ctx context.Context, d identity.Delivery, reason string) error {
	err := db.write.tx(ctx, func(tx *sql.Tx) error {
		if d.Invite != nil { // first, as DeleteInvite does
			_, err := tx.ExecContext(ctx,
				`UPDATE invites SET failure = $4 WHERE token = $3
					AND EXISTS (SELECT 1 FROM deliveries WHERE id = $1 AND claim = $2)`,
				d.ID, d.Claim, d.Invite.Token, reason)
			if err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM deliveries WHERE id = $1 AND claim = $2`, d.ID, d.Claim)
		return err
	})
	if err != nil {
		return fmt.Errorf("give a delivery up: %w", err)
	}
	return nil
}
