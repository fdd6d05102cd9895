// Package cmdtest runs the programs of this module for their tests: the real
// binary, built once, as a process of its own. It is for tests only.
package cmdtest

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

// Version is what a binary of Build calls itself.
const Version = "e2e"

// patience is how long is waited for what must happen: only a broken program
// reaches it.
const patience = 30 * time.Second

// Build builds the program in the working directory, once for all tests, and
// returns the binary's name.
func Build() (string, error) { return build() }

var build = sync.OnceValues(func() (string, error) {
	here, err := os.Getwd()
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", filepath.Base(here))
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, filepath.Base(here))
	out, err := exec.Command("go", "build", "-ldflags", "-X main.version="+Version, "-o", name, ".").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return name, nil
})

// Main runs the tests and removes the binary. It ends the process.
func Main(m *testing.M) {
	code := m.Run()
	if name, err := build(); err == nil {
		_ = os.RemoveAll(filepath.Dir(name))
	}
	os.Exit(code)
}

// Process is a running program that logs JSON to its standard error.
type Process struct {
	Cmd *exec.Cmd
	// API and Admin are the URLs that it listens at.
	API, Admin string
	Log        *Output
	// Events are the lines of the log, as long as somebody takes them.
	Events chan map[string]any
	// Done gets the error of the program's end, and is closed then.
	Done chan error
}

// Start runs the command that is made of the binary's name until the end of the
// test, and waits until it listens. The standard error of the command is the
// Process's own.
func Start(t testing.TB, command func(name string) *exec.Cmd) *Process {
	t.Helper()
	name, err := build()
	if err != nil {
		t.Fatal(err)
	}
	p := &Process{Cmd: command(name), Log: NewOutput(), Events: make(chan map[string]any, 1000), Done: make(chan error, 1)}
	log, err := p.Cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { // until the program ends, which the cleanup waits for
		p.read(log)
		p.Done <- p.Cmd.Wait()
		close(p.Done)
	}()
	t.Cleanup(func() {
		_ = p.Cmd.Process.Kill()
		for range p.Done {
		}
	})
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
	return p
}

func (p *Process) read(log io.Reader) {
	defer close(p.Events)
	for lines := bufio.NewScanner(io.TeeReader(log, p.Log)); lines.Scan(); {
		var event map[string]any
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			event = map[string]any{"msg": lines.Text()}
		}
		select {
		case p.Events <- event:
		default: // nobody waits for one of a thousand
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
		case event, open := <-p.Events:
			if !open {
				t.Fatalf("the program has ended; its log does not say %q:\n%s", msg, p.Log)
			}
			if text, _ := event["msg"].(string); strings.HasPrefix(text, msg) {
				return event
			}
		}
	}
}

// Stop ends the process as a supervisor does.
func (p *Process) Stop(t testing.TB) {
	t.Helper()
	if err := p.Cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-p.Done; err != nil {
		t.Errorf("exit: %v\n%s", err, p.Log)
	}
}
