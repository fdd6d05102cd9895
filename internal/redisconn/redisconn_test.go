package redisconn_test

import (
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/internal/redisconn"
	"github.com/matrix-herald/herald/internal/safehttp/safehttptest"
)

func TestFaultsOfAConfig(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change func(*redisconn.Config)
		want   string // "" is no fault
	}{
		"the defaults":              {func(*redisconn.Config) {}, ""},
		"several addresses":         {func(c *redisconn.Config) { c.Addresses = []string{"a:1", "[::1]:2"} }, ""},
		"an address without port":   {func(c *redisconn.Config) { c.Addresses = []string{"a:1", "b"} }, "redis.addresses[1]"},
		"a URL":                     {func(c *redisconn.Config) { c.Addresses = []string{"redis://user:hunter2@a:1"} }, "redis.addresses[0]"},
		"Sentinels of a Cluster":    {func(c *redisconn.Config) { c.Cluster, c.MasterName = true, "m" }, "redis.cluster"},
		"a database of a Cluster":   {func(c *redisconn.Config) { c.Addresses, c.DB = []string{"a:1", "b:1"}, 1 }, "redis.db"},
		"a database by Sentinels":   {func(c *redisconn.Config) { c.Addresses, c.DB, c.MasterName = []string{"a:1", "b:1"}, 1, "m" }, ""},
		"a negative database":       {func(c *redisconn.Config) { c.DB = -1 }, "redis.db"},
		"no budget":                 {func(c *redisconn.Config) { c.Budget = 0 }, "redis.budget"},
		"a long budget":             {func(c *redisconn.Config) { c.Budget = conf.Duration(time.Minute) }, "redis.budget"},
		"no connections":            {func(c *redisconn.Config) { c.PoolSize = 0 }, "redis.pool_size"},
		"a long prefix":             {func(c *redisconn.Config) { c.KeyPrefix = strings.Repeat("x", 101) }, "redis.key_prefix"},
		"a certificate without key": {func(c *redisconn.Config) { c.TLS.CertFile = "x" }, "redis.tls.cert_file"},
	} {
		cfg := redisconn.DefaultConfig("test:")
		tt.change(&cfg)
		var p conf.Problems
		cfg.Validate("redis", &p)
		switch err := p.Err(); {
		case err == nil && tt.want != "":
			t.Errorf("%s: no fault", name)
		case err != nil && (tt.want == "" || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: %v", name, err)
		case err != nil && strings.Contains(err.Error(), "hunter2"):
			t.Errorf("%s: the fault shows a secret: %v", name, err)
		}
	}
}

func TestOpenRefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	cfg := redisconn.DefaultConfig("test:")
	if _, err := cfg.Open(); err == nil {
		t.Error("no addresses: no error")
	}
	cfg.Addresses = []string{"127.0.0.1:1"}
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, files := range []redisconn.TLSConfig{
		{CAFile: "missing"}, {CAFile: empty}, {CertFile: "missing", KeyFile: "missing"}, {CertFile: empty, KeyFile: empty},
	} {
		cfg.TLS = files
		cfg.TLS.Enabled = true
		if _, err := cfg.Open(); err == nil {
			t.Errorf("%+v: no error", files)
		}
	}
}

func TestTLSAndPassword(t *testing.T) {
	t.Parallel()
	ca := safehttptest.NewCA(t)
	server := miniredis.NewMiniRedis()
	server.RequireUserAuth("herald", "hunter2")
	err := server.StartTLS(&tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{ca.Certificate(t, "127.0.0.1")}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	cfg := redisconn.DefaultConfig("test:")
	cfg.Addresses = []string{server.Addr()}
	cfg.Username, cfg.Password = "herald", "hunter2"
	cfg.TLS = redisconn.TLSConfig{Enabled: true, CAFile: ca.File(t)}
	if err := ping(t, cfg); err != nil {
		t.Errorf("the right password and authority: %v", err)
	}
	wrong := cfg
	wrong.Password = "hunter3"
	if err := ping(t, wrong); err == nil || strings.Contains(err.Error(), "hunter") {
		t.Errorf("a wrong password: %v", err)
	}
	wrong = cfg
	wrong.TLS.CAFile = ""
	if err := ping(t, wrong); err == nil {
		t.Error("an unknown authority is trusted")
	}
}

func ping(t *testing.T, cfg redisconn.Config) error {
	t.Helper()
	client, err := cfg.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	return client.Ping(t.Context()).Err()
}

// A burst of batches opens no more connections than the pool may have.
func TestThePoolIsBounded(t *testing.T) {
	t.Parallel()
	const size, batches = 2, 20
	listener, err := net.Listen("tcp", "127.0.0.1:0") // never answers
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	cfg := redisconn.DefaultConfig("")
	cfg.Addresses, cfg.PoolSize = []string{listener.Addr().String()}, size
	client, err := cfg.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	results := make(chan error, batches)
	for range batches {
		go func() {
			pipe := client.Pipeline()
			pipe.Ping(t.Context())
			_, err := pipe.Exec(t.Context())
			results <- err
		}()
	}
	for i := range batches {
		if i == batches-size { // all but those with a connection have given up
			_ = listener.Close() // and with it the connections
		}
		if err := <-results; err == nil {
			t.Error("a batch was answered by nobody")
		}
		stats := client.PoolStats()
		open := stats.TotalConns
		if stats.PipelineStats != nil {
			open += stats.PipelineStats.TotalConns
		}
		if open > size {
			t.Errorf("%d connections, want %d at most", open, size)
		}
	}
}
