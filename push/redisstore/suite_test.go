package redisstore_test

import (
	"context"
	"crypto/sha256"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/matrix-herald/herald/internal/redisconn"
	"github.com/matrix-herald/herald/internal/redisconn/redistest"
	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/redisstore"
)

func openStore(t testing.TB, cfg redisconn.Config, terms push.Terms) *redisstore.Store {
	t.Helper()
	s, err := redisstore.New(cfg, terms)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// memoryStore makes a push.Memory a Store, so that one suite runs over both.
type memoryStore struct{ *push.Memory }

func (m memoryStore) Begin(ctx context.Context, queries []push.Query) ([]push.Finding, error) {
	return m.Memory.Begin(ctx, queries), nil
}

func (m memoryStore) End(ctx context.Context, results []push.Result) ([]push.Guard, error) {
	return m.Memory.End(ctx, results), nil
}

// backends are all there is to keep a ledger in. open may be called several
// times; what it returns shares one memory.
var backends = map[string]func(t *testing.T) (open func(push.Terms) push.Store){
	"memory": func(t *testing.T) func(push.Terms) push.Store {
		var m *push.Memory
		return func(terms push.Terms) push.Store {
			if m == nil {
				var err error
				if m, err = push.NewMemory(terms, push.DefaultMemoryEvents); err != nil {
					t.Fatal(err)
				}
			}
			return memoryStore{m}
		}
	},
	"miniredis": func(t *testing.T) func(push.Terms) push.Store {
		cfg := redistest.Config(miniredis.RunT(t).Addr())
		return func(terms push.Terms) push.Store { return openStore(t, cfg, terms) }
	},
	"Redis": func(t *testing.T) func(push.Terms) push.Store {
		cfg := redistest.Shared(t)
		return func(terms push.Terms) push.Store { return openStore(t, cfg, terms) }
	},
}

func key(name string) push.Key {
	sum := sha256.Sum256([]byte(name))
	return push.Key(sum[:16])
}

// query asks for an event at the device k of the app a.
func query(event string, owner uint64) push.Query {
	q := push.Query{Owner: owner, Lease: time.Minute, PushKey: key("k"), App: key("a")}
	if event != "" {
		q.Event = key(event)
	}
	return q
}

func begin(t *testing.T, s push.Store, queries ...push.Query) []push.Finding {
	t.Helper()
	f, err := s.Begin(t.Context(), queries)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func end(t *testing.T, s push.Store, results ...push.Result) []push.Guard {
	t.Helper()
	g, err := s.End(t.Context(), results)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func compare(t *testing.T, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(push.Finding{})); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// cases are what every backend must do. a and b are two processes that share
// it.
var cases = map[string]func(t *testing.T, a, b push.Store){
	"a claim belongs to one request until it ends": func(t *testing.T, a, b push.Store) {
		q := query("$1", 1)
		compare(t, "the first", begin(t, a, q), []push.Finding{{}})
		compare(t, "the first again", begin(t, a, q), []push.Finding{{}})
		compare(t, "another", begin(t, b, query("$1", 1<<63)), []push.Finding{{State: push.InFlight, Owner: 1}})
		compare(t, "another event", begin(t, b, query("$2", 2)), []push.Finding{{}})
		end(t, a, push.Result{Query: q, Held: true, Done: true, Counts: 1<<32 - 1})
		compare(t, "after it was delivered", begin(t, b, query("$1", 2)), []push.Finding{{State: push.Delivered, Counts: 1<<32 - 1}})
		end(t, b, push.Result{Query: query("$1", 2), Done: true, Counts: 7})
		compare(t, "after other counts", begin(t, a, query("$1", 3)), []push.Finding{{State: push.Delivered, Counts: 7}})
	},
	"a failure is reported to who waits and frees the event": func(t *testing.T, a, b push.Store) {
		first, waiter := query("$1", 1<<64-1), query("$1", 2)
		begin(t, a, first)
		waiter.Awaited = begin(t, b, waiter)[0].Owner
		outcome := push.Outcome{Kind: push.Temporary, Reason: push.ReasonUnavailable, RetryAfter: 90 * time.Second}
		sent := outcome
		sent.Status, sent.Detail = 503, "ServiceUnavailable"
		end(t, a, push.Result{Query: first, Held: true, Outcome: sent})
		for range 2 {
			compare(t, "the waiting request", begin(t, b, waiter), []push.Finding{{State: push.Ended, Outcome: outcome}})
		}
		compare(t, "a later one", begin(t, a, query("$1", 3)), []push.Finding{{}})
		compare(t, "the waiting one, if it is slow", begin(t, b, waiter), []push.Finding{{State: push.InFlight, Owner: 3}})
	},
	"a failure nobody waits for frees the event": func(t *testing.T, a, b push.Store) {
		begin(t, a, query("$1", 1))
		end(t, a, push.Result{Query: query("$1", 1), Held: true, Outcome: push.Outcome{Kind: push.Temporary}})
		compare(t, "the next", begin(t, b, query("$1", 2)), []push.Finding{{}})
	},
	"only the owner ends a claim": func(t *testing.T, a, b push.Store) {
		begin(t, a, query("$1", 1))
		end(t, b, push.Result{Query: query("$1", 2), Held: true})
		end(t, b, push.Result{Query: query("$1", 1)})
		compare(t, "another", begin(t, b, query("$1", 3)), []push.Finding{{State: push.InFlight, Owner: 1}})
	},
	"notifications without an event are not claimed": func(t *testing.T, a, b push.Store) {
		begin(t, a, query("", 1))
		end(t, a, push.Result{Query: query("", 1), Done: true})
		compare(t, "another", begin(t, b, query("", 2)), []push.Finding{{}})
	},
	"a dead pushkey is remembered": func(t *testing.T, a, b push.Store) {
		r := push.Rejection{Known: true, PushKeyTS: 1795294577, Trips: 3}
		end(t, a, push.Result{Query: query("", 1), Rejection: r})
		compare(t, "the pushkey", begin(t, b, query("$1", 2)), []push.Finding{{Rejection: r}})
		other := query("$1", 2)
		other.PushKey = key("other")
		compare(t, "another pushkey", begin(t, b, other)[0].Rejection, push.Rejection{})
		newer := push.Rejection{Known: true, PushKeyTS: 1795294578}
		end(t, a, push.Result{Query: query("", 1), Rejection: newer})
		compare(t, "the pushkey after another rejection", begin(t, b, query("", 2))[0].Rejection, newer)
	},
	"many devices at once, in order": func(t *testing.T, a, b push.Store) {
		var queries []push.Query
		var results []push.Result
		for i := range 100 {
			q := query("$1", 1)
			q.Event, q.PushKey, q.App = key(string(rune('A'+i))), key(string(rune('a'+i))), key([]string{"x", "y"}[i%2])
			queries = append(queries, q)
			results = append(results, push.Result{Query: q, Held: true, Done: true, Counts: uint32(i), Verdict: push.Verdict(1 + i%2)})
		}
		compare(t, "findings", begin(t, a, queries...), make([]push.Finding, 100))
		guards := end(t, a, results...)
		compare(t, "an app all of whose pushes were accepted", guards[98], push.Guard{Proven: true})
		compare(t, "an app none of whose were", guards[99], push.Guard{Tripped: true, Trips: 1})
		for i, f := range begin(t, b, queries...) {
			compare(t, "afterwards", f, push.Finding{State: push.Delivered, Counts: uint32(i), Guard: guards[98+i%2]})
		}
	},
	"the guard trips and recovers for all": func(t *testing.T, a, b push.Store) {
		verdict := func(s push.Store, v push.Verdict) push.Guard {
			return end(t, s, push.Result{Query: query("", 1), Verdict: v})[0]
		}
		compare(t, "nothing known", begin(t, a, query("", 1))[0].Guard, push.Guard{})
		compare(t, "no verdict", verdict(a, push.NoVerdict), push.Guard{})
		compare(t, "a dead one", verdict(a, push.Dead), push.Guard{})
		compare(t, "a good one", verdict(b, push.Alive), push.Guard{Proven: true})
		for range 23 {
			verdict(a, push.Alive)
		}
		for range 24 {
			compare(t, "up to half are dead", verdict(a, push.Dead), push.Guard{Proven: true})
		}
		compare(t, "the fiftieth makes more than half", verdict(a, push.Dead), push.Guard{Proven: true, Tripped: true, Trips: 1})
		compare(t, "the other one sees it", begin(t, b, query("", 1))[0].Guard, push.Guard{Proven: true, Tripped: true, Trips: 1})
		for range 30 {
			compare(t, "one round is mostly dead", verdict(b, push.Dead), push.Guard{Proven: true, Tripped: true, Trips: 1})
		}
		for range 20 + 49 {
			compare(t, "the next is not over", verdict(b, push.Alive), push.Guard{Proven: true, Tripped: true, Trips: 1})
		}
		compare(t, "a good round", verdict(b, push.Alive), push.Guard{Proven: true, Trips: 1})
		compare(t, "the first one sees it", begin(t, a, query("", 1))[0].Guard, push.Guard{Proven: true, Trips: 1})
		for range 49 {
			verdict(a, push.Dead)
		}
		compare(t, "it trips again", verdict(a, push.Dead), push.Guard{Proven: true, Tripped: true, Trips: 2})
	},
	"a pause is for all with the same quota until it ends": func(t *testing.T, a, b push.Store) {
		pausing := func(s push.Store, quota string) time.Duration {
			q := query("", 1)
			q.Quota = key(quota)
			return begin(t, s, q)[0].Pause
		}
		q := query("$1", 1)
		q.Quota = key("project")
		begin(t, a, q)
		if p := pausing(b, "project"); p != 0 {
			t.Errorf("%s before anybody asked for a pause", p)
		}
		end(t, a, push.Result{Query: q, Held: true, Outcome: push.Outcome{Kind: push.Temporary}, Pause: time.Minute})
		for range 2 {
			if p := pausing(b, "project"); p <= 50*time.Second || p > time.Minute {
				t.Errorf("%s of a pause of a minute", p)
			}
		}
		if p := pausing(b, "another"); p != 0 {
			t.Errorf("%s of another quota's pause", p)
		}
		end(t, b, push.Result{Query: q, Pause: time.Hour})
		if p := pausing(a, "project"); p <= 59*time.Minute || p > time.Hour {
			t.Errorf("%s after the other one made it an hour", p)
		}
		end(t, a, push.Result{Query: q, Resume: true})
		if p := pausing(b, "project"); p != 0 {
			t.Errorf("%s of a pause that was ended", p)
		}
	},
	"good verdicts that wait are counted with the next bad one": func(t *testing.T, a, b push.Store) {
		for range 60 { // Redis is told of the first, and of the others within a second
			end(t, a, push.Result{Query: query("", 1), Verdict: push.Alive})
		}
		for range 60 {
			compare(t, "as many dead as alive", end(t, a, push.Result{Query: query("", 1), Verdict: push.Dead})[0], push.Guard{Proven: true})
		}
		compare(t, "one more", end(t, b, push.Result{Query: query("", 1), Verdict: push.Dead})[0], push.Guard{Proven: true, Tripped: true, Trips: 1})
	},
}

func TestStores(t *testing.T) {
	t.Parallel()
	terms := push.DefaultTerms()
	terms.GuardPushes = 50
	for backend, start := range backends {
		for name, run := range cases {
			t.Run(backend+"/"+name, func(t *testing.T) {
				t.Parallel()
				open := start(t)
				run(t, open(terms), open(terms))
			})
		}
	}
}
