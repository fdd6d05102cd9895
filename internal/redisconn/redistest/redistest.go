// Package redistest gives tests a Redis: the one of scripts/services, a server of
// the test's own that it may kill, or a Cluster.
package redistest

import (
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/internal/redisconn"
)

// patience is how long tests wait for Redis, since machines that run them can be
// slow: an answer that is late must not look like none.
const patience = conf.Duration(5 * time.Second)

// Config returns settings for the Redis at address with keys of the test's own.
func Config(address string) redisconn.Config {
	cfg := redisconn.DefaultConfig("test:" + rand.Text() + ":")
	cfg.URL, cfg.Budget = conf.Secret("redis://"+address), patience
	return cfg
}

// Connect returns a connection with these settings, for a service called test,
// and the registry that has its metrics. The test closes it.
func Connect(t testing.TB, cfg redisconn.Config, log io.Writer) (*redisconn.Conn, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewRegistry()
	conn, err := redisconn.Connect(t.Context(), cfg, "test", slog.New(slog.NewTextHandler(log, nil)), reg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return conn, reg
}

// Shared returns settings for the Redis that TEST_REDIS_URL names. Without one it
// skips the test, or fails it where HERALD_REQUIRE_SERVICES is 1.
func Shared(t testing.TB) redisconn.Config {
	t.Helper()
	url := os.Getenv("TEST_REDIS_URL")
	if url == "" {
		if os.Getenv("HERALD_REQUIRE_SERVICES") == "1" {
			t.Fatal("TEST_REDIS_URL is not set")
		}
		t.Skip("TEST_REDIS_URL is not set: run this with scripts/services run")
	}
	cfg := Config("")
	cfg.URL = conf.Secret(url)
	return cfg
}

// Section returns cfg as the section of a configuration.
func Section(cfg redisconn.Config) string {
	return fmt.Sprintf("redis: {url: %q, key_prefix: %q, test_budget: %s}\n", cfg.URL.Reveal(), cfg.KeyPrefix, cfg.Budget)
}

// At returns cfg with another address in it.
func At(cfg redisconn.Config, address string) redisconn.Config {
	cfg.URL = conf.Secret(strings.Replace(cfg.URL.Reveal(), cfg.Addresses()[0], address, 1))
	return cfg
}

// Server is a redis-server of the test's own.
type Server struct {
	Address string
	// Client is connected to it.
	Client *redis.Client

	program, file string
	args          []string
	cmd           *exec.Cmd
	exited        chan struct{}
}

// Program returns the redis-server for tests that kill one of their own. Where
// there is none, as where Redis runs in a container, it skips the test, but not
// in CI.
func Program(t testing.TB) string {
	t.Helper()
	program, err := exec.LookPath("redis-server")
	if err == nil {
		return program
	}
	const reason = "there is no redis-server to start: this takes one of the test's own"
	if os.Getenv("CI") != "" {
		t.Fatal(reason)
	}
	t.Skip(reason)
	return ""
}

// Start runs a redis-server with these lines of configuration, and nothing else
// on its command line but args, until the test ends. See Program.
func Start(t testing.TB, lines string, args ...string) *Server {
	t.Helper()
	program := Program(t)
	dir := t.TempDir()
	address, port := freePort(t)
	s := &Server{Address: address, program: program, args: args, file: filepath.Join(dir, "redis.conf")}
	text := fmt.Sprintf("port %d\nbind 127.0.0.1\ndir %s\n%s", port, dir, lines)
	if err := os.WriteFile(s.file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Client = redis.NewClient(&redis.Options{Addr: address})
	t.Cleanup(func() {
		_ = s.Client.Close()
		s.Kill()
	})
	s.Restart(t)
	return s
}

// Kill ends the server at once and waits for its end.
func (s *Server) Kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	<-s.exited
	s.cmd = nil
}

// Restart runs the server, at the same address as before, and waits until it
// answers. Somebody else may have the port for a moment.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	s.launch(t)
	Await(t, func() bool {
		err := s.Client.Ping(t.Context()).Err()
		if err == nil || redis.HasErrorPrefix(err, "NOAUTH") {
			return true
		}
		select {
		case <-s.exited:
			s.launch(t)
		default:
		}
		return false
	})
}

func (s *Server) launch(t testing.TB) {
	t.Helper()
	cmd := exec.Command(s.program, append([]string{s.file}, s.args...)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	s.cmd, s.exited = cmd, exited
	go func() { // Kill waits for it, at the latest when the test ends
		defer close(exited)
		_ = cmd.Wait()
	}()
}

// StartCluster runs a Cluster of three nodes until the test ends. It returns
// settings that name one of them, and clients of each.
func StartCluster(t testing.TB) (redisconn.Config, []*redis.Client) {
	t.Helper()
	const size, slots = 3, 16384
	var nodes []*Server
	var clients []*redis.Client
	for range size {
		s := Start(t, "save \"\"\ncluster-enabled yes\ncluster-node-timeout 2000\n")
		nodes, clients = append(nodes, s), append(clients, s.Client)
	}
	for i, s := range nodes {
		if err := s.Client.ClusterAddSlotsRange(t.Context(), i*slots/size, (i+1)*slots/size-1).Err(); err != nil {
			t.Fatal(err)
		}
		if err := s.Client.Do(t.Context(), "cluster", "set-config-epoch", i+1).Err(); err != nil {
			t.Fatal(err)
		}
		host, port, _ := net.SplitHostPort(s.Address)
		if err := clients[0].ClusterMeet(t.Context(), host, port).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range clients {
		Await(t, func() bool {
			info := c.ClusterInfo(t.Context()).Val()
			return strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_known_nodes:3")
		})
	}
	return Config(nodes[1].Address + "?cluster=true"), clients
}

// Await looks until it is so, for half a minute at the most.
func Await(t testing.TB, is func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for timeout := time.After(30 * time.Second); !is(); {
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatal("what is waited for does not come")
		}
	}
}

// freePort returns a port that is free now, as is most likely the one 10,000
// above it, which the nodes of a Cluster use among themselves.
func freePort(t testing.TB) (address string, port int) {
	t.Helper()
	for port == 0 || port > 55535 {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close() // not before the next one, which would get it again
		port = listener.Addr().(*net.TCPAddr).Port
		address = listener.Addr().String()
	}
	return address, port
}
