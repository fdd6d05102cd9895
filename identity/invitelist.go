package identity

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"time"
)

// listPage is how many invites are read at a time.
const listPage = 500

// AllInvites returns every invite that is kept, in the order in which they were
// made, with what became of it by now. It reads them in pages, so that neither
// memory nor a transaction grows with their number, and ends after an error.
func AllInvites(ctx context.Context, s InviteStore, now time.Time) iter.Seq2[InviteRecord, error] {
	return func(yield func(InviteRecord, error) bool) {
		for after := int64(0); ; {
			page, err := s.Invites(ctx, after, listPage)
			if err != nil {
				yield(InviteRecord{}, fmt.Errorf("list invites: %w", err))
				return
			}
			for _, r := range page {
				after = r.ID
				if r.State != InviteUsed && !r.Expires.After(now) {
					r.State = InviteExpired
				}
				if !yield(r, nil) {
					return
				}
			}
			if len(page) < listPage {
				return
			}
		}
	}
}

// CancelInvite removes anybody's invite, by its token or its ID in decimal: its
// keys are no longer valid and no homeserver will be told. It returns ErrNoInvite.
func CancelInvite(ctx context.Context, s InviteStore, name string, by Removal) error {
	token, err := inviteToken(ctx, s, name)
	if err == nil {
		err = s.DeleteInvite(ctx, token, "", by)
	}
	switch {
	case errors.Is(err, ErrNotFound):
		return ErrNoInvite
	case err != nil:
		return fmt.Errorf("cancel an invite: %w", err)
	}
	return nil
}

// inviteToken returns the token of the invite called name, or ErrNotFound.
func inviteToken(ctx context.Context, s InviteStore, name string) (string, error) {
	id, err := strconv.ParseInt(name, 10, 64)
	if err != nil { // tokens of ours have letters
		if !validToken(name) {
			return "", ErrNotFound
		}
		return name, nil
	}
	found, err := s.Invites(ctx, id-1, 1)
	if err != nil {
		return "", err
	}
	if len(found) == 0 || found[0].ID != id {
		return "", ErrNotFound
	}
	return found[0].Token, nil
}
