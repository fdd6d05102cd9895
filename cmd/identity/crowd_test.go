package main

import (
	"net/http"
	"testing"
	"time"

	"github.com/matrix-herald/herald/identity/storetest"
	"github.com/matrix-herald/herald/internal/harness"
)

// TestTenThousandIdleConnections has nothing to say about time: every request
// that is made beside them, on connections old and new, is answered.
//
// Conformance (attacks): ten thousand connections, silent, idle or slow | the same; the median of everybody else stays within twice the calm one (also BenchmarkHostileAttacks)
func TestTenThousandIdleConnections(t *testing.T) { // not parallel: others would wait for the machine
	n := newSite(t, storetest.SQLite(t), "").start(t)
	fresh := n.with(t, &http.Transport{DisableKeepAlives: true})
	ask := func() {
		t.Helper()
		for range 5 {
			for how, through := range map[string]*node{"kept": n, "new": fresh} {
				_, a, err := through.do(t.Context(), http.MethodGet, "/_matrix/identity/versions", "", "")
				if err != nil || a.status != http.StatusOK {
					t.Fatalf("on a %s connection: %d %s %v", how, a.status, a.body, err)
				}
			}
		}
	}
	silent := harness.StartLoad(t, harness.Load{URL: n.API, Profile: harness.Silent, Count: 10_000, Every: time.Second})
	ask()
	if silent.Open.Load() == 0 {
		t.Error("nobody was there")
	}
	silent.Leave()
	ask()
}
