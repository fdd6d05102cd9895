package sqlstore

import (
	"context"
	"crypto/ed25519"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/threepid"
)

// inviteColumns are what scanInvite reads.
const inviteColumns = `invites.token, invites.ephemeral, invites.key_id, invites.medium, invites.address,
	invites.room_id, invites.sender, invites.room_name, invites.room_type, invites.room_avatar,
	invites.sender_name, invites.client, invites.created_ms, invites.expires_ms`

// inviteRow is a row of inviteColumns, all of which may be NULL in a join.
type inviteRow struct {
	token, keyID, medium, address, room, sender    sql.NullString
	roomName, roomType, avatar, senderName, client sql.NullString
	ephemeral                                      []byte
	created, expires                               sql.NullInt64
}

func (r *inviteRow) fields() []any {
	return []any{
		&r.token, &r.ephemeral, &r.keyID, &r.medium, &r.address, &r.room, &r.sender,
		&r.roomName, &r.roomType, &r.avatar, &r.senderName, &r.client, &r.created, &r.expires,
	}
}

func (r *inviteRow) invite() identity.Invite {
	return identity.Invite{
		Token: r.token.String, Ephemeral: r.ephemeral, KeyID: r.keyID.String, RoomID: r.room.String, Sender: r.sender.String,
		Address: threepid.ID{Medium: threepid.Medium(r.medium.String), Address: r.address.String},
		About: identity.InviteDetails{
			RoomName: r.roomName.String, RoomType: r.roomType.String, RoomAvatar: r.avatar.String,
			SenderName: r.senderName.String, Client: r.client.String,
		},
		Created: millis(r.created), Expires: millis(r.expires),
	}
}

// AddInvite implements identity.InviteStore.
func (db *DB) AddInvite(ctx context.Context, i identity.Invite) error {
	err := db.write.tx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		if err := lockDirectory(ctx, tx); err != nil {
			return err
		}
		user, err := boundTo(ctx, tx, i.Address)
		if err == nil {
			return &identity.InUseError{UserID: user}
		}
		if !errors.Is(err, identity.ErrNotFound) {
			return err
		}
		_, err = insertInvite(ctx, tx, i, "")
		return err
	})
	return doing("add an invite", err)
}

func insertInvite(ctx context.Context, tx *sql.Tx, i identity.Invite, onConflict string) (sql.Result, error) {
	return tx.ExecContext(ctx,
		`INSERT INTO invites (token, ephemeral, key_id, medium, address, room_id, sender,
			room_name, room_type, room_avatar, sender_name, client, created_ms, expires_ms)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)`+onConflict,
		i.Token, []byte(i.Ephemeral), i.KeyID, string(i.Address.Medium), i.Address.Address, i.RoomID, i.Sender,
		i.About.RoomName, i.About.RoomType, i.About.RoomAvatar, i.About.SenderName, i.About.Client,
		i.Created.UnixMilli(), i.Expires.UnixMilli())
}

// BoundTo implements identity.InviteStore.
func (db *DB) BoundTo(ctx context.Context, id threepid.ID) (string, error) {
	return boundTo(ctx, db.read, id)
}

// boundTo returns whom an address is bound to, or identity.ErrNotFound.
func boundTo(ctx context.Context, q querier, id threepid.ID) (string, error) {
	users, err := collect(ctx, q, scanOne[string], `SELECT user_id FROM bindings WHERE medium = $1 AND address = $2`,
		string(id.Medium), id.Address)
	switch {
	case err != nil:
		return "", fmt.Errorf("find a binding: %w", err)
	case len(users) == 0:
		return "", identity.ErrNotFound
	}
	return users[0], nil
}

// live is the condition under which an invite is live at $2, with $3 for
// usedSince.
const live = `invites.expires_ms > $2 AND (invites.used_ms IS NULL OR invites.used_ms > $3)`

// LiveInvite implements identity.InviteStore.
func (db *DB) LiveInvite(ctx context.Context, token string, now, usedSince time.Time) (identity.Invite, error) {
	var r inviteRow
	err := db.read.QueryRowContext(ctx, `SELECT `+inviteColumns+` FROM invites WHERE token = $1 AND `+live,
		token, now.UnixMilli(), usedSince.UnixMilli()).Scan(r.fields()...)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return identity.Invite{}, identity.ErrNotFound
	case err != nil:
		return identity.Invite{}, fmt.Errorf("find an invite: %w", err)
	}
	return r.invite(), nil
}

// LiveKey implements identity.InviteStore.
func (db *DB) LiveKey(ctx context.Context, key ed25519.PublicKey, now, usedSince time.Time) (found bool, err error) {
	err = db.read.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM invites WHERE ephemeral = $1 AND `+live+`)
			OR EXISTS (SELECT 1 FROM imported_keys WHERE public_key = $1 AND expires_ms > $2)`,
		[]byte(key), now.UnixMilli(), usedSince.UnixMilli()).Scan(&found)
	if err != nil {
		return false, fmt.Errorf("find the key of an invite: %w", err)
	}
	return found, nil
}

// ImportedKey implements identity.InviteStore.
func (db *DB) ImportedKey(ctx context.Context, key ed25519.PublicKey, now time.Time) (found bool, err error) {
	err = db.read.QueryRowContext(ctx,
		`SELECT EXISTS (SELECT 1 FROM imported_keys WHERE public_key = $1 AND expires_ms > $2)`,
		[]byte(key), now.UnixMilli()).Scan(&found)
	if err != nil {
		return false, fmt.Errorf("find an imported key: %w", err)
	}
	return found, nil
}

// DeleteInvite implements identity.InviteStore.
func (db *DB) DeleteInvite(ctx context.Context, token, sender string, by identity.Removal) error {
	err := db.write.tx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		if err := lockDirectory(ctx, tx); err != nil {
			return err
		}
		keys, err := collect(ctx, tx, scanOne[[]byte], // its delivery goes with it
			`DELETE FROM invites WHERE token = $1 AND (sender = $2 OR $2 = '') RETURNING ephemeral`, token, sender)
		switch {
		case err != nil:
			return err
		case len(keys) == 0:
			return identity.ErrNotFound
		case by.By == "" && !identity.ImportedEphemeral(token).Equal(ed25519.PublicKey(keys[0])): // made here
			return nil
		}
		return db.note(ctx, tx, by, removedInvite(token))
	})
	return doing("delete an invite", err)
}

// recordColumns are what scanRecord reads.
const recordColumns = inviteColumns + `, id, taken_by, failure, CASE
	WHEN used_ms IS NOT NULL THEN 'used'
	WHEN failure <> '' THEN 'failed'
	WHEN taken_by IS NULL THEN 'waiting'
	WHEN EXISTS (SELECT 1 FROM deliveries WHERE invite_id = invites.id) THEN 'delivering'
	ELSE 'stranded' END`

func scanRecord(rows *sql.Rows) (rec identity.InviteRecord, err error) {
	var r inviteRow
	var takenBy sql.NullString
	var state string
	err = rows.Scan(append(r.fields(), &rec.ID, &takenBy, &rec.Failure, &state)...)
	rec.Invite, rec.TakenBy, rec.State = r.invite(), takenBy.String, identity.InviteState(state)
	return rec, err
}

// Invites implements identity.InviteStore.
func (db *DB) Invites(ctx context.Context, after int64, limit int) ([]identity.InviteRecord, error) {
	records, err := collect(ctx, db.read, scanRecord,
		`SELECT `+recordColumns+` FROM invites WHERE id > $1 ORDER BY id LIMIT $2`, after, limit)
	if err != nil {
		return nil, fmt.Errorf("list invites: %w", err)
	}
	return records, nil
}

// SweepInvites implements identity.InviteStore.
func (db *DB) SweepInvites(ctx context.Context, now, usedSince time.Time, limit int) (int, error) {
	swept := 0
	err := db.write.tx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		if err := lockDirectory(ctx, tx); err != nil {
			return err
		}
		invites, err := affected(tx.ExecContext(ctx,
			`DELETE FROM invites WHERE id IN (SELECT id FROM invites WHERE expires_ms <= $1 OR used_ms <= $2 LIMIT $3)`,
			now.UnixMilli(), usedSince.UnixMilli(), limit))
		if err != nil {
			return err
		}
		deliveries, err := affected(tx.ExecContext(ctx,
			`DELETE FROM deliveries WHERE id IN (SELECT id FROM deliveries WHERE until_ms <= $1 LIMIT $2)`,
			now.UnixMilli(), limit))
		if err != nil {
			return err
		}
		imported, err := affected(tx.ExecContext(ctx,
			`DELETE FROM imported_keys WHERE public_key IN (SELECT public_key FROM imported_keys WHERE expires_ms <= $1 LIMIT $2)`,
			now.UnixMilli(), limit))
		swept = invites + deliveries + imported
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("sweep invites: %w", err)
	}
	return swept, nil
}
