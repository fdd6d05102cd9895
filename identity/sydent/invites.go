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
	return bring(ctx, i, "pending invites", i.db.invites(ctx, i.since), func(p pendingInvite) (identity.Invite, string, string) {
		invite, reason := i.invite(p)
		if reason == reasonBound { // stores do not say which they are
			return invite, reason, ""
		}
		return invite, reason, association{table: "invite_tokens", id: p.id, medium: p.medium, address: p.address}.example()
	}, func(ctx context.Context, all []identity.Invite) (identity.Imported, error) {
		return i.store.ImportInvites(ctx, all)
	})
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
	switch {
	case !expires.After(i.now):
		return invite, reasonExpired
	case i.store == nil && i.bound[threepid.LookupDigest(id.Address, id.Medium, "")]:
		return invite, reasonBound
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
	return bring(ctx, i, "keys of invites", i.db.inviteKeys(ctx, i.since), func(k inviteKey) (key identity.InviteKey, reason, example string) {
		example = fmt.Sprintf("ephemeral_public_keys %d", k.id)
		public, err := signing.ParsePublicKey(k.public)
		if err != nil {
			return key, reasonKey, example
		}
		if k.kept <= 0 { // its age is unknown
			k.kept = i.now.Unix()
		}
		_, expires := i.life(k.kept)
		if !expires.After(i.now) {
			reason = reasonExpired
		}
		return identity.InviteKey{Public: public, Expires: expires}, reason, example
	}, func(ctx context.Context, all []identity.InviteKey) (identity.Imported, error) {
		return i.store.ImportKeys(ctx, all)
	})
}
