package redisstore_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/matrix-herald/herald/internal/redisconn"
	"github.com/matrix-herald/herald/push"
)

// startServer runs redis-server with these lines of configuration, until the
// test ends, and returns a client of it. PORT stands for its port.
func startServer(t *testing.T, args []string, config string) (address string, client *redis.Client) {
	t.Helper()
	program, err := exec.LookPath("redis-server")
	if err != nil {
		t.Skip("there is no redis-server to start: this takes one of the test's own")
	}
	address, port := freePort(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "redis.conf")
	lines := fmt.Sprintf("port %d", port) + "\nbind 127.0.0.1\ndir " + dir + "\n" + config
	if err := os.WriteFile(file, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, append([]string{file}, args...)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	client = redis.NewClient(&redis.Options{Addr: address})
	t.Cleanup(func() { client.Close() })
	await(t, func() bool {
		err := client.Ping(t.Context()).Err()
		return err == nil || redis.HasErrorPrefix(err, "NOAUTH")
	})
	return address, client
}

// freePort returns a port that is free now, as is most likely the one 10,000
// above it, which the nodes of a Cluster use among themselves.
func freePort(t *testing.T) (address string, port int) {
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

// await looks until it is so.
func await(t *testing.T, is func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for timeout := time.After(20 * time.Second); !is(); {
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatal("what is waited for does not come")
		}
	}
}

// A batch has keys of many slots; each script has one.
func TestCluster(t *testing.T) {
	t.Parallel()
	var nodes []string
	var clients []*redis.Client
	for range 3 {
		address, client := startServer(t, nil, "save \"\"\ncluster-enabled yes\ncluster-node-timeout 2000\n")
		nodes, clients = append(nodes, address), append(clients, client)
	}
	for i, c := range clients {
		first, last := i*16384/3, (i+1)*16384/3-1
		if err := c.ClusterAddSlotsRange(t.Context(), first, last).Err(); err != nil {
			t.Fatal(err)
		}
		if err := c.Do(t.Context(), "cluster", "set-config-epoch", i+1).Err(); err != nil {
			t.Fatal(err)
		}
		host, port, _ := net.SplitHostPort(nodes[i])
		if err := clients[0].ClusterMeet(t.Context(), host, port).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range clients {
		await(t, func() bool {
			info := c.ClusterInfo(t.Context()).Val()
			return strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_known_nodes:3")
		})
	}
	cfg := patient(configOf(&redis.Options{Addr: nodes[1]}))
	cfg.Cluster = true
	terms := push.DefaultTerms()
	terms.GuardPushes = 50
	for name, run := range cases {
		t.Run(name, func(t *testing.T) {
			own := cfg
			own.KeyPrefix = fmt.Sprintf("%s%x:", cfg.KeyPrefix, name)
			run(t, openStore(t, own, terms), openStore(t, own, terms))
		})
	}
	for i, c := range clients {
		if n := c.DBSize(t.Context()).Val(); n == 0 {
			t.Errorf("node %d holds no key", i)
		}
	}
}

func TestSentinel(t *testing.T) {
	t.Parallel()
	master, _ := startServer(t, nil, "save \"\"\nrequirepass hunter2\nprotected-mode no\n")
	host, port, _ := net.SplitHostPort(master)
	sentinel, _ := startServer(t, []string{"--sentinel"},
		fmt.Sprintf("sentinel monitor herald %s %s 1\nsentinel auth-pass herald hunter2\n", host, port))
	cfg := redisconn.DefaultConfig("herald:push:")
	cfg.Addresses, cfg.MasterName, cfg.Password = []string{sentinel}, "herald", "hunter2"
	s := openStore(t, patient(cfg), push.DefaultTerms())
	begin(t, s, query("$1", 1))
	compare(t, "another request", begin(t, s, query("$1", 2)), []push.Finding{{State: push.InFlight, Owner: 1}})
}
