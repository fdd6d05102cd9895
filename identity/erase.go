package identity

import (
	"context"
	"fmt"

	"github.com/matrix-herald/herald/threepid"
)

// Erased says what became of a person's rows in one table.
type Erased struct {
	Table string
	Found int // before
	Left  int // afterwards, 0 unless something came in meanwhile
}

// EraseStore removes people.
type EraseStore interface {
	// BoundAddresses returns what is bound to a user, in any order.
	BoundAddresses(ctx context.Context, userID string) ([]threepid.ID, error)
	// Erase removes in one transaction what is kept of a user, and counts what is
	// left by queries of their own after that. Of a user are their access tokens,
	// the terms they accepted, their bindings with all digests, the validation
	// sessions that they began or of the addresses bound to them, the wrong guesses
	// at those addresses, the invites that they sent, that they took or that are for
	// those addresses, and what homeservers are to be told about any of it.
	Erase(ctx context.Context, userID string) ([]Erased, error)
}

// Budgets count what people do against limits, for hours or days.
type Budgets interface {
	// Forget removes what is counted of a user and of addresses, and returns of how
	// much something was counted.
	Forget(ctx context.Context, userID string, addresses []threepid.ID) (int, error)
}

// Erase removes everything of a user and reports about each table, with the
// budgets as the last one. It returns ErrInvalidUser.
func Erase(ctx context.Context, s EraseStore, b Budgets, userID string) ([]Erased, error) {
	if _, ok := serverOf(userID); !ok {
		return nil, ErrInvalidUser
	}
	// The budgets come first, because nobody knows the addresses afterwards.
	addresses, err := s.BoundAddresses(ctx, userID)
	if err != nil {
		return nil, fmt.Errorf("erase a user: %w", err)
	}
	budgets := Erased{Table: "budgets"}
	if budgets.Found, err = b.Forget(ctx, userID, addresses); err != nil {
		return nil, fmt.Errorf("erase a user's budgets: %w", err)
	}
	erased, err := s.Erase(ctx, userID)
	if err != nil {
		return nil, fmt.Errorf("erase a user: %w", err)
	}
	if budgets.Left, err = b.Forget(ctx, userID, addresses); err != nil {
		return nil, fmt.Errorf("count a user's budgets: %w", err)
	}
	return append(erased, budgets), nil
}
