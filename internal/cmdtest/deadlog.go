package cmdtest

import (
	"bufio"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// TestDeadLogReader runs the program for development and stops to read what it
// writes: it must go on, and end well. Its options have environment variables with
// this prefix.
func TestDeadLogReader(t *testing.T, prefix string) {
	t.Helper()
	name, err := build()
	if err != nil {
		t.Fatal(err)
	}
	output, written, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(name, "-dev")
	cmd.Dir, cmd.Stdout, cmd.Stderr = t.TempDir(), written, written
	cmd.Env = append(os.Environ(), prefix+"HTTP_LISTEN=127.0.0.1:0", prefix+"HTTP_ADMIN_LISTEN=", prefix+"HTTP_DRAIN_DELAY=0s", prefix+"LOG_FORMAT=json")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	written.Close()
	var event struct{ Msg, Address string }
	for lines := bufio.NewScanner(output); event.Msg != "listening" && lines.Scan(); {
		_ = json.Unmarshal(lines.Bytes(), &event) // other lines are for people
	}
	output.Close()
	client := new(http.Client)
	defer client.CloseIdleConnections()
	for range 3 {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+event.Address+"/", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		res, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the end: %v", err)
	}
}
