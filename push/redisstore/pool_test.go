package redisstore_test

import (
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/internal/redisconn/redistest"
	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/redisstore"
)

// poolMetrics returns what a store tells of its connections.
func poolMetrics(t *testing.T, s *redisstore.Store) map[string]float64 {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(s)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]float64)
	for _, f := range families {
		m := f.GetMetric()[0]
		got[f.GetName()] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
	}
	return got
}

func TestPoolMetrics(t *testing.T) {
	t.Parallel()
	s := openStore(t, redistest.Config(miniredis.RunT(t).Addr()), push.DefaultTerms())
	if before := poolMetrics(t, s); len(before) != 4 || before["herald_push_redis_misses_total"] != 0 {
		t.Errorf("at first: %v", before)
	}
	for range 3 { // one after the other
		begin(t, s, query("", 1))
	}
	got := poolMetrics(t, s)
	if got["herald_push_redis_connections"] != 1 || got["herald_push_redis_idle_connections"] != 1 ||
		got["herald_push_redis_misses_total"] != 1 || got["herald_push_redis_hits_total"] != 2 {
		t.Errorf("after three calls: %v", got)
	}
}
