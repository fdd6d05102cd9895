package push

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Bounds of a Memory.
const (
	// DefaultMemoryEvents is the default of NewMemory's events: two hours of
	// 140 notifications a second.
	DefaultMemoryEvents = 1_000_000
	// MinMemoryEvents is the smallest bound that NewMemory takes.
	MinMemoryEvents = 1000

	memoryShards = 16
)

// Memory is a Ledger in the process's own memory. It is bounded: when it is
// full it forgets the oldest half. Claims are bounded by what is in flight.
type Memory struct {
	terms  Terms
	shards [memoryShards]shard

	mu      sync.RWMutex
	tallies map[Key]*tally    // by app
	pauses  map[Key]time.Time // when they end, by quota
}

// shard is the part of a Memory that one lock guards.
type shard struct {
	mu        sync.Mutex
	delivered generations[delivered]
	rejected  generations[rejected]
	claims    map[Key]*claim
	// ended are the claims that have ended and are kept for requests that
	// wait, the oldest first.
	ended []ended
}

// claim is a notification that a request has on its way to a device.
type claim struct {
	owner   uint64
	expires time.Time
	waited  bool // by another request
	ended   bool
	outcome Outcome
}

type ended struct {
	event Key
	claim *claim
}

// delivered and rejected are small: there are a million of them. Their expiry
// is in seconds since the epoch.
type delivered struct{ counts, expires uint32 }

func (v delivered) expiry() uint32 { return v.expires }

type rejected struct {
	pushKeyTS      int64
	trips, expires uint32
}

func (v rejected) expiry() uint32 { return v.expires }

// NewMemory returns an empty Memory that holds at most that many delivered
// notifications, and a quarter as many dead pushkeys.
func NewMemory(terms Terms, events int) (*Memory, error) {
	if err := terms.Check(); err != nil {
		return nil, err
	}
	if events < MinMemoryEvents {
		return nil, errors.New("remembered events: too few")
	}
	m := &Memory{terms: terms, tallies: make(map[Key]*tally), pauses: make(map[Key]time.Time)}
	for i := range m.shards {
		s := &m.shards[i]
		s.claims = make(map[Key]*claim)
		s.delivered = newGenerations[delivered](terms.Lifetime, events/memoryShards)
		s.rejected = newGenerations[rejected](terms.RejectionLifetime, events/memoryShards/4)
	}
	return m, nil
}

func (m *Memory) shard(k Key) *shard { return &m.shards[k[0]%memoryShards] }

// Len returns how many notifications it remembers, on their way or delivered,
// and how many dead pushkeys. Some may have expired.
func (m *Memory) Len() (events, rejections int) {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		events += len(s.claims) + s.delivered.len()
		rejections += s.rejected.len()
		s.mu.Unlock()
	}
	return events, rejections
}

// Begin implements Ledger.
func (m *Memory) Begin(_ context.Context, queries []Query) []Finding {
	now := time.Now()
	findings := make([]Finding, len(queries))
	for i := range queries {
		q, f := &queries[i], &findings[i]
		if q.Event != (Key{}) {
			m.shard(q.Event).begin(q, f, now, m.terms.Lifetime)
		}
		f.Rejection = m.shard(q.PushKey).rejection(q.PushKey, now)
		f.Guard = m.tally(q.App).read()
		f.Pause = m.pause(q.Quota, now)
	}
	return findings
}

// End implements Ledger.
func (m *Memory) End(_ context.Context, results []Result) []Guard {
	now := time.Now()
	guards := make([]Guard, len(results))
	for i := range results {
		r := &results[i]
		if r.Event != (Key{}) {
			m.shard(r.Event).end(r, now, m.terms.Lifetime)
		}
		if r.Rejection.Known {
			m.shard(r.PushKey).reject(r.PushKey, r.Rejection, now, m.terms.RejectionLifetime)
		}
		guards[i] = m.tally(r.App).add(r.Verdict, now, &m.terms)
		if r.Pause > 0 || r.Resume {
			m.setPause(r.Quota, r.Pause, now)
		}
	}
	return guards
}

// abandon gives a claim of the query back as if it had never been.
func (m *Memory) abandon(q *Query) {
	s := m.shard(q.Event)
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.claims[q.Event]; c != nil && c.owner == q.Owner && !c.ended {
		delete(s.claims, q.Event)
	}
}

func (m *Memory) tally(app Key) *tally {
	m.mu.RLock()
	t := m.tallies[app]
	m.mu.RUnlock()
	if t != nil {
		return t
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.tallies[app] == nil {
		m.tallies[app] = new(tally)
	}
	return m.tallies[app]
}

// pause returns what is left of a quota's pause.
func (m *Memory) pause(quota Key, now time.Time) time.Duration {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return max(0, m.pauses[quota].Sub(now))
}

// setPause begins or ends a pause. There are as many as quotas were configured.
func (m *Memory) setPause(quota Key, length time.Duration, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if length > 0 {
		m.pauses[quota] = now.Add(length)
	} else {
		delete(m.pauses, quota)
	}
}

func (s *shard) begin(q *Query, f *Finding, now time.Time, lifetime time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(now)
	if d, ok := s.delivered.get(q.Event, now); ok {
		s.delivered.put(q.Event, delivered{d.counts, expiry(now, lifetime)})
		f.State, f.Counts = Delivered, d.counts
		return
	}
	c := s.claims[q.Event]
	switch {
	case c == nil || now.After(c.expires):
	case c.owner == q.Owner:
		return
	case !c.ended:
		c.waited = true
		f.State, f.Owner = InFlight, c.owner
		return
	case c.owner == q.Awaited:
		f.State, f.Outcome = Ended, c.outcome
		return
	}
	s.claims[q.Event] = &claim{owner: q.Owner, expires: now.Add(q.Lease)}
}

func (s *shard) end(r *Result, now time.Time, lifetime time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(now)
	if r.Done {
		s.delivered.put(r.Event, delivered{r.Counts, expiry(now, lifetime)})
	}
	c := s.claims[r.Event]
	if !r.Held || c == nil || c.owner != r.Owner {
		return
	}
	if r.Done || !c.waited {
		delete(s.claims, r.Event)
		return
	}
	c.ended, c.expires = true, now.Add(EndedLifetime)
	c.outcome = Outcome{Kind: r.Outcome.Kind, Reason: r.Outcome.Reason, RetryAfter: r.Outcome.RetryAfter}
	s.ended = append(s.ended, ended{r.Event, c})
}

// forget forgets what has had its time.
func (s *shard) forget(now time.Time) {
	for len(s.ended) > 0 && now.After(s.ended[0].claim.expires) {
		if first := s.ended[0]; s.claims[first.event] == first.claim {
			delete(s.claims, first.event)
		}
		s.ended = s.ended[1:]
	}
	if !s.delivered.turn(now) {
		return
	}
	for event, c := range s.claims { // whose end was never recorded
		if now.After(c.expires) {
			delete(s.claims, event)
		}
	}
}

func (s *shard) rejection(pushKey Key, now time.Time) Rejection {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.rejected.get(pushKey, now)
	return Rejection{Known: ok, PushKeyTS: r.pushKeyTS, Trips: r.trips}
}

func (s *shard) reject(pushKey Key, r Rejection, now time.Time, lifetime time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rejected.turn(now)
	s.rejected.put(pushKey, rejected{r.PushKeyTS, r.Trips, expiry(now, lifetime)})
}

// generations is a bounded map whose entries expire. New entries go into the
// young map; when that has its half of the bound, or has been young for an
// entry's lifetime, it becomes the old one and the former old one is dropped
// as a whole, which costs nothing for each entry.
type generations[V interface{ expiry() uint32 }] struct {
	young, old map[Key]V
	half       int
	lifetime   time.Duration
	turned     time.Time
}

func newGenerations[V interface{ expiry() uint32 }](lifetime time.Duration, bound int) generations[V] {
	return generations[V]{young: make(map[Key]V), half: max(1, bound/2), lifetime: lifetime + time.Second}
}

func (g *generations[V]) len() int { return len(g.young) + len(g.old) }

// turn makes the young generation the old one if it is its time.
func (g *generations[V]) turn(now time.Time) bool {
	if len(g.young) < g.half && now.Sub(g.turned) < g.lifetime {
		return false
	}
	g.old, g.young, g.turned = g.young, make(map[Key]V), now
	return true
}

func (g *generations[V]) get(k Key, now time.Time) (V, bool) {
	v, ok := g.young[k]
	if !ok {
		v, ok = g.old[k]
	}
	if !ok || int64(v.expiry()) <= now.Unix() {
		var none V
		return none, false
	}
	return v, true
}

func (g *generations[V]) put(k Key, v V) {
	delete(g.old, k)
	g.young[k] = v
}

// expiry is when something expires that is to live that long, in whole seconds
// since the epoch, rounded up.
func expiry(now time.Time, lifetime time.Duration) uint32 {
	return uint32(now.Add(lifetime + time.Second).Unix())
}
