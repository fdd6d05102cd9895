// Package harness is what the tests of both programs share: the programs as
// processes and within the test, a browser, clients that hold connections, and a
// search for secrets in what a service tells. It is for tests only, and knows
// neither program.
package harness

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Version is what a binary of Binary calls itself.
const Version = "e2e"

// patience is how long is waited for what must happen: only a broken program
// reaches it.
const patience = 30 * time.Second

// binaries is the folder of the binary, once there is one.
var binaries string

// build builds the program in the working directory, with the flags of go test, but
// never with the C compiler that the race detector needs: make lint has compiled
// everything without it.
var build = sync.OnceValues(func() (string, error) {
	here, err := os.Getwd()
	if err != nil {
		return "", err
	}
	if binaries, err = os.MkdirTemp("", filepath.Base(here)); err != nil {
		return "", err
	}
	name := filepath.Join(binaries, filepath.Base(here))
	cmd := exec.Command("go", "build", "-ldflags", "-X main.version="+Version, "-o", name, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return name, nil
})

// Binary returns the name of the program in the working directory, built once for
// all tests.
func Binary(t testing.TB) string {
	t.Helper()
	name, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// Main runs the tests and removes the binary. It ends the process.
func Main(m *testing.M) {
	code := m.Run()
	if binaries != "" {
		_ = os.RemoveAll(binaries)
	}
	os.Exit(code)
}

// Process is a running program that logs JSON to its standard error.
type Process struct {
	Cmd *exec.Cmd
	// API and Admin are the URLs that it listens at.
	API, Admin string
	// Out is its standard output, unless the command had one. Log ends in a
	// benchmark as soon as the program listens.
	Out, Log *Output

	events chan map[string]any
	done   chan error // gets the error of the program's end, and is closed then
}

// Start runs the binary until the end of the test, and waits until it listens, at an
// admin listener as well.
func Start(t testing.TB, environ []string, args ...string) *Process {
	t.Helper()
	cmd := exec.Command(Binary(t), args...)
	cmd.Env = append(os.Environ(), environ...)
	return StartCmd(t, cmd)
}

// StartCmd does so with a command of its own, but for its standard error.
func StartCmd(t testing.TB, cmd *exec.Cmd) *Process {
	t.Helper()
	p := &Process{Cmd: cmd, Out: NewOutput(), Log: NewOutput(), events: make(chan map[string]any, 1000), done: make(chan error, 1)}
	if cmd.Stdout == nil {
		cmd.Stdout = p.Out
	}
	log, err := p.Cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Cmd.Start(); err != nil {
		t.Fatal(err)
	}
	listening := make(chan struct{})
	_, measures := t.(*testing.B)
	go func() { // until the program ends, which the cleanup waits for
		p.read(log, listening, measures)
		p.done <- p.Cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(p.Kill)
	for p.API == "" || p.Admin == "" {
		event := p.Await(t, "listening")
		switch address := event["address"].(string); {
		case event["admin"] == true:
			p.Admin = "http://" + address
		case event["tls"] == true:
			p.API = "https://" + address
		default:
			p.API = "http://" + address
		}
	}
	close(listening)
	return p
}

// read keeps the log, and makes events of its lines as long as somebody takes them.
// Once the program listens, who measures reads it at no cost.
func (p *Process) read(log io.Reader, listening <-chan struct{}, measures bool) {
	defer close(p.events)
	lines := bufio.NewScanner(io.TeeReader(log, p.Log))
	for lines.Scan() {
		var event map[string]any
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			event = map[string]any{"msg": lines.Text()}
		}
		select {
		case p.events <- event:
		default: // nobody waits for one of a thousand
		}
		select {
		case <-listening:
			if measures {
				_, _ = io.Copy(io.Discard, log)
			}
		default:
		}
	}
}

// Await returns the next line of the log whose message begins like that.
func (p *Process) Await(t testing.TB, msg string) map[string]any {
	t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		select {
		case <-timeout.C:
			t.Fatalf("the log does not say %q:\n%s", msg, p.Log)
		case event, open := <-p.events:
			if !open {
				t.Fatalf("the program has ended; its log does not say %q:\n%s", msg, p.Log)
			}
			if text, _ := event["msg"].(string); strings.HasPrefix(text, msg) {
				return event
			}
		}
	}
}

// Terminate asks the process to end, as a supervisor does.
func (p *Process) Terminate(t testing.TB) { p.Signal(t, syscall.SIGTERM) }

// Signal sends the process a signal.
func (p *Process) Signal(t testing.TB, s os.Signal) {
	t.Helper()
	if err := p.Cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// Wait waits until the process has ended, which must be well.
func (p *Process) Wait(t testing.TB) {
	t.Helper()
	if err := <-p.done; err != nil {
		t.Errorf("exit: %v\n%s", err, p.Log)
	}
}

// Stop ends the process as a supervisor does.
func (p *Process) Stop(t testing.TB) {
	t.Helper()
	p.Terminate(t)
	p.Wait(t)
}

// Kill ends the process as kill -9 does and waits until it is gone.
func (p *Process) Kill() {
	_ = p.Cmd.Process.Kill()
	for range p.done {
	}
}
