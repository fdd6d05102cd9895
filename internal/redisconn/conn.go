package redisconn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
)

// pause is how long a Redis that failed is left alone, so that not every request
// waits for what is not there.
const pause = time.Second

// ErrUnreachable is the error of Ask while Redis is left alone because it did not
// answer a moment ago.
var ErrUnreachable = errors.New("redis is unreachable")

var errSlow = errors.New("no answer within the budget")

// Conn is a client of Redis that knows whether Redis can be reached. A service has
// one, for all that it keeps there. What its users do meanwhile is theirs to
// decide.
type Conn struct {
	// Client asks Redis; use it within Ask.
	Client redis.UniversalClient
	// Prefix begins every key.
	Prefix string

	budget              time.Duration
	log                 *slog.Logger
	unreachable         prometheus.Gauge
	errors              prometheus.Counter
	fallbacks           prometheus.Counter
	connections, misses *prometheus.Desc

	batches batches
	down    atomic.Bool
	retryAt atomic.Int64 // in Unix nanoseconds; 0 while Redis is reachable
}

// Connect returns a Conn for a service, whose name is part of the metrics'
// names, such as herald_push_store_away. It asks Redis once, and warns in the log
// if it is not there; Redis may come later. It fails if the files of the
// settings are not usable or the metrics are registered already. Close it.
func Connect(ctx context.Context, cfg Config, service string, log *slog.Logger, reg prometheus.Registerer) (*Conn, error) {
	client, err := cfg.Open()
	if err != nil {
		return nil, err
	}
	prefix := "herald_" + service
	c := &Conn{
		Client: client, Prefix: cfg.KeyPrefix, budget: cfg.Budget.Std(), log: log,
		unreachable: prometheus.NewGauge(prometheus.GaugeOpts{Name: prefix + "_store_away", Help: "1 while Redis does not answer."}),
		errors:      prometheus.NewCounter(prometheus.CounterOpts{Name: prefix + "_store_errors_total", Help: "Calls of Redis that failed or took too long."}),
		fallbacks: prometheus.NewCounter(prometheus.CounterOpts{
			Name: prefix + "_store_fallbacks_total", Help: "Requests for which the process's own memory stood in for Redis.",
		}),
		connections: prometheus.NewDesc(prefix+"_redis_connections", "Connections to Redis.", nil, nil),
		misses:      prometheus.NewDesc(prefix+"_redis_misses_total", "Calls of Redis that found no free connection and made one.", nil, nil),
	}
	for _, m := range []prometheus.Collector{c.unreachable, c.errors, c.fallbacks, c} {
		if err := reg.Register(m); err != nil {
			return nil, errors.Join(fmt.Errorf("redis: %w", err), client.Close())
		}
	}
	// An error is noted and said, and the service does without Redis meanwhile.
	_ = c.Ask(ctx, func(ctx context.Context) error { return client.Ping(ctx).Err() })
	return c, nil
}

// Close closes the connections.
func (c *Conn) Close() error { return c.Client.Close() }

// Reachable reports whether Redis answered when it was last asked.
func (c *Conn) Reachable() bool { return !c.down.Load() }

// Ask has do ask Redis within the budget. While Redis is unreachable it returns
// ErrUnreachable at once; of the requests that come after a pause, one finds out
// whether it is back. Whatever the error, the caller does without Redis.
func (c *Conn) Ask(ctx context.Context, do func(context.Context) error) error {
	if !c.due() {
		c.fallbacks.Inc()
		return ErrUnreachable
	}
	within, cancel := context.WithTimeout(ctx, c.budget)
	defer cancel()
	err := do(within)
	switch {
	case err == nil:
		if c.retryAt.Load() != 0 {
			c.retryAt.Store(0)
			c.unreachable.Set(0)
			if c.down.Swap(false) {
				c.log.InfoContext(ctx, "Redis is reachable again")
			}
		}
		return nil
	case ctx.Err() != nil: // the request's time is over, which says nothing about Redis
		return err
	}
	// The client's own timers may ring a moment before the context's.
	if within.Err() != nil || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		err = errSlow
	}
	c.retryAt.Store(time.Now().Add(pause).UnixNano())
	c.errors.Inc()
	c.fallbacks.Inc()
	c.unreachable.Set(1)
	if !c.down.Swap(true) {
		c.log.WarnContext(ctx, "Redis is unreachable: until it is back each process remembers and counts by itself, "+
			"so that several together push duplicates and let more through", "err", err)
	}
	return err
}

// due reports whether to ask Redis.
func (c *Conn) due() bool {
	at := c.retryAt.Load()
	if at == 0 {
		return true
	}
	now := time.Now()
	return now.UnixNano() >= at && c.retryAt.CompareAndSwap(at, now.Add(pause).UnixNano())
}

// Describe implements prometheus.Collector.
func (c *Conn) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.connections
	ch <- c.misses
}

// Collect implements prometheus.Collector with the numbers of the connections to
// all servers together.
func (c *Conn) Collect(ch chan<- prometheus.Metric) {
	stats := c.Client.PoolStats()
	ch <- prometheus.MustNewConstMetric(c.connections, prometheus.GaugeValue, float64(stats.TotalConns))
	ch <- prometheus.MustNewConstMetric(c.misses, prometheus.CounterValue, float64(stats.Misses))
}
