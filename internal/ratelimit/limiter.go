package ratelimit

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

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

// Options configure a Limiter. Names, Service, Log and Registerer are required.
type Options struct {
	// Names are those of all limits.
	Names []string
	// Service is a part of the metrics' names: herald_<service>_limited_total.
	Service string
	// Secret is the key of the fingerprints that stand for keys and members. All
	// processes that share a Redis have the same.
	Secret []byte
	// Redis is where to count; nil is the process's own memory.
	Redis *redisconn.Conn
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
	shared  *shared // nil without Redis
	metrics *metrics
}

// New returns a Limiter. It fails if the metrics are already registered.
func New(opts Options) (*Limiter, error) {
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
	if opts.Redis != nil {
		l.shared = &shared{client: opts.Redis.Client, prefix: opts.Redis.Prefix, scripts: newScripts()}
	}
	var err error
	if l.metrics, err = newMetrics(&opts, l.memory); err != nil {
		return nil, fmt.Errorf("limits: %w", err)
	}
	return l, nil
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
	if l.shared != nil {
		err := l.opts.Redis.Ask(ctx, func(ctx context.Context) (err error) {
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
	default:
		// The request may be over because its client has gone. The error is noted,
		// and nothing else can be done about it.
		_ = l.opts.Redis.Ask(context.WithoutCancel(ctx), func(ctx context.Context) error {
			return l.shared.give(ctx, cells, t.request)
		})
	}
}

// Return gives back what an earlier request took from the limits of asks, which are
// rates, once each. What was counted in Redis cannot be given back while that is
// away.
func (l *Limiter) Return(ctx context.Context, asks ...Ask) {
	h := l.hashers.Get().(*hasher) //nolint:forcetypeassert // the pool has no others
	cells, names := h.cells(asks)
	l.hashers.Put(h)
	(&Taken{limiter: l, cells: cells, names: names, shared: l.shared != nil}).Return(ctx, names...)
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
