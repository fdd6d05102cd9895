// Package storetest is the contract of the identity service's stores, as tests
// that every store passes, and the databases to run them on. It tests no rule
// of the service.
package storetest

import (
	"context"
	"crypto/sha256"
	"fmt"
	"testing"
	"time"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/identity/signing"
	"github.com/matrix-herald/herald/threepid"
	"github.com/matrix-herald/herald/threepid/validation"
)

// Store is what Run tests.
type Store interface {
	identity.AccountStore
	identity.TermsStore
	identity.DirectoryStore
	identity.PepperStore
	identity.InviteStore
	identity.DeliveryStore
	identity.KeyStore
	identity.EraseStore
	validation.Store
	About(ctx context.Context, p identity.Person) (identity.About, error)
	ClaimServerName(ctx context.Context, name string, provisional func(kept string) bool) error
}

// Run tests the stores that open returns, an empty one for each subtest. Open
// has them closed with the test.
func Run(t *testing.T, open func(t *testing.T) Store) {
	t.Helper()
	for _, group := range []map[string]func(*testing.T, Store){
		accounts(), terms(), directory(), peppers(), keys(), invites(), deliveries(), erasing(),
	} {
		for name, test := range group {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				test(t, open(t))
			})
		}
	}
}

// begin is the time at which tests begin; stores have milliseconds.
func begin() time.Time { return time.UnixMilli(1_800_000_000_123) }

// by is a removal by whoever it belongs to.
func by() identity.Removal { return identity.Removal{At: begin()} }

func digest(s string) identity.Digest { return sha256.Sum256([]byte(s)) }

func binding(user int, local string) identity.Binding {
	return identity.Binding{
		ID:     threepid.ID{Medium: threepid.MediumEmail, Address: local + "@example.com"},
		UserID: fmt.Sprintf("@user%d:example.org", user),
		TS:     begin(),
	}
}

func newKey(t *testing.T, version string) identity.StoredKey {
	t.Helper()
	k, err := signing.GenerateKey(version)
	ok(t, err)
	return identity.StoredKey{Key: k, State: identity.KeyActive}
}

// finish calls a step until it reports that it was the last one.
func finish(t *testing.T, step func() (done bool, err error)) {
	t.Helper()
	for {
		done, err := step()
		ok(t, err)
		if done {
			return
		}
	}
}

// ok ends the test on an error.
func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// must returns what a call without an error returned.
func must[T any](v T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		ok(t, err)
		return v
	}
}
