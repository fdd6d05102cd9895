package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/redisstore"
)

// DuplicatesConfig says how events are kept from reaching a device twice.
type DuplicatesConfig struct {
	// Lifetime is how long a delivered event is remembered after it was last
	// posted. Synapse's longest wait between two attempts is an hour.
	Lifetime conf.Duration `yaml:"lifetime"`
	// MemoryEvents bounds what the process remembers without Redis.
	MemoryEvents int `yaml:"memory_events"`
}

// RejectionsConfig says how far push services are believed that call pushkeys
// dead.
type RejectionsConfig struct {
	// Lifetime is how long a dead pushkey is remembered.
	Lifetime conf.Duration `yaml:"lifetime"`
	Guard    GuardConfig   `yaml:"guard"`
}

// GuardConfig says when so many of an app's pushkeys are called dead that no
// pusher is given up.
type GuardConfig struct {
	// Window is the time of which pushes are counted.
	Window conf.Duration `yaml:"window"`
	// Pushes is how many it takes to judge.
	Pushes int `yaml:"pushes"`
	// Share is the share of dead ones, in percent, that is too many to be true.
	Share int `yaml:"share"`
}

func defaultDuplicates() DuplicatesConfig {
	return DuplicatesConfig{Lifetime: conf.Duration(push.DefaultTerms().Lifetime), MemoryEvents: push.DefaultMemoryEvents}
}

func defaultRejections() RejectionsConfig {
	terms := push.DefaultTerms()
	return RejectionsConfig{
		Lifetime: conf.Duration(terms.RejectionLifetime),
		Guard:    GuardConfig{Window: conf.Duration(terms.GuardWindow), Pushes: terms.GuardPushes, Share: terms.GuardShare},
	}
}

// limits of what is remembered: beyond a month nothing changes any more, and
// ten million events take more than half a gigabyte.
const (
	maxLifetime     = 30 * 24 * time.Hour
	maxMemoryEvents = 10_000_000
	maxGuardPushes  = 1_000_000
)

func (c *Config) validateLedger(p *conf.Problems) {
	lifetime := func(path string, d conf.Duration) {
		if d.Std() < time.Second || d.Std() > maxLifetime {
			p.Add(path, d, "use a duration from 1s to 30d")
		}
	}
	lifetime("duplicates.lifetime", c.Duplicates.Lifetime)
	lifetime("rejections.lifetime", c.Rejections.Lifetime)
	lifetime("rejections.guard.window", c.Rejections.Guard.Window)
	if n := c.Duplicates.MemoryEvents; n < push.MinMemoryEvents || n > maxMemoryEvents {
		p.Add("duplicates.memory_events", n, "use a number from 1000 to 10000000")
	}
	if n := c.Rejections.Guard.Pushes; n < 1 || n > maxGuardPushes {
		p.Add("rejections.guard.pushes", n, "use a number from 1 to 1000000")
	}
	if n := c.Rejections.Guard.Share; n < 1 || n > 100 {
		p.Add("rejections.guard.share", n, "use a percentage from 1 to 100; with 100 pushkeys are always given up")
	}
	c.Redis.Validate("redis", p)
}

func (c *Config) terms() push.Terms {
	return push.Terms{
		Lifetime: c.Duplicates.Lifetime.Std(), RejectionLifetime: c.Rejections.Lifetime.Std(),
		GuardWindow: c.Rejections.Guard.Window.Std(), GuardPushes: c.Rejections.Guard.Pushes, GuardShare: c.Rejections.Guard.Share,
	}
}

// openLedger makes what the gateway remembers in, and what closes it.
func openLedger(cfg *Config, log *slog.Logger, metrics *push.Metrics, reg prometheus.Registerer) (push.Ledger, func(), error) {
	own, err := push.NewMemory(cfg.terms(), cfg.Duplicates.MemoryEvents)
	if err != nil {
		return nil, nil, err
	}
	if !cfg.Redis.Enabled() {
		return own, func() {}, nil
	}
	store, err := redisstore.New(cfg.Redis, cfg.terms())
	if err != nil {
		return nil, nil, err
	}
	reg.MustRegister(store)
	shared, err := push.NewShared(store, own, push.SharedOptions{Budget: cfg.Redis.Budget.Std(), Log: log, Metrics: metrics})
	if err != nil {
		return nil, nil, err
	}
	return shared, func() {
		if err := store.Close(); err != nil {
			log.Warn("closing the connections to Redis", "err", err)
		}
	}, nil
}

// announceLedger says at start where the gateway remembers.
func announceLedger(ctx context.Context, cfg *Config, log *slog.Logger) {
	if cfg.Redis.Enabled() {
		log.InfoContext(ctx, "duplicates and dead pushkeys are remembered in Redis")
		return
	}
	log.InfoContext(ctx, "duplicates and dead pushkeys are remembered by this process alone: set redis when there are several, or to survive a restart")
}
