package harness

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
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
	output, written, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(Binary(t), "-dev")
	cmd.Dir, cmd.Stdout, cmd.Stderr = t.TempDir(), written, written
	cmd.Env = append(os.Environ(), prefix+"HTTP_LISTEN=127.0.0.1:0", prefix+"HTTP_ADMIN_LISTEN=", prefix+"HTTP_TEST_DRAIN_DELAY=0s", prefix+"LOG_FORMAT=json")
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

// TestStall posts half of a body to the URL of a program that has a short
// http.read_timeout: it must answer with 408 and a Matrix error, and leave.
func TestStall(t *testing.T, base, path string) {
	t.Helper()
	res, err := stall(t, base[len("http://"):], path)
	for err != nil && t.Context().Err() == nil { // so slow a machine that not even the headers were read in time
		res, err = stall(t, base[len("http://"):], path)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var answer struct{ Errcode, Error string }
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != http.StatusRequestTimeout || answer.Errcode != "M_UNKNOWN" || answer.Error == "" || !res.Close {
		t.Errorf("%s %+v, closes: %t", res.Status, answer, res.Close)
	}
}

func stall(t *testing.T, address, path string) (*http.Response, error) {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{", path); err != nil {
		return nil, err
	}
	return http.ReadResponse(bufio.NewReader(conn), nil)
}
