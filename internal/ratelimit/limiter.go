package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/matrix-herald/herald/internal/redisconn"
)

const (
	// DefaultMaxKeys is how many keys in debt a process remembers by itself, some
	// 200 bytes each. Budgets of distinct members are counted apart, and are as
	// many at the most.
	DefaultMaxKeys = 100_000
	// DefaultMaxMembers is how many distinct members, of some 40 bytes each.
	DefaultMaxMembers = 1_000_000
)

// awayPause is how long a Redis that failed is left alone, so that not every
// request waits for what is not there.
const awayPause = time.Second

var errSlow = errors.New("no answer within the budget")

// Options configure a Limiter. Names, Service, Log and Registerer are required.
type Options struct {
	// Names are those of all limits.
	Names []string
	// Service is a part of the metrics' names: herald_<service>_limited_total.
	Service string
	// Secret is the key of the fingerprints that stand for keys and members. All
	// processes that share a Redis have the same.
	Secret []byte
	// Redis is where to count; without addresses in the process's own memory.
	Redis redisconn.Config
	// MaxKeys and MaxMembers bound what the process remembers by itself. 0 stands
	// for DefaultMaxKeys and DefaultMaxMembers.
	MaxKeys, MaxMembers int
	// Now is the clock of what the process remembers by itself; nil is time.Now.
	Now func() time.Time

	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// Limiter decides which requests are let through.
type Limiter struct {
	opts    Options
	hashers sync.Pool
	memory  *memory
	client  redis.UniversalClient // nil without Redis
	shared  *shared               // nil without Redis
	metrics *metrics

	away    atomic.Bool
	retryAt atomic.Int64 // in Unix nanoseconds; 0 while Redis is there
}

// Open returns a Limiter. It reads the files of the settings of Redis, but does
// not connect. It fails if those files are not usable or the metrics are already
// registered.
func Open(opts Options) (*Limiter, error) {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.MaxKeys == 0 {
		opts.MaxKeys = DefaultMaxKeys
	}
	if opts.MaxMembers == 0 {
		opts.MaxMembers = DefaultMaxMembers
	}
	l := &Limiter{opts: opts, memory: newMemory(opts.Now, opts.MaxKeys, opts.MaxMembers)}
	l.hashers.New = func() any { return newHasher(opts.Secret) }
	if opts.Redis.Enabled() {
		client, err := opts.Redis.Open()
		if err != nil {
			return nil, fmt.Errorf("limits: %w", err)
		}
		l.client = client
		l.shared = &shared{client: client, prefix: opts.Redis.KeyPrefix, scripts: newScripts()}
	}
	var err error
	if l.metrics, err = newMetrics(&opts, l.memory); err != nil {
		return nil, errors.Join(fmt.Errorf("limits: %w", err), l.Close())
	}
	return l, nil
}

// Close closes the connections to Redis.
func (l *Limiter) Close() error {
	if l.client == nil {
		return nil
	}
	return l.client.Close()
}

// Take takes from all limits, or from none and returns a *Refused. Of asks with
// the same name and key only the first counts. It takes one round trip to Redis,
// and a second one where it refuses. Without an answer of Redis within its budget
// the process decides by itself. Only when ctx is over it returns another error,
// that of ctx.
func (l *Limiter) Take(ctx context.Context, asks ...Ask) (*Taken, error) {
	h := l.hashers.Get().(*hasher) //nolint:forcetypeassert // the pool has no others
	cells, names := h.cells(asks)
	l.hashers.Put(h)
	taken := &Taken{limiter: l, cells: cells, names: names, request: rand.Uint64()} //nolint:gosec // no secret: requests only have to differ
	if len(cells) == 0 {
		return taken, nil
	}
	waits, err := l.take(ctx, taken)
	if err != nil {
		return nil, err
	}
	longest := 0
	for i, w := range waits {
		if w > waits[longest] {
			longest = i
		}
	}
	if waits[longest] == 0 {
		return taken, nil
	}
	l.metrics.refused.WithLabelValues(names[longest]).Inc()
	return nil, &Refused{Limit: names[longest], RetryAfter: time.Duration(waits[longest]) * time.Microsecond}
}

func (l *Limiter) take(ctx context.Context, t *Taken) (waits []int64, err error) {
	if l.shared != nil && l.due() {
		err := l.ask(ctx, func(ctx context.Context) (err error) {
			waits, err = l.shared.take(ctx, t.cells, t.request)
			return err
		})
		if waits != nil {
			t.shared = true
			return waits, nil
		}
		if err != nil && ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
	if l.shared != nil {
		l.metrics.fallbacks.Inc()
	}
	return l.memory.take(t.cells, t.request), nil
}

// Taken is what a request took.
type Taken struct {
	limiter *Limiter
	cells   []cell
	names   []string
	request uint64
	shared  bool // in Redis
}

// Return gives back what was taken of the limits with these names, for a request
// that turned out not to be what they limit. Members that another request has
// meanwhile been told are free stay taken, and so does what Redis cannot be told.
func (t *Taken) Return(ctx context.Context, names ...string) {
	var cells []cell
	for i, c := range t.cells {
		if slices.Contains(names, t.names[i]) {
			cells = append(cells, c)
		}
	}
	switch l := t.limiter; {
	case len(cells) == 0:
	case !t.shared:
		l.memory.give(cells, t.request)
	case l.due():
		// The request may be over because its client has gone. The error is noted,
		// and nothing else can be done about it.
		_ = l.ask(context.WithoutCancel(ctx), func(ctx context.Context) error {
			return l.shared.give(ctx, cells, t.request)
		})
	}
}

// Forget removes what is remembered of keys under all limits, and returns how
// many pairs of a limit and a key there were. It does not reach the memory of
// other processes, which forget by themselves. It fails if Redis does not answer.
func (l *Limiter) Forget(ctx context.Context, keys ...string) (int, error) {
	h := newHasher(l.opts.Secret)
	var ids []fingerprint
	for _, key := range keys {
		for _, name := range l.opts.Names {
			ids = append(ids, h.key(name, key))
		}
	}
	n := l.memory.forget(ids)
	if l.shared == nil || len(ids) == 0 {
		return n, nil
	}
	there, err := l.shared.forget(ctx, ids)
	if err != nil {
		return n, fmt.Errorf("forget in Redis: %w", err)
	}
	return n + there, nil
}

// due reports whether to ask Redis. Of the requests that come when a pause ends,
// one finds out whether it is back.
func (l *Limiter) due() bool {
	at := l.retryAt.Load()
	if at == 0 {
		return true
	}
	now := time.Now()
	return now.UnixNano() >= at && l.retryAt.CompareAndSwap(at, now.Add(awayPause).UnixNano())
}

// ask has do ask Redis within the budget, and notes whether it is there.
func (l *Limiter) ask(ctx context.Context, do func(context.Context) error) error {
	within, cancel := context.WithTimeout(ctx, l.opts.Redis.Budget.Std())
	defer cancel()
	err := do(within)
	switch {
	case err == nil:
		if l.retryAt.Load() != 0 {
			l.retryAt.Store(0)
			l.metrics.away.Set(0)
			if l.away.Swap(false) {
				l.opts.Log.InfoContext(ctx, "the Redis of the limits is back")
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
	l.retryAt.Store(time.Now().Add(awayPause).UnixNano())
	l.metrics.errors.Inc()
	l.metrics.away.Set(1)
	if !l.away.Swap(true) {
		l.opts.Log.WarnContext(ctx, "the Redis of the limits is away: until it is back each process counts by itself, "+
			"so that several together let more through", "err", err)
	}
	return err
}
