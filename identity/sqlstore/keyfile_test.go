package sqlstore_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/identity/signing"
	"github.com/matrix-herald/herald/identity/sqlstore"
	"github.com/matrix-herald/herald/identity/storetest"
)

func TestKeyFileContract(t *testing.T) {
	t.Parallel()
	storetest.RunKeys(t, func(t *testing.T) identity.KeyStore {
		file, _ := newKeyFile(t)
		return file
	})
}

// newKeyFile returns a key file that is not there yet, of a new service.
func newKeyFile(t *testing.T) (file *sqlstore.KeyFile, path string) {
	t.Helper()
	db := open(t, storetest.SQLite(t))
	if err := db.ClaimServerName(t.Context(), "id.example.org", named); err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "keys")
	return sqlstore.NewKeyFile(path, db), path
}

func key(t *testing.T, version string) identity.StoredKey {
	t.Helper()
	k, err := signing.GenerateKey(version)
	if err != nil {
		t.Fatal(err)
	}
	return identity.StoredKey{Key: k, State: identity.KeyActive}
}

func TestKeyFileIsItsOwnersOnly(t *testing.T) {
	t.Parallel()
	file, path := newKeyFile(t)
	dir := filepath.Dir(path)
	if err := file.ActivateKey(t.Context(), "", key(t, "a")); err != nil {
		t.Fatal(err)
	}
	if err := file.ActivateKey(t.Context(), "ed25519:a", key(t, "b")); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		if mode := info.Mode().Perm(); mode != 0o600 {
			t.Errorf("%s has mode %o", e.Name(), mode)
		}
	}
	if len(entries) != 2 { // the file and its lock
		t.Errorf("%d files, want 2", len(entries))
	}
}

func TestKeyFileRefusesWhatIsNoKey(t *testing.T) {
	t.Parallel()
	const seed = "YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1"
	for name, line := range map[string]string{
		"a state that does not exist": "asleep ed25519 1 " + seed,
		"a line without a state":      "ed25519 1 " + seed,
		"a seed that is cut off":      "active ed25519 1 " + seed[:20],
		"another algorithm":           "active rsa 1 " + seed,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file, path := newKeyFile(t)
			if err := os.WriteFile(path, []byte("# comment\n\n"+line+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := file.Keys(t.Context())
			if err == nil || !strings.Contains(err.Error(), "line 3") || strings.Contains(err.Error(), seed[:20]) {
				t.Errorf("got %v", err)
			}
			// A file that cannot be read must not be overwritten.
			if err := file.ActivateKey(t.Context(), "", key(t, "b")); err == nil {
				t.Error("a new key replaced the file")
			}
		})
	}
}

func TestKeyFileWaitsForItsLockUntilTheDeadline(t *testing.T) {
	t.Parallel()
	file, path := newKeyFile(t)
	lock, err := os.Create(path + ".lock")
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error)
	go func() { result <- file.ActivateKey(ctx, "", key(t, "a")) }()
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the file was written without the lock: %v", err)
	}
}

func TestALostKeyFileIsToldFromANewService(t *testing.T) {
	t.Parallel()
	file, path := newKeyFile(t)
	ctx := t.Context()
	expect := func(want error, keys int) {
		t.Helper()
		found, err := file.Keys(ctx)
		if !errors.Is(err, want) || len(found) != keys {
			t.Errorf("got %d keys and %v, want %d and %v", len(found), err, keys, want)
		}
	}
	forget := func(want bool) {
		t.Helper()
		if lost, err := file.ForgetLost(ctx); lost != want || err != nil {
			t.Errorf("forgot %t, %v; want %t", lost, err, want)
		}
	}
	expect(nil, 0)
	if err := file.ActivateKey(ctx, "", key(t, "a")); err != nil {
		t.Fatal(err)
	}
	expect(nil, 1)
	forget(false)
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := file.ActivateKey(ctx, "ed25519:a", key(t, "b")); err != nil {
		t.Fatal(err)
	}
	expect(nil, 2)
	if err := os.WriteFile(path, old, 0o600); err != nil {
		t.Fatal(err)
	}
	expect(sqlstore.ErrKeyLost, 0)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	expect(sqlstore.ErrKeyLost, 0)
	if err := file.ActivateKey(ctx, "", key(t, "c")); !errors.Is(err, sqlstore.ErrKeyLost) {
		t.Errorf("another key: %v", err)
	}
	forget(true)
	expect(nil, 0)
	if err := file.ActivateKey(ctx, "", key(t, "c")); err != nil {
		t.Fatal(err)
	}
	expect(nil, 1)
	if err := os.WriteFile(path, append(old, strings.Repeat("#", 10)...), 0o600); err != nil {
		t.Fatal(err)
	}
	expect(sqlstore.ErrKeyLost, 0)
}
