package redisconn_test

import (
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/internal/redisconn"
	"github.com/matrix-herald/herald/internal/safehttp/safehttptest"
)

func TestFaultsOfAConfig(t *testing.T) {
	t.Parallel()
	url := func(s conf.Secret) func(*redisconn.Config) { return func(c *redisconn.Config) { c.URL = s } }
	for name, tt := range map[string]struct {
		change func(*redisconn.Config)
		want   string // "" is no fault
	}{
		"the defaults":              {func(*redisconn.Config) {}, ""},
		"a server":                  {url("redis://a"), ""},
		"over TLS, with everything": {url("rediss://user:p%40ss@[::1]:6380/3"), ""},
		"nodes of a Cluster":        {url("redis://a:1?addr=b:2&addr=[::1]:3"), ""},
		"Sentinels":                 {url("redis://a:1/1?addr=b:1&master_name=m&sentinel_username=u&sentinel_password=hunter2"), ""},
		"an address alone":          {url("a:6379"), "redis.url"},
		"another scheme":            {url("http://:hunter2@a:1"), "redis.url"},
		"no host":                   {url("redis://:hunter2@/1"), "redis.url"},
		"an address without port":   {url("redis://a:1?addr=hunter2"), "redis.url"},
		"another parameter":         {url("redis://a:1?password=hunter2"), "redis.url"},
		"Sentinels of a Cluster":    {url("redis://a:1?cluster=true&master_name=m"), "redis.url"},
		"a database of a Cluster":   {url("redis://a:1/1?addr=b:1"), "redis.url"},
		"a database that is none":   {url("redis://a:1/hunter2"), "redis.url"},
		"a negative database":       {url("redis://a:1/-1"), "redis.url"},
		"a long prefix":             {func(c *redisconn.Config) { c.KeyPrefix = strings.Repeat("x", 101) }, "redis.key_prefix"},
		"a certificate without key": {func(c *redisconn.Config) { c.CertFile = "x" }, "redis.cert_file"},
		"a certificate without TLS": {func(c *redisconn.Config) { c.URL, c.CertFile, c.KeyFile = "redis://a", "x", "x" }, "redis.cert_file: needs TLS"},
		"files that are gone":       {func(c *redisconn.Config) { c.URL, c.CertFile, c.KeyFile = "rediss://a", "x", "x" }, "redis.cert_file: no such file"},
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
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"missing", empty} {
		cfg.URL, cfg.CertFile, cfg.KeyFile = "rediss://127.0.0.1:1", file, file
		if _, err := cfg.Open(); err == nil {
			t.Errorf("%s: no error", file)
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
	cfg.URL, cfg.RootCAs = conf.Secret("rediss://herald:hunter2@"+server.Addr()), ca.Pool()
	if err := ping(t, cfg); err != nil {
		t.Errorf("the right password and authority: %v", err)
	}
	wrong := cfg
	wrong.URL = conf.Secret("rediss://herald:hunter3@" + server.Addr())
	if err := ping(t, wrong); err == nil || strings.Contains(err.Error(), "hunter") {
		t.Errorf("a wrong password: %v", err)
	}
	wrong = cfg
	wrong.RootCAs = nil
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
	cfg.URL, cfg.PoolSize = conf.Secret("redis://"+listener.Addr().String()), size
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
