package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/matrix-herald/herald/identity/storetest"
)

// TestABackupIsPutBack copies a database beside the running service, loses
// everything, and begins again with the copy.
//
// Conformance (identity): a copy of SQLite beside the running service, its keys in it, and back | `backup`, `restore` (also TestABackupOfPostgreSQLIsItsOwn)
func TestABackupIsPutBack(t *testing.T) {
	t.Parallel()
	dir := newSydent(t)
	config, file := filepath.Join(dir, "identity.yaml"), filepath.Join(t.TempDir(), "copy")
	if code, _, errs := importSydent(t, dir); code != 0 {
		t.Fatal(errs)
	}
	run := func(args ...string) (int, string) {
		t.Helper()
		code, out, errs := command(t, nil, append([]string{"-config", config}, args...)...)
		return code, out + errs
	}
	s := startHere(t, ephemeral("IDENTITY_HTTP_TEST_DRAIN_DELAY=0s"), "-config", config)
	if code, out := run("backup", file); code != 0 || !strings.Contains(out, "keep it secret") {
		t.Fatalf("backup: exit status %d, %s", code, out)
	}
	if code, out := run("backup", file); code != 1 || !strings.Contains(out, "exists") {
		t.Errorf("over another: exit status %d, %s", code, out)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the copy: %v, %v", info.Mode(), err)
	}
	if code, out := run("restore", file); code != 1 || !strings.Contains(out, "is there already") {
		t.Errorf("beside the service: exit status %d, %s", code, out)
	}
	s.Stop()
	if err := os.RemoveAll(filepath.Join(dir, "data")); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(data []byte) []byte{
		"cut": func(data []byte) []byte { return data[:len(data)/2] },
		"damaged": func(data []byte) []byte {
			return append(append(data[:8192:8192], make([]byte, 4096)...), data[12288:]...)
		},
		"no copy": func([]byte) []byte { return []byte("not a database") },
	} {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		bad := writeFile(t, filepath.Join(t.TempDir(), "bad"), string(change(data)))
		if code, out := run("restore", bad); code != 1 || !strings.Contains(out, "damaged") {
			t.Errorf("%s: exit status %d, %s", name, code, out)
		}
		if left, _ := os.ReadDir(filepath.Join(dir, "data")); len(left) > 0 {
			t.Errorf("%s: left %v", name, left)
		}
	}
	if code, out := run("restore", file); code != 0 || !strings.Contains(out, "1 addresses are bound") {
		t.Fatalf("restore: exit status %d, %s", code, out)
	}
	s = startHere(t, ephemeral("IDENTITY_HTTP_TEST_DRAIN_DELAY=0s"), "-config", config)
	c := client{base: s.API, token: "aliceToken"}
	if hashed, _ := c.lookup(t, "alice@example.com"); hashed != "@alice:example.org" {
		t.Errorf("the address is %v's", hashed)
	}
	if got := c.get(t, "/pubkey/ed25519:0")["public_key"]; got != sydentPublic {
		t.Errorf("the key is %v", got)
	}
	for _, name := range []string{"identity.db", "signing.keys", "code.key"} {
		info, err := os.Stat(filepath.Join(dir, "data", name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}

func TestABackupOfPostgreSQLIsItsOwn(t *testing.T) {
	t.Parallel()
	storetest.NeedServer(t)
	w := newWorld(t, storetest.PostgreSQL(t))
	for name, want := range map[string]string{"backup": `pg_dump --format=custom --file=copy 'postgres://`, "restore": `pg_restore --no-owner`} {
		code, out, errs := command(t, nil, "-config", w.config, name, "copy")
		if code != 1 || out != "" || !strings.Contains(errs, want) || regexp.MustCompile(`://[^@'/]*:[^@'/]*@`).MatchString(errs) {
			t.Errorf("%s: exit status %d, %s%s", name, code, out, errs)
		}
	}
}
