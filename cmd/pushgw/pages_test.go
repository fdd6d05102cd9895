package main

import (
	"testing"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/internal/conf/conftest"
	"github.com/matrix-herald/herald/internal/harness"
)

func TestPageOfOptions(t *testing.T) {
	t.Parallel()
	table := conftest.Table(t, "../..", "cmd/pushgw", conf.Options(defaultConfig(), envPrefix))
	harness.CheckPage(t, "../../docs/options.md", "options of pushgw", table, *update)
}
