package main

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

	"github.com/matrix-herald/herald/internal/harness"
)

// TestARequestThatStallsIsAnsweredWith408 posts half of a body.
func TestARequestThatStallsIsAnsweredWith408(t *testing.T) {
	t.Parallel()
	s := pushgw.Serve(t, ephemeral("PUSHGW_HTTP_TEST_DRAIN_DELAY=0s", "PUSHGW_HTTP_TEST_READ_TIMEOUT=300ms"), "-dev")
	res, err := stall(t, s.API[len("http://"):], notifyPath)
	for err != nil && t.Context().Err() == nil { // so slow a machine that not even the headers were read in time
		res, err = stall(t, s.API[len("http://"):], notifyPath)
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

// TestADeadLogReaderStopsNothing stops to read what the program writes: it must go
// on, and end well.
//
// Conformance (pushgw): whoever reads the log may end: the service does not
func TestADeadLogReaderStopsNothing(t *testing.T) {
	t.Parallel()
	output, written, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(harness.Binary(t), "-dev")
	cmd.Dir, cmd.Stdout, cmd.Stderr = t.TempDir(), written, written
	cmd.Env = append(os.Environ(), envPrefix+"HTTP_LISTEN=127.0.0.1:0", envPrefix+"HTTP_ADMIN_LISTEN=", envPrefix+"HTTP_TEST_DRAIN_DELAY=0s", envPrefix+"LOG_FORMAT=json")
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
