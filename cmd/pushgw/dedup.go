package main

import (
	"context"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/internal/redisconn"
	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/dedup"
)

// RejectionsConfig says how far push services are believed that call pushkeys
// dead.
type RejectionsConfig struct {
	// Guard keeps pushers (502) while most of an app's pushkeys are called dead.
	Guard bool `yaml:"guard"`
}

// maxMemoryEvents take more than half a gigabyte.
const maxMemoryEvents = 10_000_000

func (c *Config) validateDedup(p *conf.Problems) {
	if n := c.RememberEvents; n < dedup.MinEvents || n > maxMemoryEvents {
		p.Add("remember_events", n, "use a number from 1000 to 10000000")
	}
	c.Redis.Validate("redis", p)
}

// openRedis connects to Redis; nil without one.
func openRedis(ctx context.Context, cfg *Config, log *slog.Logger, reg prometheus.Registerer) (*redisconn.Conn, error) {
	if !cfg.Redis.Enabled() {
		log.InfoContext(ctx, "duplicates and dead pushkeys are remembered by this process alone: set redis when there are several, or to survive a restart")
		return nil, nil
	}
	conn, err := redisconn.Connect(ctx, cfg.Redis, "push", log, reg)
	if err == nil && conn.Reachable() { // else it has warned of that
		log.InfoContext(ctx, "duplicates and dead pushkeys are remembered in Redis")
	}
	return conn, err
}

// newDedup makes what the gateway remembers in.
func newDedup(cfg *Config, conn *redisconn.Conn) (push.Dedup, error) {
	own, err := dedup.NewMemory(dedup.Options{Events: cfg.RememberEvents, NoGuard: !cfg.Rejections.Guard})
	if err != nil || conn == nil {
		return own, err
	}
	return dedup.NewRedis(conn, own), nil
}
