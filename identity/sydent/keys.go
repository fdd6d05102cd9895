package sydent

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/identity/signing"
)

// activate makes Sydent's signing key the one that signs, unless the service has
// had it before.
func activate(ctx context.Context, store identity.KeyStore, key signing.Key) error {
	all, err := store.Keys(ctx)
	if err != nil {
		return err
	}
	active := ""
	for _, k := range all {
		if k.Key.ID() == key.ID() {
			if !k.Key.Public().Equal(key.Public()) {
				return fmt.Errorf("the service has another signing key called %s: %w", key.ID(), identity.ErrConflict)
			}
			return nil
		}
		if k.State == identity.KeyActive {
			active = k.Key.ID()
		}
	}
	return store.ActivateKey(ctx, active, identity.StoredKey{Key: key, State: identity.KeyActive})
}

// announce makes Sydent's lookup pepper the current one, unless the service has
// it already.
func announce(ctx context.Context, store identity.PepperStore, value string, now time.Time) (done bool, err error) {
	all, err := store.Peppers(ctx)
	if err != nil {
		return false, err
	}
	if !hasPepper(all, value) {
		if all, err = fill(ctx, store, now); err != nil { // a replacement that was under way
			return false, err
		}
		var current int64
		for _, p := range all {
			if p.State == identity.PepperCurrent {
				current = p.ID
			}
		}
		if err := store.BeginPepper(ctx, value, current); err != nil {
			return false, err
		}
		done = true
	}
	if all, err = fill(ctx, store, now); err != nil {
		return false, err
	}
	if !hasPepper(all, value) {
		return false, fmt.Errorf("the lookup pepper is being replaced at the same moment: %w", identity.ErrConflict)
	}
	return done, nil
}

// fill completes the replacement of the pepper that is under way and returns all
// peppers.
func fill(ctx context.Context, store identity.PepperStore, now time.Time) ([]identity.Pepper, error) {
	for {
		done, err := store.FillPepper(ctx, batch, now, now.Add(identity.DefaultPepperGrace))
		if err != nil {
			return nil, err
		}
		if done {
			return store.Peppers(ctx)
		}
	}
}

// hasPepper reports whether a pepper of that value is among all.
func hasPepper(all []identity.Pepper, value string) bool {
	return slices.ContainsFunc(all, func(p identity.Pepper) bool { return p.Value == value })
}
