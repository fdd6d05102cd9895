package redisstore_test

import (
	"fmt"
	"net"
	"testing"

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

func TestSentinel(t *testing.T) {
	t.Parallel()
	master := redistest.Start(t, "save \"\"\nrequirepass hunter2\nprotected-mode no\n")
	host, port, _ := net.SplitHostPort(master.Address)
	sentinel := redistest.Start(t, fmt.Sprintf("sentinel monitor herald %s %s 1\nsentinel auth-pass herald hunter2\n", host, port), "--sentinel")
	cfg := redistest.Config(sentinel.Address)
	cfg.MasterName, cfg.Password = "herald", "hunter2"
	s := openStore(t, cfg, push.DefaultTerms())
	begin(t, s, query("$1", 1))
	compare(t, "another request", begin(t, s, query("$1", 2)), []push.Finding{{State: push.InFlight, Owner: 1}})
}
