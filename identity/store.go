package identity

import (
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/matrix-herald/herald/identity/signing"
	"github.com/matrix-herald/herald/threepid"
)

// Digest is a SHA-256 value: of an access token, or of an address under a
// pepper.
type Digest = [sha256.Size]byte

// AccountStore keeps access tokens, by their hashes only. Times are kept in
// milliseconds.
type AccountStore interface {
	// AddToken stores a token of a user, used at now.
	AddToken(ctx context.Context, token Digest, userID string, now time.Time) error
	// Token returns the user of a token that was used after idleSince, and when
	// that use was noted. It returns ErrNotFound.
	Token(ctx context.Context, token Digest, idleSince time.Time) (userID string, used time.Time, err error)
	// TouchToken notes that a token was used, if it is still there.
	TouchToken(ctx context.Context, token Digest, now time.Time) error
	// DeleteToken removes a token that was used after idleSince. It returns
	// ErrNotFound.
	DeleteToken(ctx context.Context, token Digest, idleSince time.Time, by Removal) error
	// SweepAccounts removes up to limit tokens that were not used after
	// idleSince. Of up to limit users who have neither a token nor a binding it
	// also removes the terms that they accepted before then. It returns how many
	// rows it removed.
	SweepAccounts(ctx context.Context, idleSince time.Time, limit int) (int, error)
}

// TermsStore keeps who accepted which document.
type TermsStore interface {
	// AcceptTerms adds urls to what the user accepted; those accepted before
	// keep their time.
	AcceptTerms(ctx context.Context, userID string, urls []string, now time.Time) error
	// AcceptedTerms returns the URLs that the user accepted, in any order.
	AcceptedTerms(ctx context.Context, userID string) ([]string, error)
}

// Binding says that a third-party identifier belongs to a user.
type Binding struct {
	ID     threepid.ID
	UserID string
	// OriginalSpelling is the address in the lower case of how its owner wrote it, where
	// clients that do not fold case hash that spelling, too; else "".
	OriginalSpelling string
	// TS is when the binding was made, in whole milliseconds.
	TS time.Time
}

// Server returns the homeserver of the user.
func (b Binding) Server() string {
	_, server, _ := strings.Cut(b.UserID, ":")
	return server
}

// Digests returns the lookup digests of every spelling of the address under a
// pepper, the canonical one first.
func (b Binding) Digests(pepper string) []Digest {
	spellings, err := threepid.Spellings(string(b.ID.Medium), b.ID.Address)
	if err != nil {
		// It was canonical when it was bound; a later release that reads addresses
		// otherwise must not lose it.
		spellings = []string{b.ID.Address}
	}
	if b.OriginalSpelling != "" {
		spellings = append(spellings, b.OriginalSpelling)
	}
	digests := make([]Digest, 0, len(spellings))
	for i, s := range spellings {
		if !slices.Contains(spellings[:i], s) {
			digests = append(digests, threepid.LookupDigest(s, b.ID.Medium, pepper))
		}
	}
	return digests
}

// DirectoryStore keeps bindings, one for each identifier, and their digests
// under every pepper that is not retired.
type DirectoryStore interface {
	// Bind makes or replaces the binding of b.ID, and with it the deliveries that
	// are due at b.TS: one for each invite that waits for the address and expires
	// later, or one without an invite, to be made for DeliverFor. What another
	// user's homeserver has not been told yet about this address, it will not be.
	Bind(ctx context.Context, b Binding) error
	// Unbind removes the binding of id, all its digests and the deliveries that
	// have not been made if it is userID's, and reports whether it was.
	Unbind(ctx context.Context, id threepid.ID, userID string, by Removal) (bool, error)
	// Lookup returns the users of those digests that are bound, with one query
	// whose time does not depend on the number of bindings. The digests are all
	// of one pepper; one may come twice.
	Lookup(ctx context.Context, pepper int64, digests []Digest) (map[Digest]string, error)
	// Binding returns the binding of id, without the spelling that was given. It
	// returns ErrNotFound.
	Binding(ctx context.Context, id threepid.ID) (Binding, error)
	// Bindings returns the number of bindings without counting them.
	Bindings(ctx context.Context) (int64, error)
}

// PepperState is where a pepper is in its life; it goes through the states in
// their order here.
type PepperState string

// The states of a pepper.
const (
	PepperNext     PepperState = "next"     // digests are being computed
	PepperCurrent  PepperState = "current"  // announced
	PepperPrevious PepperState = "previous" // honoured until a moment
	PepperRetired  PepperState = "retired"  // digests are being removed
)

// Pepper is one generation of the lookup pepper.
type Pepper struct {
	ID    int64 // positive, rising
	Value string
	State PepperState
	Since time.Time // when it became current; zero before
	Until time.Time // until when it is honoured; zero before it is known
}

// PepperStore keeps the generations of the pepper. Its changes and those of a
// DirectoryStore are serialised: a binding is made either before a generation
// begins, and then FillPepper meets it, or knows of it.
type PepperStore interface {
	// Peppers returns every generation that is not gone, oldest first.
	Peppers(ctx context.Context) ([]Pepper, error)
	// BeginPepper adds a generation in state next if there is none yet and the
	// current one is the one with the ID current, 0 for none. Else it does
	// nothing: the change that was wanted is under way or done.
	BeginPepper(ctx context.Context, value string, current int64) error
	// FillPepper adds the next generation's digests of up to limit bindings,
	// from where the last call, by whomever, left off. The call that finds no
	// more makes the generation current since now and the current one honoured
	// until then. It reports whether there is no next generation left.
	FillPepper(ctx context.Context, limit int, now, until time.Time) (done bool, err error)
	// DrainPeppers retires what was honoured until before, and removes the
	// digests of up to limit bindings under retired generations and generations
	// without digests. It reports whether no retired generation is left.
	DrainPeppers(ctx context.Context, before time.Time, limit int) (done bool, err error)
}

// KeyState is where a signing key is in its life.
type KeyState string

// The states of a signing key.
const (
	KeyActive      KeyState = "active"      // signs; exactly one does
	KeyRetired     KeyState = "retired"     // what it signed stays valid
	KeyCompromised KeyState = "compromised" // nothing it signed is valid
)

// StoredKey is a signing key in a KeyStore.
type StoredKey struct {
	Key   signing.Key
	State KeyState
}

// NewStoredKey reads a key from what a store keeps of it: its ID, its seed as
// signing.Key has them, and its state. The error quotes neither.
func NewStoredKey(id, seed string, state KeyState) (StoredKey, error) {
	switch state {
	case KeyActive, KeyRetired, KeyCompromised:
	default:
		return StoredKey{}, errors.New("not a state of a signing key")
	}
	key, err := signing.NewKey(id, seed)
	return StoredKey{Key: key, State: state}, err
}

// KeyStore keeps the service's signing keys. It never loses one that others may
// have seen.
type KeyStore interface {
	// Keys returns all keys, in any order.
	Keys(ctx context.Context) ([]StoredKey, error)
	// ActivateKey adds key, whose state is KeyActive, and retires the one with
	// the ID old, "" for none. It returns ErrConflict if the active key is
	// another: of several callers at once, one succeeds.
	ActivateKey(ctx context.Context, old string, key StoredKey) error
	// CompromiseKey marks a key that is not active. It returns ErrNotFound.
	CompromiseKey(ctx context.Context, id string) error
}
