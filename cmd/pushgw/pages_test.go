package main

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/internal/conf/conftest"
	"github.com/matrix-herald/herald/internal/harness"
)

func TestPageOfOptions(t *testing.T) {
	t.Parallel()
	table := conftest.Table(t, "../..", "cmd/pushgw", conf.Options(defaultConfig(), envPrefix))
	harness.CheckPage(t, "../../docs/options.md", "options of pushgw", table, *update)
}

// TestPageOfMetrics runs the program with a Redis that is not there, for the
// metrics about it.
func TestPageOfMetrics(t *testing.T) {
	t.Parallel()
	var metrics *prometheus.Registry
	measured := harness.Program(func(ctx context.Context, around harness.Surroundings, args []string) int {
		p := program{
			stdout: around.Stdout, stderr: around.Stderr, environ: around.Environ, listening: around.Listening,
			registered: func(r *prometheus.Registry) { metrics = r },
		}
		return p.run(ctx, args)
	})
	config := writeFile(t, filepath.Join(t.TempDir(), "pushgw.yaml"), "apps: {org.example.app: {type: hold}}\n")
	measured.Serve(t, ephemeral("PUSHGW_REDIS_URL=redis://127.0.0.1:1"), "-config", config)
	table := harness.MetricsTable(t, metrics, "herald_http_", "herald_push_")
	harness.CheckPage(t, "../../docs/monitor.md", "metrics of pushgw", table, *update)
}
