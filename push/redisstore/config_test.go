package redisstore_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/pushtest"
	"github.com/matrix-herald/herald/push/redisstore"
)

func TestFaultsOfAConfig(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change func(*redisstore.Config)
		want   string // "" is no fault
	}{
		"the defaults":              {func(*redisstore.Config) {}, ""},
		"several addresses":         {func(c *redisstore.Config) { c.Addresses = []string{"a:1", "[::1]:2"} }, ""},
		"an address without port":   {func(c *redisstore.Config) { c.Addresses = []string{"a:1", "b"} }, "redis.addresses[1]"},
		"a URL":                     {func(c *redisstore.Config) { c.Addresses = []string{"redis://user:hunter2@a:1"} }, "redis.addresses[0]"},
		"Sentinels of a Cluster":    {func(c *redisstore.Config) { c.Cluster, c.MasterName = true, "m" }, "redis.cluster"},
		"a database of a Cluster":   {func(c *redisstore.Config) { c.Addresses, c.DB = []string{"a:1", "b:1"}, 1 }, "redis.db"},
		"a database by Sentinels":   {func(c *redisstore.Config) { c.Addresses, c.DB, c.MasterName = []string{"a:1", "b:1"}, 1, "m" }, ""},
		"a negative database":       {func(c *redisstore.Config) { c.DB = -1 }, "redis.db"},
		"no budget":                 {func(c *redisstore.Config) { c.Budget = 0 }, "redis.budget"},
		"a long budget":             {func(c *redisstore.Config) { c.Budget = conf.Duration(time.Minute) }, "redis.budget"},
		"no connections":            {func(c *redisstore.Config) { c.PoolSize = 0 }, "redis.pool_size"},
		"a long prefix":             {func(c *redisstore.Config) { c.KeyPrefix = strings.Repeat("x", 101) }, "redis.key_prefix"},
		"a certificate without key": {func(c *redisstore.Config) { c.TLS.CertFile = "x" }, "redis.tls.cert_file"},
	} {
		cfg := redisstore.DefaultConfig()
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

func TestNewRefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	cfg := redisstore.DefaultConfig()
	if _, err := redisstore.New(cfg, push.DefaultTerms()); err == nil {
		t.Error("no addresses: no error")
	}
	cfg.Addresses = []string{"127.0.0.1:1"}
	if _, err := redisstore.New(cfg, push.Terms{}); err == nil {
		t.Error("no terms: no error")
	}
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tls := range []redisstore.TLSConfig{{CAFile: "missing"}, {CAFile: empty}, {CertFile: "missing", KeyFile: "missing"}, {CertFile: empty, KeyFile: empty}} {
		cfg.TLS = tls
		cfg.TLS.Enabled = true
		if _, err := redisstore.New(cfg, push.DefaultTerms()); err == nil {
			t.Errorf("%+v: no error", tls)
		}
	}
}

func TestTLSAndPassword(t *testing.T) {
	t.Parallel()
	ca := pushtest.NewCA(t)
	server := miniredis.NewMiniRedis()
	server.RequireUserAuth("herald", "hunter2")
	if err := server.StartTLS(ca.ServerTLS(t)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, ca.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := patient(configOf(&redis.Options{Addr: server.Addr(), Username: "herald", Password: "hunter2"}))
	cfg.TLS = redisstore.TLSConfig{Enabled: true, CAFile: file}
	begin(t, openStore(t, cfg, push.DefaultTerms()), query("$1", 1))

	wrong := cfg
	wrong.Password = "hunter3"
	_, err := openStore(t, wrong, push.DefaultTerms()).Begin(t.Context(), []push.Query{query("$1", 1)})
	if err == nil || strings.Contains(err.Error(), "hunter") {
		t.Errorf("a wrong password: %v", err)
	}
	wrong = cfg
	wrong.TLS.CAFile = ""
	if _, err := openStore(t, wrong, push.DefaultTerms()).Begin(t.Context(), []push.Query{query("$1", 1)}); err == nil {
		t.Error("an unknown authority is trusted")
	}
}
