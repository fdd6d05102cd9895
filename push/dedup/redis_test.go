package dedup_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/internal/redisconn/redistest"
	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/dedup"
)

// With Redis away a process repeats nothing of its own, and with Redis back
// nobody repeats what was told.
//
// Conformance (answers): Redis away, slow or dying in the middle, also at the start | pushed anyway; the process's own memory stands in (also TestABlackHoleCostsTheBudgetOnce, TestRedisIsNotThereAtTheStartAndComes)
func TestRedisGoesAndComesBack(t *testing.T) {
	t.Parallel()
	server := miniredis.RunT(t)
	open := sharing(t, redistest.Config(server.Addr()))
	a := process{t, open()}
	a.end("before", "k", 1, sent)
	claim, claimed := a.claim("during", "k", 1)
	server.Close()
	a.d.Complete(t.Context(), []push.Result{{Claim: claim, Claimed: claimed, Sent: true, Verdict: push.Alive}})
	for _, event := range []string{"before", "during"} {
		if _, got := a.claim(event, "k", 2); got.State != push.Delivered {
			t.Errorf("%s is forgotten: %+v", event, got)
		}
	}
	a.end("alone", "k", 3, sent)
	a.end("alone", "gone", 3, dead(5))
	a.expect("a rejection of the process's own", "other", "gone", 4, push.Claimed{Dead: true, Rejected: true, PushKeyTS: 5})
	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	redistest.Await(t, func() bool {
		_, got := a.claim("alone", "k", 5)
		return got.Shared
	})
	a.expect("what was sent without Redis", "alone", "k", 6, push.Claimed{State: push.Delivered, Counts: 7, Accepted: true})
	a.end("alone", "k", 6, func(r *push.Result) { r.Sent = true }) // who asks again tells Redis
	b := process{t, open()}
	for _, event := range []string{"before", "alone"} {
		b.expect(event+" at another process", event, "k", 7, push.Claimed{State: push.Delivered, Counts: counts(event), Accepted: true})
	}
	server.FlushAll()
	a.expect("a phone that Redis has forgotten", "new", "k", 8, push.Claimed{Accepted: true})
}

func counts(event string) uint32 {
	if event == "before" {
		return 7
	}
	return 0
}

// trips counts how often Redis is asked.
type trips struct{ atomic.Int64 }

func (c *trips) DialHook(next redis.DialHook) redis.DialHook { return next }

func (c *trips) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, command redis.Cmder) error {
		c.Add(1)
		return next(ctx, command)
	}
}

func (c *trips) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, commands []redis.Cmder) error {
		c.Add(1)
		return next(ctx, commands)
	}
}

func TestARequestTakesTwoRoundTrips(t *testing.T) {
	t.Parallel()
	conn, _ := redistest.Connect(t, redistest.Shared(t), io.Discard)
	d, count := dedup.NewRedis(conn, newMemory(t)), new(trips)
	conn.Client.AddHook(count)
	for _, devices := range []int{1, 10, 100} {
		var claims []push.Claim
		for i := range devices {
			claims = append(claims, push.Claim{Event: key(fmt.Sprint(devices, i)), Owner: 1, Lease: time.Minute, PushKey: key(fmt.Sprint(i)), App: key("app")})
		}
		before := count.Load()
		var results []push.Result
		for i, c := range d.Claim(t.Context(), claims) {
			r := push.Result{Claim: claims[i], Claimed: c}
			[]func(*push.Result){sent, failed, dead(1)}[i%3](&r)
			results = append(results, r)
		}
		d.Complete(t.Context(), results)
		if n := count.Load() - before; n != 2 {
			t.Errorf("%d round trips for %d devices, want 2", n, devices)
		}
	}
}

// Conformance (attacks): 1,000 events a second that lead to nothing, with Redis | nothing is kept of what was not sent: Redis has no key more
func TestKeysExpireAndHoldNoPushkey(t *testing.T) {
	t.Parallel()
	cfg := redistest.Shared(t)
	p := process{t, sharing(t, cfg)()}
	p.end("secret event", "secret alive", 1, sent)
	p.end("secret event", "secret dead", 1, dead(5))
	p.end("secret failure", "secret alive", 1, failed)
	for range 2 { // which anybody can make up, as many as they like
		p.end("secret event", "secret made up", 1, func(r *push.Result) { r.Verdict = push.Dead })
	}
	p.claim("secret claim", "secret alive", 1)
	client, err := cfg.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	seen := make(map[string]int)
	for keys := client.Scan(t.Context(), 0, cfg.KeyPrefix+"*", 1000).Iterator(); keys.Next(t.Context()); {
		name := keys.Val()
		kind, _, _ := strings.Cut(strings.TrimPrefix(name, cfg.KeyPrefix), ":")
		seen[kind]++
		longest := map[string]time.Duration{"event": 2 * time.Hour, "pushkey": 7 * 24 * time.Hour, "app": 30 * 24 * time.Hour}[kind]
		if ttl, err := client.PTTL(t.Context(), name).Result(); err != nil || ttl <= 0 || ttl > longest {
			t.Errorf("%s expires in %s: %v", name, ttl, err)
		}
		if strings.Contains(name+client.Dump(t.Context(), name).Val(), "secret") {
			t.Errorf("Redis holds %s", name)
		}
	}
	if fmt.Sprint(seen) != "map[app:1 event:2 pushkey:2]" { // nothing of what failed or is not believed
		t.Errorf("keys: %v", seen)
	}
}

// A master is killed: what it remembered is at the replica that the Sentinel puts
// in its place, and is found there.
func TestSentinelFailover(t *testing.T) {
	t.Parallel()
	const settings = "save \"\"\nrequirepass hunter2\nmasterauth hunter2\nprotected-mode no\nrepl-diskless-sync-delay 0\n"
	master := redistest.Start(t, settings)
	host, port, _ := net.SplitHostPort(master.Address)
	replica := redistest.Start(t, settings+fmt.Sprintf("replicaof %s %s\n", host, port))
	in := func(s *redistest.Server) *redis.Client {
		c := redis.NewClient(&redis.Options{Addr: s.Address, Password: "hunter2"})
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	// A Sentinel asks for a master's replicas when it begins, and then every 10 s.
	replicating := in(replica)
	redistest.Await(t, func() bool {
		return strings.Contains(replicating.Info(t.Context(), "replication").Val(), "master_link_status:up")
	})
	sentinel := redistest.Start(t, fmt.Sprintf("sentinel monitor herald %s %s 1\nsentinel auth-pass herald hunter2\n"+
		"sentinel down-after-milliseconds herald 2000\nsentinel failover-timeout herald 2000\n", host, port), "--sentinel")
	cfg := redistest.Config(sentinel.Address)
	cfg.URL = conf.Secret("redis://:hunter2@" + sentinel.Address + "?master_name=herald")
	open := sharing(t, cfg)
	process{t, open()}.end("e", "k", 1, sent)
	if n, err := in(master).Wait(t.Context(), 1, time.Minute).Result(); err != nil || n != 1 {
		t.Fatalf("%d replicas have what the master has: %v", n, err)
	}
	other := process{t, open()} // which knows nothing by itself
	master.Kill()
	redistest.Await(t, func() bool {
		_, got := other.claim("e", "k", 2)
		return got.Shared && got.State == push.Delivered
	})
	other.claim("fresh", "k", 3) // written, too
	process{t, open()}.expect("a claim at the new master", "fresh", "k", 4, push.Claimed{State: push.InFlight, Accepted: true})
}
