package serve_test

import (
	"strings"
	"testing"
	"time"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/internal/serve"
)

func TestConfigFaults(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		change func(*serve.Config)
		want   string // "" for none
	}{
		"the defaults with an address": {func(*serve.Config) {}, ""},
		"all addresses":                {func(c *serve.Config) { c.Listen = []string{":80", "[::1]:443", "unix:/run/s"} }, ""},
		"no drain delay":               {func(c *serve.Config) { c.DrainDelay = 0 }, ""},
		"no address":                   {func(c *serve.Config) { c.Listen = nil }, "http.listen"},
		"an address without port":      {func(c *serve.Config) { c.Listen = []string{"localhost"} }, "http.listen[0]"},
		"a port that is none":          {func(c *serve.Config) { c.Listen = []string{":80", ":99999"} }, "http.listen[1]"},
		"a socket without path":        {func(c *serve.Config) { c.Listen = []string{"unix:"} }, "http.listen[0]"},
		"a bad admin address":          {func(c *serve.Config) { c.AdminListen = "x" }, "http.admin_listen"},
		"a certificate without key":    {func(c *serve.Config) { c.TLS.CertFile = "c" }, "http.tls.cert_file"},
		"a certificate that is gone":   {func(c *serve.Config) { c.TLS.CertFile, c.TLS.KeyFile = "c", "k" }, "http.tls.cert_file"},
		"a proxy without address":      {func(c *serve.Config) { c.TrustedProxies = []string{"10.0.0.0/8", "proxy"} }, "http.trusted_proxies[1]"},
		"no time to stop":              {func(c *serve.Config) { c.StopWithin = 0 }, "http.stop_within"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := serve.DefaultConfig()
			c.Listen = []string{"127.0.0.1:8080"}
			tc.change(&c)
			var p conf.Problems
			c.Validate("http", &p)
			if tc.want == "" {
				if err := p.Err(); err != nil {
					t.Errorf("fault %v", err)
				}
				return
			}
			if p.Len() != 1 || !strings.HasPrefix(p.Err().Error(), tc.want+": ") {
				t.Errorf("faults %v, want one at %s", p.Err(), tc.want)
			}
		})
	}
}

// Conformance (requests): keep-alive longer than Synapse's 120 s | 150 s
func TestTheDefaultIdleTimeoutIsLongerThanSynapses(t *testing.T) {
	t.Parallel()
	if got := serve.DefaultConfig().IdleTimeout.Std(); got <= 120*time.Second {
		t.Errorf("idle timeout %s", got)
	}
}

func TestHealthTarget(t *testing.T) {
	t.Parallel()
	withTLS := serve.TLSConfig{CertFile: "c", KeyFile: "k"}
	for name, tc := range map[string]struct {
		config serve.Config
		want   string
	}{
		"no address":           {serve.Config{}, ""},
		"the first address":    {serve.Config{Listen: []string{":80", ":81"}}, ":80"},
		"with TLS":             {serve.Config{Listen: []string{":443"}, TLS: withTLS}, "https://:443"},
		"a socket without TLS": {serve.Config{Listen: []string{"unix:/s"}, TLS: withTLS}, "unix:/s"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := tc.config.HealthTarget(); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}
