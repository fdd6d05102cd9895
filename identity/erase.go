package identity

import (
	"context"
	"fmt"
	"time"

	"github.com/matrix-herald/herald/threepid"
)

// Removal says when something is removed on purpose, and by whom. Stores remember
// removals, by fingerprints, so that no import brings back what was removed.
type Removal struct {
	At time.Time
	By string // the operator; "" for whoever it belonged to
}

// RemovalRecord is a removal that is remembered.
type RemovalRecord struct {
	Removal

	Kind string // "binding", "address" or "user"
}

// Person is whom to erase: a user, or whoever uses an address.
type Person struct {
	UserID    string // "" for nobody in particular
	Addresses []threepid.ID
}

// Progress is told how much of something long is done.
type Progress func(what string, done, total int)

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
	// Erase removes in small steps what is kept of a person, and counts what is left
	// by queries of their own after that. If it is broken off, erasing the person
	// again removes the rest. Of a user are their access tokens, the terms they
	// accepted, their bindings with all digests, the validation sessions that they
	// began or of the addresses bound to them, the wrong guesses at those addresses,
	// the invites that they sent, that they took or that are for those addresses, and
	// what homeservers are to be told about any of it. Of an address without a user
	// are its binding, whoever's it is, and all of that that is about the address.
	Erase(ctx context.Context, p Person, by Removal, progress Progress) ([]Erased, error)
}

// Budgets count what people do against limits, for hours or days.
type Budgets interface {
	// Forget removes what is counted of a user and of addresses, and returns of how
	// much something was counted.
	Forget(ctx context.Context, userID string, addresses []threepid.ID) (int, error)
}

// Erase removes everything of a person and reports about each table, with the
// budgets as the last one. The addresses of a user are those bound to them. It
// returns ErrInvalidUser.
func Erase(ctx context.Context, s EraseStore, b Budgets, p Person, by Removal, progress Progress) ([]Erased, error) {
	// The budgets come first, because nobody knows the addresses afterwards.
	if p.UserID != "" || len(p.Addresses) == 0 {
		if _, ok := serverOf(p.UserID); !ok {
			return nil, ErrInvalidUser
		}
		var err error
		if p.Addresses, err = s.BoundAddresses(ctx, p.UserID); err != nil {
			return nil, fmt.Errorf("erase a person: %w", err)
		}
	}
	budgets := Erased{Table: "budgets"}
	var err error
	if budgets.Found, err = b.Forget(ctx, p.UserID, p.Addresses); err != nil {
		return nil, fmt.Errorf("erase a person's budgets: %w", err)
	}
	erased, err := s.Erase(ctx, p, by, progress)
	if err != nil {
		return nil, fmt.Errorf("erase a person: %w", err)
	}
	if budgets.Left, err = b.Forget(ctx, p.UserID, p.Addresses); err != nil {
		return nil, fmt.Errorf("count a person's budgets: %w", err)
	}
	return append(erased, budgets), nil
}
