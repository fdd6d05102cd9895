package dedup_test

import (
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/matrix-herald/herald/internal/redisconn/redistest"
	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/dedup"
)

// fill delivers events from first to last, each to a device of its own; every
// other one is dead afterwards.
func fill(t testing.TB, m *dedup.Memory, first, last int) {
	t.Helper()
	for n := first; n <= last; n++ {
		c := push.Claim{Event: key(fmt.Sprint("event", n)), Owner: uint64(n), Lease: time.Minute, PushKey: key(fmt.Sprint("pushkey", n)), App: key("app")}
		r := push.Result{Claim: c, Claimed: m.Claim(t.Context(), []push.Claim{c})[0], Sent: true, Verdict: push.Alive}
		if r.State != push.Granted {
			t.Fatalf("event %d: %+v", n, r.Claimed)
		}
		if n%2 == 0 {
			r.Verdict, r.Reject = push.Dead, true
		}
		m.Complete(t.Context(), []push.Result{r})
	}
}

func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	const bound = 16_000
	m, err := dedup.NewMemory(dedup.Options{Events: bound})
	if err != nil {
		t.Fatal(err)
	}
	fill(t, m, 1, 10*bound)
	events, pushKeys := m.Len()
	if events > bound || pushKeys > bound*3/4 {
		t.Errorf("%d events and %d pushkeys, want at most %d and %d", events, pushKeys, bound, bound*3/4)
	}
	if events < bound/3 || pushKeys < bound/4 {
		t.Errorf("%d events and %d pushkeys: more was forgotten than had to be", events, pushKeys)
	}
}

func TestMemoryForgetsWhatHasExpired(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, err := dedup.NewMemory(dedup.Options{
			Events: dedup.DefaultEvents, Lifetime: time.Minute, RejectionLifetime: time.Minute, AcceptedLifetime: time.Minute,
		})
		if err != nil {
			t.Fatal(err)
		}
		fill(t, m, 1, 1000)
		for i := range 2 { // each time what came before is older by a generation
			<-time.After(2 * time.Minute)
			fill(t, m, 2001+i*100, 2100+i*100)
		}
		if events, pushKeys := m.Len(); events > 200 || pushKeys > 400 {
			t.Errorf("%d events and %d pushkeys are held long after they have expired", events, pushKeys)
		}
	})
}

func TestNewMemoryRefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	if _, err := dedup.NewMemory(dedup.Options{Events: dedup.MinEvents - 1}); err == nil {
		t.Error("no room: no error")
	}
}

// FuzzValues reads what another version, or somebody else, has left in Redis.
func FuzzValues(f *testing.F) {
	for _, seed := range []string{"", "c1", "c", "d0", "d99999999999", "a", "r1:true:true:2", "r:::", "r1:2", ":", "x", "c\x00"} {
		f.Add(seed, seed, "1")
	}
	server := miniredis.RunT(f)
	cfg := redistest.Config(server.Addr())
	open := sharing(f, cfg)
	claim := push.Claim{Event: key("e"), Owner: 1, Lease: time.Minute, PushKey: key("k"), App: key("app")}
	first := open()
	first.Complete(f.Context(), []push.Result{{Claim: claim, Claimed: first.Claim(f.Context(), []push.Claim{claim})[0], Sent: true, Verdict: push.Alive}})
	names := make(map[string]string)
	for _, name := range server.Keys() {
		names[name[len(cfg.KeyPrefix):][:1]] = name
	}
	d := open()
	f.Fuzz(func(t *testing.T, event, pushKey, app string) {
		for name, value := range map[string]string{names["e"]: event, names["p"]: pushKey} {
			if err := server.Set(name, value); err != nil {
				t.Fatal(err)
			}
		}
		server.HSet(names["a"], "proven", app, "accepted_trips", app)
		got := d.Claim(t.Context(), []push.Claim{claim})[0]
		if got.State > push.Delivered || !got.Shared {
			t.Fatalf("%+v", got)
		}
		d.Complete(t.Context(), []push.Result{{Claim: claim, Claimed: got, Verdict: push.Dead}})
	})
}

// BenchmarkMemoryMillion reports what a million delivered notifications take.
func BenchmarkMemoryMillion(b *testing.B) {
	const million = 1_000_000
	heap := func() float64 {
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return float64(stats.HeapAlloc)
	}
	for range b.N {
		before := heap()
		m, err := dedup.NewMemory(dedup.Options{Events: 2*million + 2000})
		if err != nil {
			b.Fatal(err)
		}
		fill(b, m, 1, million)
		b.ReportMetric((heap()-before)/1e6, "MB/million")
		runtime.KeepAlive(m)
	}
}
