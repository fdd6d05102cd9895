package main

import (
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/matrix-herald/herald/identity/storetest"
	"github.com/matrix-herald/herald/internal/harness"
)

// TestItIsNotReadyWhileItsDiskIsFull lets the service write to no file beyond its
// size, and makes SQLite's log longer than that.
//
// Conformance (identity): a disk that is full | `/readyz` says so, requests are answered 503, and all is well once there is room
func TestItIsNotReadyWhileItsDiskIsFull(t *testing.T) {
	t.Parallel()
	database := storetest.SQLite(t)
	w := newWorld(t, database)
	p := w.start(t)
	const most = 4 << 20
	limit := syscall.Rlimit{Cur: most, Max: most}
	if _, _, e := syscall.RawSyscall6(syscall.SYS_PRLIMIT64, uintptr(p.Cmd.Process.Pid), syscall.RLIMIT_FSIZE,
		uintptr(unsafe.Pointer(&limit)), 0, 0, 0); e != 0 {
		t.Fatal(e)
	}
	other, err := direct(t, database).Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	run := func(statement string) {
		t.Helper()
		if _, err := other.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	ready := func(want int, text string) {
		t.Helper()
		eventually(t, "/readyz says "+text, func() bool {
			status, answer := fetch(t, p.Admin+"/readyz")
			return status == want && strings.Contains(answer, text)
		})
	}
	ready(http.StatusOK, "ok")
	run("PRAGMA wal_autocheckpoint = 0")
	run(`CREATE TABLE ballast (x BLOB)`)
	run(`INSERT INTO ballast WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 80) SELECT zeroblob(65536) FROM s`)
	ready(http.StatusServiceUnavailable, "database: its file cannot be read or written")
	status, answer := send(t, http.MethodPost, p.API+"/_matrix/identity/v2/account/register", "",
		`{"access_token":"openid-alice","token_type":"Bearer","matrix_server_name":"`+w.homeserver+`","expires_in":3600}`)
	if status != http.StatusServiceUnavailable || member(t, answer, "errcode") != "M_UNKNOWN" {
		t.Errorf("a registration meanwhile: %d %s", status, answer)
	}
	run("DROP TABLE ballast")
	run("PRAGMA wal_checkpoint(TRUNCATE)")
	ready(http.StatusOK, "ok")
	w.register(t, p.API, "alice")
}

// TestALongCommandThatIsStoppedSaysHowToGoOn stops an erasure and a rotation of the
// pepper as Ctrl-C does.
//
// Conformance (identity): a command that is stopped | says that the same command goes on
func TestALongCommandThatIsStoppedSaysHowToGoOn(t *testing.T) {
	t.Parallel()
	database := storetest.SQLite(t)
	w := newWorld(t, database)
	w.start(t).Stop(t)
	db := direct(t, database)
	change(t, db, `INSERT INTO bindings (medium, address, given, user_id, ts_ms)
		WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 20000)
		SELECT 'email', 'a' || n || '@example.com', '', '@u:example.org', 0 FROM s`)
	change(t, db, `UPDATE directory SET bindings = 20000`)
	stop := func(begun string, args ...string) {
		t.Helper()
		cmd, out := exec.Command(harness.Binary(t), append([]string{"-config", w.config}, args...)...), new(strings.Builder)
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "something is done", func() bool { return count(t, db, begun) > 0 })
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err == nil || !strings.Contains(out.String(), "the same command goes on from there") {
			t.Errorf("%s is stopped: %v, %s", args[0], err, out)
		}
	}
	stop("removals", "erase", "@u:example.org")
	stop(`peppers WHERE state = 'next' AND cursor > 0`, "rotate-pepper")
	if n := count(t, db, `peppers WHERE state = 'next' AND cursor > 0`); n != 1 {
		t.Error("what was done is lost")
	}
	if code, text, errs := command(t, nil, "-config", w.config, "rotate-pepper"); code != 0 || !strings.Contains(text, "The lookup pepper is a new one") {
		t.Errorf("again: exit status %d, %s%s", code, text, errs)
	}
}
