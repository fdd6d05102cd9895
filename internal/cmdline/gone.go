package cmdline

import (
	"maps"

	"github.com/matrix-herald/herald/internal/redisconn"
	"github.com/matrix-herald/herald/internal/serve"
	"github.com/matrix-herald/herald/internal/telemetry"
)

// GoneOptions says what takes the place of each option that is gone, as
// conf.LoadOptions wants it: of a program's own, and of those that both have.
func GoneOptions(own map[string]string) map[string]string {
	all := maps.Clone(own)
	maps.Copy(all, serve.GoneOptions("http"))
	maps.Copy(all, redisconn.GoneOptions("redis"))
	maps.Copy(all, telemetry.GoneOptions("tracing"))
	return all
}
