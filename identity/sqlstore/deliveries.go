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
	} else {
		_, err = tx.ExecContext(ctx,
			`INSERT INTO deliveries (medium, address, user_id, server, ts_ms, until_ms, due_ms)
				VALUES ($1, $2, $3, $4, $5, $6, $5)`,
			medium, address, b.UserID, b.Server(), ts, b.TS.Add(identity.DeliverFor).UnixMilli())
	}
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO delivery_servers (server, due_ms) VALUES ($1, $2)
		ON CONFLICT (server) DO UPDATE SET due_ms = excluded.due_ms WHERE delivery_servers.due_ms > excluded.due_ms`,
		b.Server(), ts)
	return err
}

// cancelDeliveries removes what is still to be told about a binding that is no
// more.
func cancelDeliveries(ctx context.Context, tx *sql.Tx, id threepid.ID, userID string) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM deliveries WHERE medium = $1 AND address = $2 AND user_id = $3`,
		string(id.Medium), id.Address, userID)
	return err
}

// claimedServer is a homeserver that a claim has got.
type claimedServer struct {
	name string
	took bool
}

// ClaimDeliveries implements identity.DeliveryStore.
func (db *DB) ClaimDeliveries(ctx context.Context, claim string, now, lease time.Time, most int) (due []identity.Delivery, err error) {
	for more := true; more && len(due) == 0; {
		err = db.write.tx(ctx, func(ctx context.Context, tx *sql.Tx) error {
			due, more, err = db.claimServer(ctx, tx, claim, now, lease, most)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("claim deliveries: %w", err)
		}
	}
	for i := range due {
		due[i].Claim = claim
	}
	return due, nil
}

// claimServer claims the homeserver that has waited longest. It reports whether
// there was one, and lets go of it if there is nothing to tell it any more.
func (db *DB) claimServer(ctx context.Context, tx *sql.Tx, claim string, now, lease time.Time, most int) (due []identity.Delivery, found bool, err error) {
	var s claimedServer
	err = tx.QueryRowContext(ctx, `UPDATE delivery_servers SET claim = $1, lease_ms = $3 WHERE server IN (
			SELECT server FROM delivery_servers WHERE due_ms <= $2 AND lease_ms <= $2 ORDER BY due_ms LIMIT 1`+
		db.dialect.skipLocked+`) RETURNING server, took`, claim, now.UnixMilli(), lease.UnixMilli()).Scan(&s.name, &s.took)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	if !s.took {
		most = 1
	}
	due, err = collect(ctx, tx, scanDelivery,
		`SELECT d.id, d.attempts + 1, d.medium, d.address, d.user_id, d.ts_ms, d.until_ms, COALESCE(d.invite_id, 0), `+inviteColumns+`
			FROM deliveries AS d LEFT JOIN invites ON invites.id = d.invite_id
			WHERE d.server = $1 AND d.due_ms <= $2 AND d.until_ms > $2 ORDER BY d.due_ms, d.id LIMIT $3`,
		s.name, now.UnixMilli(), most)
	if err == nil && len(due) == 0 { // cancelled, or not worth while any more
		err = letGo(ctx, tx, claim, s, now)
	}
	return due, true, err
}

// letGo makes a homeserver that a claim has due when its next delivery is.
func letGo(ctx context.Context, tx *sql.Tx, claim string, s claimedServer, now time.Time) error {
	const left = `FROM deliveries WHERE server = $1 AND until_ms > $2`
	_, err := tx.ExecContext(ctx,
		`DELETE FROM delivery_servers WHERE server = $1 AND claim = $3 AND NOT EXISTS (SELECT 1 `+left+`)`,
		s.name, now.UnixMilli(), claim)
	if err != nil {
		return err
	}
	took := 0
	if s.took {
		took = 1
	}
	_, err = tx.ExecContext(ctx, `UPDATE delivery_servers SET claim = '', lease_ms = 0, took = $4,
			due_ms = (SELECT due_ms `+left+` ORDER BY due_ms, id LIMIT 1) WHERE server = $1 AND claim = $3`,
		s.name, now.UnixMilli(), claim, took)
	return err
}

func scanDelivery(rows *sql.Rows) (d identity.Delivery, err error) {
	var ts, until int64
	var r inviteRow
	id := &d.Binding.ID
	err = rows.Scan(append([]any{
		&d.ID, &d.Attempt, &id.Medium, &id.Address, &d.Binding.UserID, &ts, &until, &d.InviteID,
	}, r.fields()...)...)
	d.Binding.TS, d.Until = time.UnixMilli(ts), time.UnixMilli(until)
	if r.token.Valid {
		i := r.invite()
		d.Invite = &i
	}
	return d, err
}

// SettleDeliveries implements identity.DeliveryStore.
func (db *DB) SettleDeliveries(ctx context.Context, results []identity.DeliveryResult, now time.Time) error {
	if len(results) == 0 {
		return nil
	}
	claim, server := results[0].Claim, claimedServer{name: results[0].Binding.Server(), took: true}
	err := db.jobs.tx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		if err := lockDirectory(ctx, tx); err != nil {
			return err
		}
		held, err := collect(ctx, tx, scanOne[string],
			`SELECT server FROM delivery_servers WHERE server = $1 AND claim = $2`, server.name, claim)
		if err != nil {
			return err
		}
		for _, r := range results {
			if r.Told || len(held) > 0 { // whoever tells the others now knows better
				if err := settle(ctx, tx, r, now); err != nil {
					return err
				}
			}
			server.took = server.took && (r.Told || r.Refused != "")
		}
		return letGo(ctx, tx, claim, server, now)
	})
	return doing("settle deliveries", err)
}

// settle writes down what came of one delivery.
func settle(ctx context.Context, tx *sql.Tx, r identity.DeliveryResult, now time.Time) (err error) {
	switch {
	case r.Told && r.Invite != nil:
		_, err = tx.ExecContext(ctx, `UPDATE invites SET used_ms = $2, failure = '' WHERE token = $1 AND used_ms IS NULL`,
			r.Invite.Token, now.UnixMilli())
	case r.Refused != "" && r.Invite != nil:
		_, err = tx.ExecContext(ctx, `UPDATE invites SET failure = $3 WHERE token = $2
			AND EXISTS (SELECT 1 FROM deliveries WHERE id = $1)`, r.ID, r.Invite.Token, r.Refused)
	case !r.Told && r.Refused == "":
		_, err = tx.ExecContext(ctx, `UPDATE deliveries SET due_ms = $2, attempts = attempts + 1 WHERE id = $1`,
			r.ID, r.Due.UnixMilli())
		return err
	}
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `DELETE FROM deliveries WHERE id = $1`, r.ID)
	return err
}
