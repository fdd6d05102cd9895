package redisstore_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/matrix-herald/herald/internal/redisconn/redistest"
	"github.com/matrix-herald/herald/push"
)

// What many requests ask at once is gathered for one connection; each gets its
// own answers, also when others have given up in between.
func TestManyRequestsAtOnce(t *testing.T) {
	t.Parallel()
	s := openStore(t, redistest.Shared(t), push.DefaultTerms())
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for round, want := range []push.State{push.Claimed, push.Delivered} {
		var wg sync.WaitGroup
		for i := range 500 {
			wg.Go(func() {
				if i%5 == 0 {
					_, _ = s.Begin(gone, []push.Query{query(fmt.Sprint("given up ", i), 1)})
					return
				}
				q := query(fmt.Sprint(i), uint64(i)+1)
				found, err := s.Begin(t.Context(), []push.Query{q})
				if err != nil || found[0].State != want || want == push.Delivered && found[0].Counts != uint32(i) {
					t.Errorf("round %d, event %d: %+v %v", round, i, found, err)
					return
				}
				if _, err := s.End(t.Context(), []push.Result{{Query: q, Held: round == 0, Done: true, Counts: uint32(i), Verdict: push.Alive}}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
	if n := poolMetrics(t, s)["herald_push_redis_connections"]; n != 1 {
		t.Errorf("%v connections", n)
	}
}
