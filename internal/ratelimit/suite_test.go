package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/internal/ratelimit"
	"github.com/matrix-herald/herald/internal/redisconn"
	"github.com/matrix-herald/herald/internal/redisconn/redistest"
)

// month is so long that no test sees one more let through by the passing of time.
const month = 30 * 24 * time.Hour

// start is when tests begin that have a clock of their own.
var start = time.Date(2026, 11, 22, 13, 0, 0, 0, time.UTC)

func names() []string { return []string{"wide", "narrow", "other", "members", "more members"} }

func per(n int, d time.Duration) ratelimit.Limit { return ratelimit.Limit{Count: n, Per: d} }

func wide(n int) ratelimit.Ask   { return ratelimit.Rate("wide", per(n, month), "k") }
func narrow(n int) ratelimit.Ask { return ratelimit.Rate("narrow", per(n, month), "k") }

func members(n int, list ...string) ratelimit.Ask {
	return ratelimit.Distinct("members", per(n, month), "k", list)
}

// numbers returns the members from to to-1.
func numbers(from, to int) []string {
	var list []string
	for i := from; i < to; i++ {
		list = append(list, strconv.Itoa(i))
	}
	return list
}

func open(t testing.TB, change func(*ratelimit.Options)) (*ratelimit.Limiter, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewRegistry()
	opts := ratelimit.Options{
		Names: names(), Service: "test", Secret: []byte("secret"), Log: slog.New(slog.DiscardHandler), Registerer: reg,
	}
	change(&opts)
	l, err := ratelimit.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	return l, reg
}

// metric returns the value of a counter or gauge, with this limit if not "".
func metric(t testing.TB, reg *prometheus.Registry, name, limit string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() != name || limit != "" && m.GetLabel()[0].GetValue() != limit {
				continue
			}
			return m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

// world is two processes that share one memory.
type world struct {
	a, b *ratelimit.Limiter
	// advance lets time pass; nil where nobody can.
	advance func(time.Duration)
}

// take asks and compares the refusal, "" for none, with want.
func take(t *testing.T, l *ratelimit.Limiter, want string, asks ...ratelimit.Ask) time.Duration {
	t.Helper()
	_, err := l.Take(t.Context(), asks...)
	refused, ok := errors.AsType[*ratelimit.Refused](err)
	switch {
	case err == nil && want == "":
		return 0
	case !ok:
		t.Fatalf("got %v, want a refusal by %q", err, want)
	case refused.Limit != want:
		t.Fatalf("refused by %q, want %q", refused.Limit, want)
	case refused.RetryAfter <= 0:
		t.Fatalf("refused for %s", refused.RetryAfter)
	}
	return refused.RetryAfter
}

// cases are what every backend must do.
var cases = map[string]func(t *testing.T, w world){
	"as many as the limit, from both processes": func(t *testing.T, w world) {
		take(t, w.a, "", wide(3))
		take(t, w.b, "", wide(3))
		take(t, w.a, "", wide(3))
		for _, l := range []*ratelimit.Limiter{w.a, w.b} {
			if wait := take(t, l, "wide", wide(3)); wait > month/3 {
				t.Errorf("wait %s for a third of the limit", wait)
			}
		}
	},
	"one more after each step of time, and all after the whole": func(t *testing.T, w world) {
		if w.advance == nil {
			t.Skip("time passes by itself here")
		}
		five := ratelimit.Rate("wide", per(5, time.Hour), "k")
		for range 5 {
			take(t, w.a, "", five)
		}
		if wait := take(t, w.a, "wide", five); wait != 12*time.Minute {
			t.Errorf("wait %s, want 12m", wait)
		}
		w.advance(7 * time.Minute)
		if wait := take(t, w.b, "wide", five); wait != 5*time.Minute {
			t.Errorf("wait %s, want 5m", wait)
		}
		w.advance(5 * time.Minute)
		take(t, w.b, "", five)
		take(t, w.a, "wide", five)
		w.advance(10 * time.Hour)
		for range 5 {
			take(t, w.a, "", five)
		}
		take(t, w.a, "wide", five)
	},
	"a limit that became lower counts at once": func(t *testing.T, w world) {
		for range 10 {
			take(t, w.a, "", wide(10))
		}
		lower := ratelimit.Rate("wide", per(2, time.Hour), "k")
		if wait := take(t, w.b, "wide", lower); wait > 30*time.Minute {
			t.Errorf("wait %s, want that of the new limit", wait)
		}
	},
	"keys and limits have nothing to do with each other": func(t *testing.T, w world) {
		take(t, w.a, "", ratelimit.Rate("wide", per(1, month), "k"))
		take(t, w.a, "", ratelimit.Rate("wide", per(1, month), "K"))
		take(t, w.a, "", ratelimit.Rate("wide", per(1, month), ""))
		take(t, w.a, "", ratelimit.Rate("narrow", per(1, month), "k"))
		take(t, w.a, "wide", ratelimit.Rate("wide", per(1, month), "k"))
	},
	"what is switched off lets everything through": func(t *testing.T, w world) {
		for range 10 {
			take(t, w.a, "", ratelimit.Rate("wide", ratelimit.Limit{}, "k"), ratelimit.Distinct("members", ratelimit.Limit{}, "k", numbers(0, 10)))
		}
		take(t, w.a, "")
	},
	"an ask that is there twice counts once": func(t *testing.T, w world) {
		take(t, w.a, "", wide(2), wide(2))
		take(t, w.a, "", wide(2), wide(2), wide(2))
		take(t, w.a, "wide", wide(2))
	},
	"a refused request gives back what it took of other limits": func(t *testing.T, w world) {
		take(t, w.a, "", wide(5), narrow(1))
		for range 10 {
			take(t, w.a, "narrow", wide(5), narrow(1), members(100, "x", "y"))
			take(t, w.b, "narrow", narrow(1), wide(5))
		}
		for range 4 {
			take(t, w.b, "", wide(5))
		}
		take(t, w.b, "wide", wide(5))
		take(t, w.a, "", members(2, "v", "w"))
	},
	"of several refusals the longest counts": func(t *testing.T, w world) {
		short := ratelimit.Rate("other", per(1, 24*time.Hour), "k")
		take(t, w.a, "", wide(1), short)
		take(t, w.a, "wide", wide(1), short)
		take(t, w.a, "wide", short, wide(1))
	},
	"members are counted once": func(t *testing.T, w world) {
		take(t, w.a, "", members(5, "a", "b", "c", "a", "b"))
		for range 10 {
			take(t, w.b, "", members(5, "c", "b", "a"))
		}
		take(t, w.b, "members", members(5, "d", "e", "f"))
		take(t, w.b, "", members(5, "d", "a", "e"))
		take(t, w.a, "members", members(5, "f"))
		take(t, w.a, "members", members(5, "a", "f"))
		take(t, w.a, "", members(5, "a", "b", "c", "d", "e"))
		take(t, w.a, "", ratelimit.Distinct("members", per(5, month), "other", []string{"f"}))
		take(t, w.a, "", ratelimit.Distinct("more members", per(5, month), "k", []string{"f"}))
	},
	"no members take nothing": func(t *testing.T, w world) {
		take(t, w.a, "", members(1))
		take(t, w.a, "", members(1, "a"))
		take(t, w.a, "", members(1))
		take(t, w.a, "members", members(1, "b"))
	},
	"a budget gives back what another refuses": func(t *testing.T, w world) {
		more := func(list ...string) ratelimit.Ask {
			return ratelimit.Distinct("more members", per(3, month), "k", list)
		}
		list := numbers(0, 3)
		take(t, w.a, "", members(10, list...), more(list...))
		for i := range 10 {
			list := []string{"0", fmt.Sprint("new", i)}
			take(t, w.b, "more members", members(10, list...), more(list...), wide(3))
		}
		take(t, w.a, "", members(10, numbers(0, 10)...), more(list...), wide(3))
		take(t, w.a, "members", members(10, "10"))
		take(t, w.a, "", wide(3))
	},
	"a day's budget begins anew at midnight UTC": func(t *testing.T, w world) {
		day := func(list ...string) ratelimit.Ask {
			return ratelimit.Distinct("members", per(2, 24*time.Hour), "k", list)
		}
		if w.advance == nil {
			t.Skip("midnight could come at any time here")
		}
		take(t, w.a, "", day("a", "b"))
		if wait := take(t, w.b, "members", day("c")); wait != 11*time.Hour {
			t.Errorf("wait %s at one o'clock in the afternoon", wait)
		}
		w.advance(11*time.Hour - time.Second)
		take(t, w.b, "members", day("c"))
		w.advance(time.Second)
		take(t, w.b, "", day("c", "d"))
		take(t, w.a, "members", day("a"))
	},
	"as many members as a lookup may have": func(t *testing.T, w world) {
		list := numbers(0, 10000)
		take(t, w.a, "", members(10000, list...))
		take(t, w.b, "", members(10000, list...))
		take(t, w.b, "members", members(10000, "x"))
	},
	"what was taken can be returned, limit by limit": func(t *testing.T, w world) {
		taken, err := w.a.Take(t.Context(), wide(1), narrow(1), members(2, "a", "b"))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // the client has gone
		taken.Return(ctx)
		taken.Return(ctx, "other")
		take(t, w.b, "wide", wide(1))
		taken.Return(ctx, "wide", "members")
		take(t, w.b, "narrow", narrow(1))
		take(t, w.b, "", wide(1), members(2, "c"))
		take(t, w.b, "wide", wide(1))
		take(t, w.b, "members", members(2, "d", "e"))
		take(t, w.b, "", members(2, "d"))
		nothing, err := w.a.Take(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		nothing.Return(t.Context(), "wide")
	},
	"a later request gives back what an earlier one took": func(t *testing.T, w world) {
		take(t, w.a, "", wide(1), narrow(1))
		w.b.Return(t.Context(), wide(1))
		take(t, w.a, "narrow", narrow(1))
		take(t, w.a, "", wide(1))
	},
	"members that others had meanwhile are not returned": func(t *testing.T, w world) {
		taken, err := w.a.Take(t.Context(), members(3, "a", "b"))
		if err != nil {
			t.Fatal(err)
		}
		take(t, w.b, "", members(3, "b"))
		taken.Return(t.Context(), "members")
		take(t, w.b, "", members(3, "c", "d"))
		take(t, w.a, "members", members(3, "a"))
		take(t, w.a, "", members(3, "b"))
	},
	"members that were there before are not returned": func(t *testing.T, w world) {
		take(t, w.a, "", members(2, "a"))
		taken, err := w.b.Take(t.Context(), members(2, "a", "b"))
		if err != nil {
			t.Fatal(err)
		}
		taken.Return(t.Context(), "members")
		take(t, w.a, "", members(2, "c"))
		take(t, w.a, "members", members(2, "d"))
		take(t, w.a, "", members(2, "a"))
	},
	"no more is returned than the limit has": func(t *testing.T, w world) {
		if w.advance == nil {
			t.Skip("time passes by itself here")
		}
		two := ratelimit.Rate("wide", per(2, time.Hour), "k")
		taken, err := w.a.Take(t.Context(), two)
		if err != nil {
			t.Fatal(err)
		}
		w.advance(time.Hour)
		taken.Return(t.Context(), "wide")
		take(t, w.a, "", two)
		taken.Return(t.Context(), "wide")
		take(t, w.a, "", two)
		take(t, w.a, "", two)
		take(t, w.a, "wide", two)
	},
	"forgetting a key frees it, and is counted": func(t *testing.T, w world) {
		other := ratelimit.Rate("wide", per(1, month), "other")
		take(t, w.a, "", wide(1), narrow(1), members(1, "a"), other)
		forget := func(want int, keys ...string) {
			t.Helper()
			if n, err := w.b.Forget(t.Context(), keys...); n != want || err != nil {
				t.Errorf("forgot %d, %v, want %d", n, err, want)
			}
		}
		forget(3, "nobody", "k")
		forget(0, "k")
		forget(0)
		take(t, w.a, "", wide(1), narrow(1), members(1, "b"))
		take(t, w.a, "wide", other)
		forget(4, "k", "other")
	},
	"many at once get the limit and no more": func(t *testing.T, w world) {
		if n := crowd(t, w, 25, func(int) []ratelimit.Ask { return []ratelimit.Ask{wide(50)} }); n != 50 {
			t.Errorf("%d let through, want 50", n)
		}
	},
	"many at once give back all that they took in vain": func(t *testing.T, w world) {
		n := crowd(t, w, 10, func(i int) []ratelimit.Ask {
			asks := []ratelimit.Ask{wide(50), narrow(20)}
			if i%2 == 0 {
				slices.Reverse(asks)
			}
			return asks
		})
		if n > 20 {
			t.Errorf("%d let through, want at most 20", n)
		}
		for ; n < 20; n++ { // some met what others were about to give back
			take(t, w.a, "", wide(50), narrow(20))
		}
		take(t, w.a, "narrow", wide(50), narrow(20))
		for range 30 {
			take(t, w.a, "", wide(50))
		}
		take(t, w.a, "wide", wide(50))
	},
	"many at once get a budget and no more": func(t *testing.T, w world) {
		var had sync.Map
		n := crowd(t, w, 25, func(i int) []ratelimit.Ask {
			m := strconv.Itoa(i % 100)
			had.Store(m, true)
			return []ratelimit.Ask{members(50, m)}
		})
		if n < 50 {
			t.Errorf("%d let through, want each of the 50 at least once", n)
		}
		free := 0
		for m := range had.Range {
			if _, err := w.a.Take(t.Context(), members(50, m.(string))); err == nil {
				free++
			}
		}
		if free != 50 {
			t.Errorf("%d members in a budget of 50", free)
		}
	},
	"many at once get no member free that somebody gives back": func(t *testing.T, w world) {
		// Half of them are refused by the narrow limit after they took a member of
		// the budget. Nobody may have got that member without it being counted.
		var mu sync.Mutex
		got := make(map[string]bool)
		take(t, w.a, "", narrow(1))
		crowdOf(t, w, 25, func(i int, l *ratelimit.Limiter) error {
			m := strconv.Itoa(i / 2 % 40)
			if i%2 == 0 {
				_, err := l.Take(t.Context(), members(20, m), narrow(1))
				return err
			}
			_, err := l.Take(t.Context(), members(20, m))
			if err == nil {
				mu.Lock()
				defer mu.Unlock()
				got[m] = true
			}
			return err
		})
		if len(got) > 20 {
			t.Errorf("%d different members of a budget of 20", len(got))
		}
	},
}

// crowd has eight goroutines ask each n times, and returns how often they were
// let through. Each round of asks has a number of its own.
func crowd(t *testing.T, w world, n int, asks func(i int) []ratelimit.Ask) int {
	t.Helper()
	return crowdOf(t, w, n, func(i int, l *ratelimit.Limiter) error {
		_, err := l.Take(t.Context(), asks(i)...)
		return err
	})
}

func crowdOf(t *testing.T, w world, n int, try func(i int, l *ratelimit.Limiter) error) int {
	t.Helper()
	var through, number atomic.Int32
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for range n {
				err := try(int(number.Add(1)), []*ratelimit.Limiter{w.a, w.b}[g%2])
				if _, refused := errors.AsType[*ratelimit.Refused](err); err != nil && !refused {
					t.Error(err)
				}
				if err == nil {
					through.Add(1)
				}
			}
		})
	}
	wg.Wait()
	return int(through.Load())
}

// backends are all there is to count in.
var backends = map[string]func(t *testing.T) world{
	"memory": func(t *testing.T) world {
		var passed atomic.Int64
		l, _ := open(t, func(o *ratelimit.Options) {
			o.Now = func() time.Time { return start.Add(time.Duration(passed.Load())) }
		})
		return world{a: l, b: l, advance: func(d time.Duration) { passed.Add(int64(d)) }}
	},
	"miniredis": func(t *testing.T) world {
		server := miniredis.RunT(t)
		now := start
		server.SetTime(now)
		w := sharing(t, redistest.Config(server.Addr()))
		w.advance = func(d time.Duration) {
			now = now.Add(d)
			server.SetTime(now)
			server.FastForward(d)
		}
		return w
	},
	"Redis": func(t *testing.T) world { return sharing(t, redistest.Shared(t)) },
}

// sharing returns two processes that share a Redis. The clock of one is wrong,
// which must not matter. It fails the test if one of them did without Redis.
func sharing(t *testing.T, cfg redisconn.Config) world {
	var w world
	for i, l := range []**ratelimit.Limiter{&w.a, &w.b} {
		conn, reg := redistest.Connect(t, cfg, io.Discard)
		*l, _ = open(t, func(o *ratelimit.Options) {
			o.Redis = conn
			o.Now = func() time.Time { return time.Now().Add(time.Duration(i) * 24 * time.Hour) }
		})
		t.Cleanup(func() {
			if n := metric(t, reg, "herald_test_store_fallbacks_total", ""); n != 0 {
				t.Errorf("%v requests did without Redis", n)
			}
		})
	}
	return w
}

func TestBackends(t *testing.T) {
	t.Parallel()
	for backend, begin := range backends {
		for name, run := range cases {
			t.Run(backend+"/"+name, func(t *testing.T) {
				t.Parallel()
				run(t, begin(t))
			})
		}
	}
}

// On a Cluster the keys of one request are on several nodes.
func TestCluster(t *testing.T) {
	t.Parallel()
	cfg, nodes := redistest.StartCluster(t)
	for name, run := range cases {
		t.Run(name, func(t *testing.T) {
			own := cfg
			own.KeyPrefix = fmt.Sprintf("%s%x:", cfg.KeyPrefix, name)
			run(t, sharing(t, own))
		})
	}
	for i, c := range nodes {
		if n := c.DBSize(context.WithoutCancel(t.Context())).Val(); n == 0 {
			t.Errorf("node %d holds no key", i)
		}
	}
}
