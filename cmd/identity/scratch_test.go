package main

import (
	"database/sql"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/matrix-herald/herald/internal/harness"
)

// TestCommandsNeedNoTemporaryFolder runs the binary as an image from scratch does:
// there is nothing but the binary and the data, and only the latter can be written
// to. What SQLite sorts for these commands is more than it keeps without a file.
//
// Conformance (identity): a scratch image, with no folder to write to but its data | the commands that read or change the database work
func TestCommandsNeedNoTemporaryFolder(t *testing.T) {
	t.Parallel()
	dir := newSydent(t)
	db, err := sql.Open("sqlite", filepath.Join(dir, "sydent.db"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.ExecContext(t.Context(), `INSERT INTO global_threepid_associations
		(medium, address, mxid, ts, notBefore, notAfter, originServer, originId, sgAssoc)
		WITH RECURSIVE s(n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM s WHERE n < 8000)
		SELECT 'email', 'user' || n || '@a-rather-long-name-of-a-company.example.com', '@user' || n || ':example.org',
			1700000000000 + n, 0, 4000000000000, 'id.example.org', n, '' FROM s`)
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	binary := harness.Binary(t)
	copyTo(t, filepath.Join(dir, "identity"), binary)
	if err := os.MkdirAll(filepath.Join(dir, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(dir, 0o700) })
	for _, args := range [][]string{
		{"import-sydent", "-db", "sydent.db", "-conf", "sydent.conf"},
		{"rotate-pepper"},
		{"rotate-key"},
		{"invites", "list"},
		{"backup", "data/copy"},
		{"why", "@user2:example.org"},
		{"why", "user2@a-rather-long-name-of-a-company.example.com", "-unbind"},
		{"erase", "@user3:example.org"},
	} {
		cmd := exec.Command("/identity", append([]string{"-config", "identity.yaml"}, args...)...)
		cmd.Dir, cmd.Env = "/", []string{}
		// Whoever runs the test is a user without rights there.
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Chroot: dir, Cloneflags: syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 65532, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 65532, HostID: os.Getgid(), Size: 1}},
		}
		out, err := cmd.CombinedOutput()
		if _, ran := errors.AsType[*exec.ExitError](err); err != nil && !ran {
			t.Skipf("no user namespaces here, or a binary that is not static: %v", err)
		}
		if err != nil {
			t.Errorf("%s: %v\n%s", args[0], err, out)
		}
	}
}

func copyTo(t *testing.T, to, from string) {
	t.Helper()
	source, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	file, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(file, source)
	if err := errors.Join(err, file.Close()); err != nil {
		t.Fatal(err)
	}
}
