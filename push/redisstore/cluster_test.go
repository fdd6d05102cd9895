package redisstore_test

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/matrix-herald/herald/internal/redisconn/redistest"
	"github.com/matrix-herald/herald/push"
)

// A batch has keys of many slots; each script has one.
func TestCluster(t *testing.T) {
	t.Parallel()
	cfg, nodes := redistest.StartCluster(t)
	terms := push.DefaultTerms()
	terms.GuardPushes = 50
	for name, run := range cases {
		t.Run(name, func(t *testing.T) {
			own := cfg
			own.KeyPrefix = fmt.Sprintf("%s%x:", cfg.KeyPrefix, name)
			run(t, openStore(t, own, terms), openStore(t, own, terms))
		})
	}
	for i, c := range nodes {
		if n := c.DBSize(t.Context()).Val(); n == 0 {
			t.Errorf("node %d holds no key", i)
		}
	}
}

// TestSentinelFailover kills the master: what it remembered is at the replica that
// the Sentinel puts in its place, and the store finds it there.
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
	cfg.MasterName, cfg.Password = "herald", "hunter2"
	s := openStore(t, cfg, push.DefaultTerms())
	first := query("$1", 1)
	begin(t, s, first)
	compare(t, "another request", begin(t, s, query("$1", 2)), []push.Finding{{State: push.InFlight, Owner: 1}})
	end(t, s, push.Result{Query: first, Outcome: push.Outcome{Kind: push.Accepted, Reason: push.ReasonSent}, Held: true, Done: true})
	if n, err := in(master).Wait(t.Context(), 1, time.Minute).Result(); err != nil || n != 1 {
		t.Fatalf("%d replicas have what the master has: %v", n, err)
	}

	master.Kill()
	redistest.Await(t, func() bool {
		found, err := s.Begin(t.Context(), []push.Query{query("$1", 3)})
		return err == nil && found[0].State == push.Delivered
	})
	fresh := query("$2", 4)
	begin(t, s, fresh) // written, too
	compare(t, "a claim at the new master", begin(t, s, query("$2", 5)), []push.Finding{{State: push.InFlight, Owner: 4}})
}
