package ratelimit_test

import (
	"bytes"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/matrix-herald/herald/internal/ratelimit"
	"github.com/matrix-herald/herald/internal/redisconn/redistest"
)

// logBuffer collects log lines.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func (b *logBuffer) count(text string) int { return strings.Count(b.String(), text) }

// A server that is killed loses what it counted and the scripts it knew; neither
// opens nor shuts anything.
func TestRedisIsKilledAndComesBack(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, `save ""`)
	var logs logBuffer
	cfg := redistest.Config(server.Address)
	conn, reg := redistest.Connect(t, cfg, &logs)
	l, _ := open(t, func(o *ratelimit.Options) { o.Redis = conn })
	cfg.KeyPrefix += "other:"
	conn, _ = redistest.Connect(t, cfg, io.Discard)
	other, _ := open(t, func(o *ratelimit.Options) { o.Redis = conn })
	take(t, other, "", wide(100))
	take(t, l, "", wide(2), members(2, "a"))
	take(t, l, "", wide(2), members(2, "b"))
	take(t, l, "wide", wide(2))

	server.Kill()
	for range 2 {
		take(t, l, "", wide(2))
	}
	for range 10 {
		take(t, l, "wide", wide(2), members(2, "c"))
	}
	take(t, l, "", members(2, "a", "b"))
	take(t, l, "members", members(2, "c"))
	if n := metric(t, reg, "herald_test_store_away", ""); n != 1 {
		t.Errorf("the gauge of the outage is %v", n)
	}
	if n := metric(t, reg, "herald_test_store_fallbacks_total", ""); n != 14 {
		t.Errorf("%v requests were counted in memory, want 14", n)
	}
	if _, err := l.Forget(t.Context(), "k"); err == nil {
		t.Error("forgetting in a Redis that is away succeeds")
	}

	server.Restart(t)
	redistest.Await(t, func() bool {
		_, _ = l.Take(t.Context(), ratelimit.Rate("other", per(100000, month), "k"))
		return metric(t, reg, "herald_test_store_away", "") == 0
	})
	take(t, l, "", wide(2), members(2, "c", "d"))
	take(t, l, "", wide(2))
	take(t, l, "wide", wide(2))
	take(t, l, "members", members(2, "a"))
	if away, back := logs.count("Redis is unreachable"), logs.count("reachable again"); away != 1 || back != 1 {
		t.Errorf("the log says %d times that Redis is away and %d times that it is back:\n%s", away, back, &logs)
	}
}

// Many limits are one round trip; a refusal is a second one, which gives back.
func TestRoundTrips(t *testing.T) {
	t.Parallel()
	cfg := redistest.Shared(t)
	wire := redistest.StartWire(t, cfg.Addresses()[0])
	cfg = redistest.At(cfg, wire.Address)
	conn, _ := redistest.Connect(t, cfg, io.Discard)
	l, _ := open(t, func(o *ratelimit.Options) { o.Redis = conn })
	list := numbers(0, 100)
	asks := []ratelimit.Ask{wide(100), narrow(5), members(100, list...), ratelimit.Distinct("more members", per(1000, month), "k", list)}
	take(t, l, "", asks...) // connects, and Redis learns the scripts
	other := ratelimit.Rate("other", per(1, month), "k")
	take(t, l, "", other)
	take(t, l, "other", append(asks, other)...)
	before := wire.RoundTrips()
	take(t, l, "", asks...)
	if n := wire.RoundTrips() - before; n != 1 {
		t.Errorf("%d round trips for four limits, want 1", n)
	}
	before = wire.RoundTrips()
	take(t, l, "other", append(asks, other)...)
	if n := wire.RoundTrips() - before; n != 2 {
		t.Errorf("%d round trips for a refusal, want 2", n)
	}
}

func TestKeysExpireAndAreNotInClear(t *testing.T) {
	t.Parallel()
	cfg := redistest.Shared(t)
	conn, _ := redistest.Connect(t, cfg, io.Discard)
	l, _ := open(t, func(o *ratelimit.Options) { o.Redis = conn })
	client, err := cfg.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	const secret = "alice@example.org"
	hour := per(2, time.Hour)
	take(t, l, "", ratelimit.Rate("wide", hour, secret), ratelimit.Distinct("members", hour, secret, []string{secret}))
	keys, err := client.Keys(t.Context(), cfg.KeyPrefix+"*").Result()
	if err != nil || len(keys) != 2 {
		t.Fatalf("%d keys, %v", len(keys), err)
	}
	for _, key := range keys {
		if ttl := client.PTTL(t.Context(), key).Val(); ttl <= 0 || ttl > time.Hour {
			t.Errorf("a key lives for %s", ttl)
		}
		dump := client.Dump(t.Context(), key).Val()
		if strings.Contains(key+dump, "alice") {
			t.Errorf("an address is in clear: %q", key)
		}
	}
	// The same key under another secret is another one.
	stranger, _ := open(t, func(o *ratelimit.Options) { o.Redis, o.Secret = conn, []byte("another") })
	if n, err := stranger.Forget(t.Context(), secret); n != 0 || err != nil {
		t.Errorf("forgot %d, %v with another secret", n, err)
	}
	if n, err := l.Forget(t.Context(), secret); n != 2 || err != nil {
		t.Errorf("forgot %d, %v", n, err)
	}
}

func TestMetricsAreThereFromTheStart(t *testing.T) {
	t.Parallel()
	l, reg := open(t, func(*ratelimit.Options) {})
	for _, name := range names() {
		if n := metric(t, reg, "herald_test_limited_total", name); n != 0 {
			t.Errorf("%s: %v before any request", name, n)
		}
	}
	take(t, l, "", narrow(1))
	take(t, l, "narrow", wide(1), narrow(1))
	if wide, narrow := metric(t, reg, "herald_test_limited_total", "wide"), metric(t, reg, "herald_test_limited_total", "narrow"); wide != 0 || narrow != 1 {
		t.Errorf("refused by wide %v, by narrow %v", wide, narrow)
	}
	if n := metric(t, reg, "herald_test_limit_keys", ""); n != 1 {
		t.Errorf("%v keys", n)
	}
}
