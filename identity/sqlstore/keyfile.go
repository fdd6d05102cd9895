package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/matrix-herald/herald/identity"
)

// lockRetry is how often a taken lock on a key file is tried again.
const lockRetry = 10 * time.Millisecond

const keyFileHeader = "# Signing keys of the identity service: state, algorithm, version and secret of each.\n"

// ErrKeyLost means that a key file is gone or older than its database: it does
// not hold the key that was the last one to sign.
var ErrKeyLost = errors.New("the signing key is lost")

// KeyFile keeps signing keys in a text file beside a SQLite database, so that a
// copy of the database holds no secret of the service. It may be changed while
// servers use it. The database notes which key signs, and so tells a new service
// from one that has lost its file.
type KeyFile struct {
	path string
	db   *DB
}

// NewKeyFile returns the store in the file at path, which need not exist, of the
// service whose database is db, one of SQLite. It keeps a lock in a second file,
// path with ".lock" added.
func NewKeyFile(path string, db *DB) *KeyFile { return &KeyFile{path: path, db: db} }

// Keys implements identity.KeyStore. It returns ErrKeyLost. Errors name the line
// at fault and do not quote it.
func (f *KeyFile) Keys(ctx context.Context) ([]identity.StoredKey, error) {
	// In this order: what is noted has been in the file before.
	noted, err := f.db.notedKey(ctx)
	if err != nil {
		return nil, fmt.Errorf("signing keys: %w", err)
	}
	keys, err := f.read()
	if err != nil {
		return nil, err
	}
	find := func(match func(identity.StoredKey) bool) int { return slices.IndexFunc(keys, match) }
	if noted != "" && find(func(k identity.StoredKey) bool { return k.Key.ID() == noted }) < 0 {
		return nil, fmt.Errorf("signing keys: %w: %s does not hold %s", ErrKeyLost, f.path, noted)
	}
	active := find(func(k identity.StoredKey) bool { return k.State == identity.KeyActive })
	if active >= 0 && keys[active].Key.ID() != noted {
		if err := f.db.noteKey(ctx, keys[active].Key.ID()); err != nil {
			return nil, fmt.Errorf("signing keys: %w", err)
		}
	}
	return keys, nil
}

// ForgetLost reports whether the service has lost the key that signed last. If
// so it may begin anew with another one, and what the lost one signed stays
// invalid.
func (f *KeyFile) ForgetLost(ctx context.Context) (lost bool, err error) {
	_, err = f.Keys(ctx)
	if lost = errors.Is(err, ErrKeyLost); lost {
		err = f.db.noteKey(ctx, "")
	}
	if err != nil {
		return false, fmt.Errorf("forget a lost signing key: %w", err)
	}
	return lost, nil
}

// notedKey returns the ID of the key that was noted last, "" for none.
func (db *DB) notedKey(ctx context.Context) (id string, err error) {
	err = db.read.QueryRowContext(ctx, `SELECT key_id FROM service WHERE id = 1`).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) { // before ClaimServerName
		return "", nil
	}
	return id, err
}

func (db *DB) noteKey(ctx context.Context, id string) error {
	_, err := db.write.ExecContext(ctx, `UPDATE service SET key_id = $1 WHERE id = 1`, id)
	return err
}

// read returns the keys in the file, none if there is no file.
func (f *KeyFile) read() ([]identity.StoredKey, error) {
	data, err := os.ReadFile(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("signing keys: %w", err)
	}
	var keys []identity.StoredKey
	for i, line := range strings.Split(string(data), "\n") {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		k, err := parseKeyLine(line)
		if err != nil {
			return nil, fmt.Errorf("signing keys: %s, line %d: %w", f.path, i+1, err)
		}
		keys = append(keys, k)
	}
	return keys, nil
}

func parseKeyLine(line string) (identity.StoredKey, error) {
	fields := strings.Fields(line)
	if len(fields) != 4 {
		return identity.StoredKey{}, errors.New("not a state and a signing key")
	}
	return identity.NewStoredKey(fields[1]+":"+fields[2], fields[3], identity.KeyState(fields[0]))
}

// ActivateKey implements identity.KeyStore.
func (f *KeyFile) ActivateKey(ctx context.Context, old string, key identity.StoredKey) error {
	err := f.update(ctx, func(keys []identity.StoredKey) ([]identity.StoredKey, error) {
		active := slices.IndexFunc(keys, func(k identity.StoredKey) bool { return k.State == identity.KeyActive })
		switch {
		case active < 0 && old != "":
			return nil, identity.ErrConflict
		case active >= 0 && keys[active].Key.ID() != old:
			return nil, identity.ErrConflict
		case active >= 0:
			keys[active].State = identity.KeyRetired
		}
		return append(keys, key), nil
	})
	return doing("activate a signing key", err)
}

// CompromiseKey implements identity.KeyStore.
func (f *KeyFile) CompromiseKey(ctx context.Context, id string) error {
	err := f.update(ctx, func(keys []identity.StoredKey) ([]identity.StoredKey, error) {
		for i, k := range keys {
			if k.Key.ID() == id && k.State != identity.KeyActive {
				keys[i].State = identity.KeyCompromised
				return keys, nil
			}
		}
		return nil, identity.ErrNotFound
	})
	return doing("declare a signing key compromised", err)
}

// update replaces the keys with what change makes of them, while it holds the
// lock.
func (f *KeyFile) update(ctx context.Context, change func([]identity.StoredKey) ([]identity.StoredKey, error)) error {
	lock, err := os.OpenFile(f.path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close() // gives the lock back
	if err := flock(ctx, lock); err != nil {
		return err
	}
	keys, err := f.Keys(ctx)
	if err != nil {
		return err
	}
	if keys, err = change(keys); err != nil {
		return err
	}
	return f.write(keys)
}

// flock waits for the lock on a file, which ends with the process at the latest.
func flock(ctx context.Context, file *os.File) error {
	tick := time.NewTicker(lockRetry)
	defer tick.Stop()
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return fmt.Errorf("lock %s: %w", file.Name(), err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("lock %s: %w", file.Name(), context.Cause(ctx))
		}
	}
}

// write replaces the file in one step: readers and a crash meet the old keys or
// the new ones.
func (f *KeyFile) write(keys []identity.StoredKey) error {
	text := []byte(keyFileHeader)
	for _, k := range keys {
		text = fmt.Appendf(text, "%s %s\n", k.State, k.Key.Line())
	}
	dir := filepath.Dir(f.path)
	tmp, err := os.CreateTemp(dir, filepath.Base(f.path)+".*") // with mode 0600
	if err != nil {
		return err
	}
	_, err = tmp.Write(text)
	if err == nil {
		err = tmp.Sync()
	}
	err = errors.Join(err, tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), f.path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return syncDir(dir)
}

// syncDir makes renames in a folder survive a crash of the machine.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
