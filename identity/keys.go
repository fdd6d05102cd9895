package identity

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/matrix-herald/herald/identity/signing"
)

const (
	// keyAge is how old the keys in memory may be, so that a rotation by another
	// process takes effect within a minute.
	keyAge = 30 * time.Second
	// keyMissAge is the same for a question about a key that is not in memory: a
	// replica may have made it just now. Nobody needs a token to ask, so it also
	// bounds the queries that asking causes.
	keyMissAge = time.Second
)

// KeyringOptions configure a Keyring. All fields are required.
type KeyringOptions struct {
	Store KeyStore
	Now   func() time.Time
	Log   *slog.Logger
}

// Keyring holds the service's signing keys.
type Keyring struct {
	opts    KeyringOptions
	cache   atomic.Pointer[keyCache]
	loading sync.Mutex                // held by the one request that asks the store
	failed  atomic.Pointer[time.Time] // when the store last failed to answer; nil while it does
}

type keyCache struct {
	keys   []StoredKey
	loaded time.Time
}

// OpenKeyring returns the Keyring, and makes the first key where there is none.
func OpenKeyring(ctx context.Context, o KeyringOptions) (*Keyring, error) {
	if o.Store == nil || o.Now == nil || o.Log == nil {
		return nil, errors.New("identity: keyring: an option is missing")
	}
	k := &Keyring{opts: o}
	c, err := k.load(ctx)
	if err != nil {
		return nil, err
	}
	if _, ok := c.active(); !ok {
		if _, err := k.replace(ctx, ""); err != nil {
			return nil, err
		}
	}
	return k, nil
}

// Active returns the key to sign with.
func (k *Keyring) Active(ctx context.Context) (signing.Key, error) {
	key, ok := k.fresh(ctx, keyAge).active()
	if !ok {
		return signing.Key{}, fmt.Errorf("active key: %w", ErrNoKey)
	}
	return key, nil
}

// Key returns the key with the given ID, also when it is retired, to sign for
// those who know no other. It returns ErrNoKey if there is none or if it is
// compromised.
func (k *Keyring) Key(ctx context.Context, id string) (signing.Key, error) {
	for _, age := range []time.Duration{keyAge, keyMissAge} {
		for _, s := range k.fresh(ctx, age).keys {
			if s.Key.ID() == id && s.State != KeyCompromised {
				return s.Key, nil
			}
		}
	}
	return signing.Key{}, ErrNoKey
}

// Public returns the public half of the key with the given ID, such as
// "ed25519:1", in unpadded base64, also when the key is retired. It returns
// ErrNoKey if there is none or if it is compromised.
func (k *Keyring) Public(ctx context.Context, id string) (string, error) {
	key, err := k.Key(ctx, id)
	if err != nil {
		return "", err
	}
	return key.PublicBase64(), nil
}

// Valid reports whether public is the public half of one of our keys, in any
// base64, that is not compromised. A "+" that a query string turned into a
// space is understood.
func (k *Keyring) Valid(ctx context.Context, public string) bool {
	asked, err := signing.ParsePublicKey(strings.ReplaceAll(public, " ", "+"))
	if err != nil {
		return false
	}
	for _, age := range []time.Duration{keyAge, keyMissAge} {
		for _, s := range k.fresh(ctx, age).keys {
			if bytes.Equal(s.Key.Public(), asked) && s.State != KeyCompromised {
				return true
			}
		}
	}
	return false
}

// Rotate makes a new active key, retires the old one and returns the new one's
// ID. What the old one signed stays valid. Running servers sign with the new key
// within a minute. It returns ErrConflict if somebody else rotated meanwhile.
func (k *Keyring) Rotate(ctx context.Context) (id string, err error) {
	c, err := k.load(ctx)
	if err != nil {
		return "", err
	}
	old, _ := c.active()
	return k.replace(ctx, old.ID())
}

// Compromise declares that nothing signed with the key is valid. The active key
// is replaced first. It returns ErrNoKey, and ErrConflict as Rotate does.
func (k *Keyring) Compromise(ctx context.Context, id string) error {
	c, err := k.load(ctx)
	if err != nil {
		return err
	}
	if key, ok := c.active(); ok && key.ID() == id {
		if _, err := k.replace(ctx, id); err != nil {
			return err
		}
	}
	err = k.opts.Store.CompromiseKey(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return ErrNoKey
	}
	if err != nil {
		return fmt.Errorf("declare a signing key compromised: %w", err)
	}
	_, err = k.load(ctx)
	return err
}

// replace makes a new key active in place of old, "" for the first one, where
// losing to another replica is as good as winning.
func (k *Keyring) replace(ctx context.Context, old string) (id string, err error) {
	// A random version: a service that starts over under its old name must not
	// reuse an ID that others have remembered a key for.
	key, err := signing.GenerateKey(rand.Text()[:8])
	if err != nil {
		return "", err
	}
	err = k.opts.Store.ActivateKey(ctx, old, StoredKey{Key: key, State: KeyActive})
	switch {
	case err == nil:
		k.opts.Log.InfoContext(ctx, "made a signing key", "key_id", key.ID())
	case old != "" || !errors.Is(err, ErrConflict):
		return "", fmt.Errorf("activate a signing key: %w", err)
	}
	c, err := k.load(ctx)
	if err != nil {
		return "", err
	}
	active, ok := c.active()
	if !ok {
		return "", fmt.Errorf("active key: %w", ErrNoKey)
	}
	return active.ID(), nil
}

// fresh returns the keys as they were less than age ago. Without an answer of
// the store, or while another request waits for one, it returns the last known
// ones: signatures must not stop being valid because a database is away. A store
// that failed is asked again keyMissAge later, and the log says so once.
func (k *Keyring) fresh(ctx context.Context, age time.Duration) *keyCache {
	c := k.cache.Load()
	if k.opts.Now().Sub(c.loaded).Abs() < age {
		return c
	}
	failed := k.failed.Load()
	if failed != nil && k.opts.Now().Sub(*failed).Abs() < keyMissAge || !k.loading.TryLock() {
		return c
	}
	defer k.loading.Unlock()
	// Another request may have loaded them since this one looked.
	if now := k.cache.Load(); now != c {
		return now
	}
	loaded, err := k.load(ctx)
	if err != nil {
		if errors.Is(ctx.Err(), context.Canceled) { // the client hung up
			return c
		}
		if now := k.opts.Now(); k.failed.Swap(&now) == nil {
			k.opts.Log.WarnContext(ctx, "signing keys are not up to date", "err", err)
		}
		return c
	}
	k.failed.Store(nil)
	return loaded
}

func (k *Keyring) load(ctx context.Context) (*keyCache, error) {
	loaded := k.opts.Now()
	keys, err := k.opts.Store.Keys(ctx)
	if err != nil {
		return nil, fmt.Errorf("load signing keys: %w", err)
	}
	c := &keyCache{keys: keys, loaded: loaded}
	k.cache.Store(c)
	return c, nil
}

func (c *keyCache) active() (signing.Key, bool) {
	for _, s := range c.keys {
		if s.State == KeyActive {
			return s.Key, true
		}
	}
	return signing.Key{}, false
}
