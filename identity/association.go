package identity

import (
	"context"
	"errors"
	"fmt"

	"github.com/matrix-herald/herald/threepid"
)

// Association returns the association of an address, signed, as version 1 of the
// API looks addresses up: one at a time and in clear. It returns ErrNotFound for
// an address that is not bound, and for text that is not an address.
func (d *Directory) Association(ctx context.Context, medium, address string) (a Association, err error) {
	defer func() {
		d.opts.Metrics.lookedUp(LookupRequest{Algorithm: AlgorithmNone, Addresses: []string{address}}, unlessNotFound(err))
	}()
	id, err := threepid.ParseAddress(medium, address)
	if err != nil {
		return Association{}, fmt.Errorf("look up an association: %w", ErrNotFound)
	}
	b, err := d.opts.Store.Binding(ctx, id)
	if err != nil {
		return Association{}, fmt.Errorf("look up an association: %w", err)
	}
	a = b.association()
	if err := d.sign(ctx, &a); err != nil {
		return Association{}, fmt.Errorf("look up an association: %w", err)
	}
	return a, nil
}

// unlessNotFound returns err, nil if it says that nothing was found: that is an
// answer to a lookup as good as another.
func unlessNotFound(err error) error {
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// UserServer returns the homeserver of a user ID, and false for what is no user
// ID or cannot be stored.
func UserServer(userID string) (string, bool) { return serverOf(userID) }
