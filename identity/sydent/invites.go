package sydent

import (
	"context"
	"fmt"
	"time"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/identity/signing"
	"github.com/matrix-herald/herald/threepid"
)

// maxIDBytes is the longest identifier of Matrix, and the longest token.
const maxIDBytes = 255

// invites brings over the pending invites. Sydent does not keep which key was
// mailed with which of them.
func (i *importer) invites(ctx context.Context) error {
	part := Part{Name: "pending invites"}
	var invites []identity.Invite
	flush := func() error {
		r, err := i.rows.ImportInvites(ctx, invites)
		part.imported(len(invites), r)
		invites = invites[:0]
		return err
	}
	for p, err := range i.db.invites(ctx, i.since) {
		if err != nil {
			return fmt.Errorf("read invites: %w", err)
		}
		i.count(&part)
		invite, reason := i.invite(p)
		if reason != "" {
			part.skip(reason, association{table: "invite_tokens", id: p.id, medium: p.medium, address: p.address}.example())
			continue
		}
		if invites = append(invites, invite); len(invites) == batch {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	err := flush()
	i.add(part)
	return err
}

// invite returns the invite to add, or the reason for which the row is left out.
func (i *importer) invite(p pendingInvite) (invite identity.Invite, reason string) {
	id, err := threepid.ParseAddress(p.medium, p.address)
	switch {
	case p.medium != string(threepid.MediumEmail): // nobody else can be invited
		return invite, reasonInviteMedium
	case err != nil:
		return invite, reasonEmail
	case foldedDomain(p.address):
		return invite, reasonDomain
	case !validUserID(p.sender):
		return invite, reasonUserID
	case !storable(p.room) || len(p.room) > maxIDBytes || !storable(p.token) || len(p.token) > maxIDBytes:
		return invite, reasonText
	case p.received <= 0:
		return invite, reasonReceived
	}
	created, expires := i.life(p.received)
	if !expires.After(i.now) {
		return invite, reasonExpired
	}
	return identity.Invite{
		Token: p.token, Address: id, RoomID: p.room, Sender: p.sender, KeyID: i.report.KeyID,
		Ephemeral: identity.ImportedEphemeral(p.token), Created: created, Expires: expires,
	}, ""
}

// life returns from when to when an invite or its key lives that Sydent has kept
// since a time in seconds. A time to come counts as now.
func (i *importer) life(kept int64) (created, expires time.Time) {
	created = i.now.Truncate(time.Millisecond)
	if at := time.Unix(kept, 0); at.Before(created) {
		created = at
	}
	return created, created.Add(identity.DefaultInviteLife)
}

// inviteKeys brings over the public halves of the keys in mails.
func (i *importer) inviteKeys(ctx context.Context) error {
	part := Part{Name: "keys of invites"}
	var keys []identity.InviteKey
	flush := func() error {
		r, err := i.rows.ImportKeys(ctx, keys)
		part.imported(len(keys), r)
		keys = keys[:0]
		return err
	}
	for k, err := range i.db.inviteKeys(ctx, i.since) {
		if err != nil {
			return fmt.Errorf("read keys of invites: %w", err)
		}
		i.count(&part)
		example := fmt.Sprintf("ephemeral_public_keys %d", k.id)
		public, err := signing.ParsePublicKey(k.public)
		if err != nil {
			part.skip(reasonKey, example)
			continue
		}
		if k.kept <= 0 { // its age is unknown
			k.kept = i.now.Unix()
		}
		_, expires := i.life(k.kept)
		if !expires.After(i.now) {
			part.skip(reasonExpired, example)
			continue
		}
		if keys = append(keys, identity.InviteKey{Public: public, Expires: expires}); len(keys) == batch {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	err := flush()
	i.add(part)
	return err
}
