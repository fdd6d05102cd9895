// Package dedup keeps an event from reaching a device twice, remembers dead
// pushkeys, and counts them, because a push service that calls most pushkeys dead
// is not believed. It keeps this in the process's memory, or for several processes
// in Redis. It sends nothing; package push decides what follows from its answers.
package dedup

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/matrix-herald/herald/push"
)

// Options say how much is remembered, and for how long. Zero times are the
// defaults, which suit the known homeservers.
type Options struct {
	// Events bounds the delivered events that a process remembers by itself, of
	// some 60 bytes each. Pushkeys that have had an accepted push are remembered
	// half as many, and dead ones a quarter.
	Events int
	// NoGuard believes push services whatever they call dead.
	NoGuard bool
	// Lifetime is how long a delivered event is remembered after it was last
	// asked about: 2 h, because Synapse tries again at least once an hour.
	Lifetime time.Duration
	// RejectionLifetime is how long a dead pushkey is remembered: a day.
	RejectionLifetime time.Duration
	// AcceptedLifetime is how long it is remembered that a pushkey has had an
	// accepted push: a week.
	AcceptedLifetime time.Duration
	// Round is how many verdicts it takes to judge a push service: 100. It is not
	// believed if more than half of them are "dead", until a whole round is better.
	Round int
}

// Bounds of Options.Events.
const (
	DefaultEvents = 1_000_000 // two hours of 140 notifications a second
	MinEvents     = 1000
)

func (o Options) withDefaults() (Options, error) {
	if o.Events < MinEvents {
		return o, errors.New("remembered events: too few")
	}
	o.Lifetime = cmp.Or(o.Lifetime, 2*time.Hour)
	o.RejectionLifetime = cmp.Or(o.RejectionLifetime, 24*time.Hour)
	o.AcceptedLifetime = cmp.Or(o.AcceptedLifetime, 7*24*time.Hour)
	o.Round = cmp.Or(o.Round, 100)
	return o, nil
}

// guard is how an app's pushkeys of one kind have fared: those that have had an
// accepted push, or all others.
type guard struct {
	all, dead int // verdicts of the round
	tripped   bool
	trips     uint32
}

// settled returns the guard after its round, if that is full. A whole round
// decides, so that one good push in an outage does not.
func (g guard) settled(round int) guard {
	if g.all < round {
		return g
	}
	many := 2*g.dead > g.all
	if many && !g.tripped {
		g.trips++
	}
	return guard{tripped: many, trips: g.trips}
}

const shardCount = 16

// Memory is a push.Dedup in the process's own memory. It is bounded: when it is
// full it forgets the oldest half. Claims are bounded by what is in flight.
type Memory struct {
	opts   Options
	shards [shardCount]shard

	mu   sync.Mutex
	apps map[push.Key]*app // as many as were ever configured
}

// app is what is known of an app's settings.
type app struct {
	proven         bool
	accepted, rest guard
}

func (a *app) guard(accepted bool) *guard {
	if accepted {
		return &a.accepted
	}
	return &a.rest
}

// shard is the part of a Memory that one lock guards.
type shard struct {
	mu        sync.Mutex
	claims    map[push.Key]claim
	delivered generations[delivered]
	accepted  generations[accepted]
	rejected  generations[rejected]
}

// claim is a notification that a request has on its way to a device.
type claim struct {
	owner   uint64
	expires time.Time
}

// These are small: there are a million of them. Their expiry is in seconds since
// the epoch.
type (
	delivered struct{ counts, expires uint32 }
	accepted  struct{ expires uint32 }
	rejected  struct {
		pushKeyTS      int64
		trips, expires uint32
		believed       bool
		accepted       bool // its guard
	}
)

func (v delivered) expiry() uint32 { return v.expires }
func (v accepted) expiry() uint32  { return v.expires }
func (v rejected) expiry() uint32  { return v.expires }

// NewMemory returns an empty Memory.
func NewMemory(opts Options) (*Memory, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	m := &Memory{opts: opts, apps: make(map[push.Key]*app)}
	for i := range m.shards {
		s := &m.shards[i]
		s.claims = make(map[push.Key]claim)
		s.delivered = newGenerations[delivered](opts.Lifetime, opts.Events/shardCount)
		s.accepted = newGenerations[accepted](opts.AcceptedLifetime, opts.Events/shardCount/2)
		s.rejected = newGenerations[rejected](opts.RejectionLifetime, opts.Events/shardCount/4)
	}
	return m, nil
}

func (m *Memory) shard(k push.Key) *shard { return &m.shards[k[0]%shardCount] }

// Len returns how many notifications it remembers, on their way or delivered,
// and how many pushkeys. Some may have expired.
func (m *Memory) Len() (events, pushKeys int) {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		events += len(s.claims) + s.delivered.len()
		pushKeys += s.accepted.len() + s.rejected.len()
		s.mu.Unlock()
	}
	return events, pushKeys
}

// Claim implements push.Dedup.
func (m *Memory) Claim(_ context.Context, claims []push.Claim) []push.Claimed {
	now := time.Now()
	answers := make([]push.Claimed, len(claims))
	for i := range claims {
		c, a := &claims[i], &answers[i]
		if c.Event != (push.Key{}) {
			a.State, a.Counts = m.shard(c.Event).claim(c, now, m.opts.Lifetime)
		}
		isAccepted, r, known := m.shard(c.PushKey).pushKey(c.PushKey, now)
		a.Accepted = isAccepted
		m.mu.Lock()
		app := m.app(c.App)
		a.Guard = answer(app.proven, *app.guard(a.Accepted), m.opts)
		a.Dead, a.Rejected = known, known && r.believed && r.trips == app.guard(r.accepted).trips
		m.mu.Unlock()
		if a.Rejected {
			a.PushKeyTS = r.pushKeyTS
		}
	}
	return answers
}

// app returns what is known of an app, with mu held.
func (m *Memory) app(k push.Key) *app {
	a := m.apps[k]
	if a == nil {
		a = new(app)
		m.apps[k] = a
	}
	return a
}

// Complete implements push.Dedup.
func (m *Memory) Complete(_ context.Context, results []push.Result) []push.Guard {
	now := time.Now()
	guards := make([]push.Guard, len(results))
	for i := range results {
		r := &results[i]
		if r.Event != (push.Key{}) {
			m.shard(r.Event).complete(r, now, m.opts.Lifetime)
		}
		if r.Verdict != push.NoVerdict {
			m.shard(r.PushKey).settle(r, now, m.opts)
		}
		m.mu.Lock()
		a := m.app(r.App)
		if g := a.guard(r.Accepted); counts(r) {
			a.proven = a.proven || r.Verdict == push.Alive
			g.all++
			if r.Verdict == push.Dead {
				g.dead++
			}
			*g = g.settled(m.opts.Round)
		}
		guards[i] = answer(a.proven, *a.guard(r.Accepted), m.opts)
		m.mu.Unlock()
	}
	return guards
}

func (s *shard) claim(c *push.Claim, now time.Time, lifetime time.Duration) (push.ClaimState, uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(now)
	if d, ok := s.delivered.get(c.Event, now); ok {
		s.delivered.put(c.Event, delivered{d.counts, expiry(now, lifetime)})
		return push.Delivered, d.counts
	}
	if other, ok := s.claims[c.Event]; ok && other.owner != c.Owner && !now.After(other.expires) {
		return push.InFlight, 0
	}
	s.claims[c.Event] = claim{owner: c.Owner, expires: now.Add(c.Lease)}
	return push.Granted, 0
}

func (s *shard) complete(r *push.Result, now time.Time, lifetime time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Sent {
		s.delivered.put(r.Event, delivered{r.SentCounts, expiry(now, lifetime)})
	}
	if s.claims[r.Event].owner == r.Owner {
		delete(s.claims, r.Event)
	}
}

// forget forgets what has had its time.
func (s *shard) forget(now time.Time) {
	if !s.delivered.turn(now) {
		return
	}
	for event, c := range s.claims { // whose end was never recorded
		if now.After(c.expires) {
			delete(s.claims, event)
		}
	}
}

func (s *shard) pushKey(k push.Key, now time.Time) (isAccepted bool, r rejected, isRejected bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, isAccepted = s.accepted.get(k, now)
	r, isRejected = s.rejected.get(k, now)
	return isAccepted, r, isRejected
}

// counts reports whether the verdict of a result counts for the guard.
func counts(r *push.Result) bool {
	return r.App != push.Key{} && (r.Verdict == push.Alive || r.Verdict == push.Dead && !r.Dead)
}

// settle notes that a pushkey is alive or dead.
func (s *shard) settle(r *push.Result, now time.Time, opts Options) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Verdict == push.Dead {
		s.rejected.turn(now)
		s.rejected.put(r.PushKey, rejected{r.RejectedTS, r.Guard.Trips, expiry(now, opts.RejectionLifetime), r.Reject, r.Accepted})
		return
	}
	s.accepted.turn(now)
	s.accepted.put(r.PushKey, accepted{expiry(now, opts.AcceptedLifetime)})
	s.rejected.remove(r.PushKey)
}

// generations is a bounded map whose entries expire. New entries go into the
// young map; when that has its half of the bound, or has been young for an
// entry's lifetime, it becomes the old one and the former old one is dropped
// as a whole, which costs nothing for each entry.
type generations[V interface{ expiry() uint32 }] struct {
	young, old map[push.Key]V
	half       int
	lifetime   time.Duration
	turned     time.Time
}

func newGenerations[V interface{ expiry() uint32 }](lifetime time.Duration, bound int) generations[V] {
	return generations[V]{young: make(map[push.Key]V), half: max(1, bound/2), lifetime: lifetime + time.Second}
}

func (g *generations[V]) len() int { return len(g.young) + len(g.old) }

// turn makes the young generation the old one if it is its time.
func (g *generations[V]) turn(now time.Time) bool {
	if len(g.young) < g.half && now.Sub(g.turned) < g.lifetime {
		return false
	}
	g.old, g.young, g.turned = g.young, make(map[push.Key]V), now
	return true
}

func (g *generations[V]) get(k push.Key, now time.Time) (V, bool) {
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

func (g *generations[V]) put(k push.Key, v V) {
	delete(g.old, k)
	g.young[k] = v
}

func (g *generations[V]) remove(k push.Key) {
	delete(g.old, k)
	delete(g.young, k)
}

// expiry is when something expires that is to live that long, in whole seconds
// since the epoch, rounded up.
func expiry(now time.Time, lifetime time.Duration) uint32 {
	return uint32(now.Add(lifetime + time.Second).Unix())
}
