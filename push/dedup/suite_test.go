package dedup_test

import (
	"crypto/sha256"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/matrix-herald/herald/internal/redisconn"
	"github.com/matrix-herald/herald/internal/redisconn/redistest"
	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/dedup"
)

// round is that of the suite's guards.
const round = 10

func newMemory(t testing.TB) *dedup.Memory {
	t.Helper()
	m, err := dedup.NewMemory(dedup.Options{Events: dedup.MinEvents, Round: round})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// sharing makes processes that share the Redis of a configuration.
func sharing(t testing.TB, cfg redisconn.Config) func() push.Dedup {
	return func() push.Dedup {
		conn, _ := redistest.Connect(t, cfg, io.Discard)
		return dedup.NewRedis(conn, newMemory(t))
	}
}

// backends are all there is to remember in. open may be called several times;
// what it returns shares one memory.
var backends = map[string]func(t *testing.T) (open func() push.Dedup){
	"memory": func(t *testing.T) func() push.Dedup {
		m := newMemory(t)
		return func() push.Dedup { return m }
	},
	"miniredis": func(t *testing.T) func() push.Dedup { return sharing(t, redistest.Config(miniredis.RunT(t).Addr())) },
	"Redis":     func(t *testing.T) func() push.Dedup { return sharing(t, redistest.Shared(t)) },
}

func key(name string) push.Key {
	sum := sha256.Sum256([]byte(name))
	return push.Key(sum[:16])
}

// process is one process of several that share what they remember.
type process struct {
	t *testing.T
	d push.Dedup
}

func (p process) claim(event, pushKey string, owner uint64) (push.Claim, push.Claimed) {
	c := push.Claim{Owner: owner, Lease: time.Minute, PushKey: key(pushKey), App: key("app")}
	if event != "" {
		c.Event = key(event)
	}
	return c, p.d.Claim(p.t.Context(), []push.Claim{c})[0]
}

func (p process) expect(what, event, pushKey string, owner uint64, want push.Claimed) {
	p.t.Helper()
	_, got := p.claim(event, pushKey, owner)
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(push.Claimed{}, "Shared", "Guard")); diff != "" {
		p.t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// end claims and completes, and returns how far the app is believed then.
func (p process) end(event, pushKey string, owner uint64, change func(*push.Result)) push.Guard {
	c, claimed := p.claim(event, pushKey, owner)
	r := push.Result{Claim: c, Claimed: claimed}
	change(&r)
	return p.d.Complete(p.t.Context(), []push.Result{r})[0]
}

func sent(r *push.Result) { r.Sent, r.SentCounts, r.Verdict = true, 7, push.Alive }
func failed(*push.Result) {}
func dead(ts int64) func(*push.Result) {
	return func(r *push.Result) { r.Verdict, r.Reject, r.RejectedTS = push.Dead, true, ts }
}

var cases = map[string]func(t *testing.T, a, b process){
	"what one has claimed another waits for": func(_ *testing.T, a, b process) {
		a.expect("a new one", "e", "k", 1, push.Claimed{})
		b.expect("another process", "e", "k", 2, push.Claimed{State: push.InFlight})
		a.expect("another request of the process", "e", "k", 3, push.Claimed{State: push.InFlight})
		a.expect("the same request again", "e", "k", 1, push.Claimed{})
		b.expect("another event", "f", "k", 2, push.Claimed{})
	},
	"what was sent is delivered, with its counts": func(_ *testing.T, a, b process) {
		a.end("e", "k", 1, sent)
		b.expect("another process", "e", "k", 2, push.Claimed{State: push.Delivered, Counts: 7, Accepted: true})
		b.end("e", "k", 2, func(r *push.Result) { r.Sent, r.SentCounts, r.Verdict = true, 8, push.Alive })
		b.expect("the counts of the update", "e", "k", 3, push.Claimed{State: push.Delivered, Counts: 8, Accepted: true})
	},
	"verdicts without an app count for no guard": func(t *testing.T, a, b process) {
		end := func(p process, pushKey string, change func(*push.Result)) push.Guard {
			c, claimed := p.claim("", pushKey, 1)
			c.App = push.Key{}
			r := push.Result{Claim: c, Claimed: claimed}
			change(&r)
			return p.d.Complete(t.Context(), []push.Result{r})[0]
		}
		for i := range 2 * round {
			change := dead(1)
			if i == 0 {
				change = sent
			}
			if got := end(a, fmt.Sprint("k", i), change); got != (push.Guard{}) {
				t.Errorf("after %d verdicts: %+v", i+1, got)
			}
		}
		c := push.Claim{Owner: 2, Lease: time.Minute, PushKey: key("k3")}
		if got := b.d.Claim(t.Context(), []push.Claim{c})[0]; !got.Rejected || got.Guard != (push.Guard{}) {
			t.Errorf("a dead pushkey is remembered as %+v", got)
		}
	},
	"what failed is the next one's": func(_ *testing.T, a, b process) {
		a.end("e", "k", 1, failed)
		b.expect("another process", "e", "k", 2, push.Claimed{})
		a.expect("is waited for", "e", "k", 3, push.Claimed{State: push.InFlight})
		b.end("e", "k", 2, failed)
		a.expect("takes over", "e", "k", 3, push.Claimed{})
	},
	"who waited in vain leaves nothing behind": func(_ *testing.T, a, b process) {
		a.claim("e", "k", 1)
		b.end("e", "k", 2, failed) // its time was over
		b.expect("the first still has it", "e", "k", 3, push.Claimed{State: push.InFlight})
		a.end("e", "k", 1, failed)
		b.expect("takes over", "e", "k", 3, push.Claimed{})
	},
	"a claim is a lease": func(t *testing.T, a, b process) {
		c := push.Claim{Event: key("e"), Owner: 1, Lease: 50 * time.Millisecond, PushKey: key("k"), App: key("app")}
		a.d.Claim(t.Context(), []push.Claim{c})
		if _, isMemory := a.d.(*dedup.Memory); !isMemory {
			return // miniredis has a clock of its own, and Redis is believed
		}
		<-time.After(60 * time.Millisecond)
		b.expect("after it", "e", "k", 2, push.Claimed{})
	},
	"without an event everybody may send": func(_ *testing.T, a, b process) {
		a.expect("one", "", "k", 1, push.Claimed{})
		b.expect("another", "", "k", 2, push.Claimed{})
		a.end("", "k", 1, sent)
		b.expect("afterwards", "", "k", 2, push.Claimed{Accepted: true})
	},
	"a dead pushkey is remembered until it has a push": func(_ *testing.T, a, b process) {
		a.end("e", "k", 1, dead(5))
		b.expect("another event", "f", "k", 2, push.Claimed{Dead: true, Rejected: true, PushKeyTS: 5})
		b.expect("another pushkey", "f", "l", 2, push.Claimed{})
		b.end("f", "k", 2, sent)
		a.expect("alive again", "g", "k", 3, push.Claimed{Accepted: true})
	},
	"what was not believed counts once": func(_ *testing.T, a, b process) {
		a.end("e", "k", 1, sent)
		a.end("f", "k", 1, func(r *push.Result) { r.Verdict = push.Dead })
		a.expect("is no rejection", "g", "k", 1, push.Claimed{Accepted: true, Dead: true})
		for i := range 2 * round {
			b.end(fmt.Sprint(i), "k", 2, func(r *push.Result) { r.Verdict = push.Dead })
		}
		_, claimed := a.claim("h", "k", 3)
		if claimed.Guard.Tripped {
			b.t.Error("one pushkey trips the guard")
		}
	},
	"a round decides for all": func(t *testing.T, a, b process) {
		for i := range 2 * round {
			if g := a.end("e", fmt.Sprint("phone", i), 1, sent); !g.Proven || g.Tripped {
				t.Fatalf("%+v after good pushes", g)
			}
		}
		if _, claimed := b.claim("proven", "phone", 2); !claimed.Guard.Proven {
			t.Error("who has had no push accepted does not know of the others'")
		}
		for i := range 3 {
			b.end("f", fmt.Sprint("phone", i), 2, sent)
		}
		b.end("f", "phone3", 2, dead(1)) // to be forgotten
		for i := range 5 {
			if g := b.end("f", fmt.Sprint("phone", 4+i), 2, dead(1)); g.Tripped {
				t.Fatalf("tripped by %d dead of %d", i+2, i+5)
			}
		}
		if g := a.end("f", "phone9", 1, dead(1)); !g.Tripped || g.Trips != 1 {
			t.Errorf("not tripped by seven dead of ten: %+v", g)
		}
		b.expect("a rejection of before", "g", "phone3", 3, push.Claimed{Accepted: true, Dead: true})
		// Others are judged by themselves.
		if g := b.end("f", "made up", 2, dead(1)); g.Tripped {
			t.Error("pushkeys that never had a push are not believed either")
		}
		for i := range round {
			_, claimed := b.claim("h", "phone15", uint64(100+i))
			if !claimed.Guard.Tripped {
				t.Fatalf("believed after %d good pushes", i)
			}
			a.end(fmt.Sprint("good", i), fmt.Sprint("phone", 10+i), 1, sent)
		}
		if _, claimed := b.claim("h", "phone15", 200); claimed.Guard.Tripped {
			t.Error("not believed after a good round")
		}
		a.end("i", "phone11", 1, dead(1))
		b.expect("a rejection of now", "j", "phone11", 3, push.Claimed{Accepted: true, Dead: true, Rejected: true, PushKeyTS: 1})
	},
	"a hundred devices are one call": func(t *testing.T, a, b process) {
		var claims []push.Claim
		var results []push.Result
		for i := range 100 {
			claims = append(claims, push.Claim{Event: key(fmt.Sprint(i)), Owner: 1, Lease: time.Minute, PushKey: key(fmt.Sprint("k", i)), App: key(fmt.Sprint("app", i%3))})
		}
		for i, c := range a.d.Claim(t.Context(), claims) {
			r := push.Result{Claim: claims[i], Claimed: c}
			if i%2 == 0 {
				sent(&r)
			}
			results = append(results, r)
		}
		a.d.Complete(t.Context(), results)
		for i := range claims {
			claims[i].Owner = 2
		}
		for i, c := range b.d.Claim(t.Context(), claims) {
			if (c.State == push.Delivered) != (i%2 == 0) || c.State == push.InFlight {
				t.Errorf("device %d: %+v", i, c)
			}
		}
	},
}

func TestBackends(t *testing.T) {
	t.Parallel()
	for backend, start := range backends {
		for name, run := range cases {
			t.Run(backend+"/"+name, func(t *testing.T) {
				t.Parallel()
				open := start(t)
				run(t, process{t, open()}, process{t, open()})
			})
		}
	}
}

// The keys of one request are on several nodes of a Cluster.
func TestCluster(t *testing.T) {
	t.Parallel()
	cfg, nodes := redistest.StartCluster(t)
	for name, run := range cases {
		t.Run(name, func(t *testing.T) {
			own := cfg
			own.KeyPrefix = fmt.Sprintf("%s%x:", cfg.KeyPrefix, name)
			open := sharing(t, own)
			run(t, process{t, open()}, process{t, open()})
		})
	}
	for i, c := range nodes {
		if n := c.DBSize(t.Context()).Val(); n == 0 {
			t.Errorf("node %d holds no key", i)
		}
	}
}
