package main

import (
	"bufio"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/matrix-herald/herald/internal/redisconn/redistest"
)

// redisServer is a Redis of the test's own, which can be killed. It listens on a
// Unix socket; a relay in front of it has an address that stays the same, and
// connections that can be cut.
type redisServer struct {
	program string
	dir     string
	relay   net.Listener
	cmd     *exec.Cmd

	mu    sync.Mutex
	conns map[net.Conn]struct{}
}

// startRedis starts a Redis that ends with the test.
func startRedis(t *testing.T) *redisServer {
	t.Helper()
	program := redistest.Program(t)
	dir := shortDir(t)
	relay, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &redisServer{program: program, dir: dir, relay: relay, conns: make(map[net.Conn]struct{})}
	var serving sync.WaitGroup
	serving.Go(s.serve)
	t.Cleanup(func() {
		relay.Close()
		s.kill()
		s.cut()
		serving.Wait()
	})
	s.start(t)
	return s
}

func (s *redisServer) address() string { return s.relay.Addr().String() }

func (s *redisServer) socket() string { return filepath.Join(s.dir, "s") }

// start starts the program, empty, and waits until it listens.
func (s *redisServer) start(t *testing.T) {
	t.Helper()
	_ = os.Remove(s.socket()) // of the one that was killed
	s.cmd = exec.Command(s.program, "--port", "0", "--unixsocket", s.socket(), "--dir", s.dir, "--save", "", "--appendonly", "no")
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if strings.Contains(lines.Text(), "eady to accept connections") {
			return // what else it writes fits into the pipe
		}
	}
	t.Fatal("Redis does not start")
}

// kill ends the program at once. What it remembered is lost.
func (s *redisServer) kill() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait() // its end by the signal is an error
}

// stop makes the program answer nothing, with its connections open, until it is
// let go on.
func (s *redisServer) stop(t *testing.T) (goOn func()) {
	t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := s.cmd.Process.Signal(syscall.SIGCONT); err != nil {
			t.Error(err)
		}
	}
}

// cut closes all connections.
func (s *redisServer) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn := range s.conns {
		_ = conn.Close()
	}
}

// serve connects whoever comes with Redis.
func (s *redisServer) serve() {
	var relaying sync.WaitGroup
	defer relaying.Wait()
	for {
		in, err := s.relay.Accept()
		if err != nil {
			return
		}
		relaying.Go(func() { s.connect(in) })
	}
}

func (s *redisServer) connect(in net.Conn) {
	defer in.Close()
	out, err := net.Dial("unix", s.socket())
	if err != nil {
		return
	}
	defer out.Close()
	s.track(in, true)
	defer s.track(in, false)
	var copying sync.WaitGroup
	copying.Go(func() {
		defer out.Close()
		_, _ = io.Copy(out, in)
	})
	_, _ = io.Copy(in, out)
	in.Close()
	copying.Wait()
}

func (s *redisServer) track(conn net.Conn, open bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if open {
		s.conns[conn] = struct{}{}
	} else {
		delete(s.conns, conn)
	}
}
