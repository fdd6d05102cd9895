package identity

import (
	"context"
	"fmt"
)

// Erased says what became of a person's rows in one table.
type Erased struct {
	Table string
	Found int // before
	Left  int // afterwards, 0 unless something came in meanwhile
}

// EraseStore removes people.
type EraseStore interface {
	// Erase removes in one transaction what is kept of a user, and counts what is
	// left by queries of their own after that. Of a user are their access tokens,
	// the terms they accepted, their bindings with all digests, the validation
	// sessions of the addresses bound to them, the invites that they sent, that they
	// took or that are for those addresses, and what homeservers are to be told about
	// any of it.
	Erase(ctx context.Context, userID string) ([]Erased, error)
}

// Erase removes everything of a user and reports about each table. It returns
// ErrInvalidUser.
func Erase(ctx context.Context, s EraseStore, userID string) ([]Erased, error) {
	if _, ok := serverOf(userID); !ok {
		return nil, ErrInvalidUser
	}
	erased, err := s.Erase(ctx, userID)
	if err != nil {
		return nil, fmt.Errorf("erase a user: %w", err)
	}
	return erased, nil
}
