package push_test

import (
	"encoding/binary"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/push"
)

// key returns the n-th of many keys, spread like hashes.
func key(n uint64) (k push.Key) {
	binary.LittleEndian.PutUint64(k[:], n*0x9e3779b97f4a7c15)
	binary.LittleEndian.PutUint64(k[8:], n)
	return k
}

// fill delivers events from first to last, each of which also loses a pushkey.
func fill(t testing.TB, m *push.Memory, first, last uint64) {
	t.Helper()
	for n := first; n <= last; n++ {
		q := push.Query{Event: key(n), Owner: n, Lease: time.Minute, PushKey: key(n)}
		if f := m.Begin(t.Context(), []push.Query{q})[0]; f.State != push.Claimed {
			t.Fatalf("event %d: %+v", n, f)
		}
		m.End(t.Context(), []push.Result{{Query: q, Held: true, Done: true, Rejection: push.Rejection{Known: true}}})
	}
}

func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	const bound = 16_000
	m, err := push.NewMemory(push.DefaultTerms(), bound)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, m, 1, 10*bound)
	events, rejections := m.Len()
	if events > bound || rejections > bound/4 {
		t.Errorf("%d events and %d rejections, want at most %d and %d", events, rejections, bound, bound/4)
	}
	if events < bound/3 || rejections < bound/12 {
		t.Errorf("%d events and %d rejections: more was forgotten than had to be", events, rejections)
	}
	for n, want := range map[uint64]push.State{10 * bound: push.Delivered, 1: push.Claimed} {
		if f := m.Begin(t.Context(), []push.Query{{Event: key(n), Owner: 1, Lease: time.Minute}})[0]; f.State != want {
			t.Errorf("event %d: %+v", n, f)
		}
	}
}

func TestMemoryForgetsWhatHasExpired(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		terms := push.DefaultTerms()
		terms.Lifetime, terms.RejectionLifetime = time.Minute, time.Minute
		m := newMemory(t, terms)
		fill(t, m, 1, 1000)
		for range 2 { // each time what came before is older by a generation
			<-time.After(2 * time.Minute)
			fill(t, m, 2001, 2100)
		}
		if events, _ := m.Len(); events > 200 {
			t.Errorf("%d events are held long after they have expired", events)
		}
	})
}

func TestMemoryForgetsClaims(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &service{delay: time.Second, script: map[string][]push.Outcome{"a": {unavailable}, "b": {unavailable}}}
		m := newMemory(t, push.DefaultTerms())
		g := newGateway(t, prometheus.NewRegistry(), s, func(o *push.Options) { o.Ledger = m })
		done := make(chan struct{})
		go func() {
			defer close(done)
			g.Deliver(t.Context(), event("$1"), devices("a"))
		}()
		synctest.Wait()
		g.Deliver(t.Context(), event("$1"), devices("a")) // waits
		<-done
		g.Deliver(t.Context(), event("$1"), devices("b"))
		<-time.After(push.EndedLifetime + time.Second)
		for n := range uint64(64) { // each part of the memory is looked at
			m.Begin(t.Context(), []push.Query{{Event: key(n + 1), Owner: n + 1}})
			m.End(t.Context(), []push.Result{{Query: push.Query{Event: key(n + 1), Owner: n + 1}, Held: true}})
		}
		if events, rejections := m.Len(); events != 0 || rejections != 0 {
			t.Errorf("%d events and %d rejections are left of two failures", events, rejections)
		}
	})
}

func TestNewMemoryRefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*push.Terms){
		"no lifetime":           func(o *push.Terms) { o.Lifetime = 0 },
		"no rejection lifetime": func(o *push.Terms) { o.RejectionLifetime = 0 },
		"no window":             func(o *push.Terms) { o.GuardWindow = 0 },
		"no pushes":             func(o *push.Terms) { o.GuardPushes = 0 },
		"no share":              func(o *push.Terms) { o.GuardShare = 0 },
		"more than all":         func(o *push.Terms) { o.GuardShare = 101 },
	} {
		terms := push.DefaultTerms()
		change(&terms)
		if _, err := push.NewMemory(terms, push.DefaultMemoryEvents); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := push.NewMemory(push.DefaultTerms(), push.MinMemoryEvents-1); err == nil {
		t.Error("no room: no error")
	}
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
		m, err := push.NewMemory(push.DefaultTerms(), 2*million+2000)
		if err != nil {
			b.Fatal(err)
		}
		for n := range uint64(million) {
			q := push.Query{Event: key(n + 1), Owner: 1, Lease: time.Minute}
			m.Begin(b.Context(), []push.Query{q})
			m.End(b.Context(), []push.Result{{Query: q, Held: true, Done: true}})
		}
		b.ReportMetric((heap()-before)/1e6, "MB/million")
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/million, "ns/notification")
		runtime.KeepAlive(m)
	}
}
