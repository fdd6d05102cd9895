// Package crowdtest has thousands of clients of bad manners, in a process of their
// own, so that a test can watch how a service treats everybody else meanwhile.
// It connects to the loopback interface only, ends with its test, and after five
// minutes in any case. It judges nothing.
package crowdtest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// Manners is what each client of a crowd does.
type Manners string

// The manners. A client whose connection ends comes back after Options.Every.
const (
	// Silent clients connect and say nothing.
	Silent Manners = "silent"
	// Idle clients make one request and keep the connection.
	Idle Manners = "idle"
	// SlowHeaders clients send a request that never gets to its body, a byte at
	// a time.
	SlowHeaders Manners = "slow headers"
	// SlowBody clients send the headers at once and the body a byte at a time.
	SlowBody Manners = "slow body"
	// Deaf clients make a request now and then, and read no answer.
	Deaf Manners = "deaf"
)

// Options describe a crowd.
type Options struct {
	// Addr is the address of the service, 127.0.0.1:port.
	Addr string
	// Manners is what the clients do.
	Manners Manners
	// Count is how many they are. With room for fewer files than it takes, it is
	// what there is room for; see [Crowd.Count].
	Count int
	// Path is what they POST to.
	Path string
	// EveryMillis is the time between two bytes, and before coming back.
	EveryMillis int
}

// reserve is how many files a process of either side needs beside the clients.
const reserve = 500

// crowdEnv makes a test binary a crowd. It holds the Options as JSON.
const crowdEnv = "HERALD_CROWD"

// Crowd is a running crowd.
type Crowd struct {
	count   int
	cmd     *exec.Cmd
	stdin   io.Closer
	answers *bufio.Scanner
	ended   bool
}

// Start starts a crowd and returns when all clients have connected and said
// their first words. The crowd ends with the test, or with Stop. The test's
// package must call [Main] from TestMain.
func Start(t testing.TB, o Options) *Crowd {
	t.Helper()
	limit, err := FileLimit()
	if err != nil {
		t.Fatal(err)
	}
	if most := limit - reserve; o.Count > most {
		t.Logf("%d clients in place of %d: a process may open only %d files", most, o.Count, limit)
		o.Count = most
	}
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := &Crowd{count: o.Count, cmd: exec.Command(self)}
	c.cmd.Env = append(os.Environ(), crowdEnv+"="+string(text))
	c.cmd.Stderr = os.Stderr
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.answers = bufio.NewScanner(stdout)
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = c.stop() })
	if !c.answers.Scan() || c.answers.Text() != "ready" {
		t.Fatalf("the crowd of %d %s clients does not come together: %q", o.Count, o.Manners, c.answers.Text())
	}
	return c
}

// Count is the number of clients.
func (c *Crowd) Count() int { return c.count }

// Report is what happened to a crowd.
type Report struct {
	// Open is how many clients were connected at the end.
	Open int
	// Ended is how often a connection was ended by the service.
	Ended int
}

// Stop ends the crowd and returns what happened to it.
func (c *Crowd) Stop(t testing.TB) Report {
	t.Helper()
	r, err := c.stop()
	if err != nil {
		t.Fatalf("the crowd: %v", err)
	}
	return r
}

func (c *Crowd) stop() (r Report, err error) {
	if c.ended {
		return r, nil
	}
	c.ended = true
	_ = c.stdin.Close() // its end is the sign to leave
	if !c.answers.Scan() {
		err = errors.New("it left without a word")
	} else if err = json.Unmarshal(c.answers.Bytes(), &r); err != nil {
		err = fmt.Errorf("read its report: %w", err)
	}
	return r, errors.Join(err, c.cmd.Wait())
}

// FileLimit returns how many files a process that is started from here can open.
// Programs written in Go raise their soft limit to the hard one by themselves.
func FileLimit() (int, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("read the limit of open files: %w", err)
	}
	return int(min(limit.Max, 1<<20)), nil
}

// Main ends the process after being a crowd, if it was started as one.
func Main() {
	text := os.Getenv(crowdEnv)
	if text == "" {
		return
	}
	var o Options
	err := json.NewDecoder(strings.NewReader(text)).Decode(&o)
	if err == nil {
		err = run(o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "crowd:", err)
		os.Exit(1)
	}
	os.Exit(0)
}
