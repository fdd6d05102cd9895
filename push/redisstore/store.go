package redisstore

import (
	"context"
	"encoding/base64"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/matrix-herald/herald/internal/redisconn"
	"github.com/matrix-herald/herald/push"
)

const (
	// guardLifetime is how long it is remembered that an app's settings have
	// worked, after they last did.
	guardLifetime = 30 * 24 * time.Hour
	// tallyInterval is how often good verdicts are told to Redis. Others are at
	// once, with the good ones before them.
	tallyInterval = time.Second
)

// Store is a push.Store in Redis.
type Store struct {
	client  redis.UniversalClient
	batches batches
	prefix  string
	terms   push.Terms
	scripts scripts

	mu   sync.Mutex
	apps map[push.Key]*app
}

// app is what the process itself knows of an app.
type app struct {
	guard push.Guard // as last seen
	alive int        // good verdicts that Redis has not been told of
	told  time.Time
}

// New returns a Store. It does not connect: Redis may come later.
func New(cfg redisconn.Config, terms push.Terms) (*Store, error) {
	if err := terms.Check(); err != nil {
		return nil, err
	}
	client, err := cfg.Open()
	if err != nil {
		return nil, err
	}
	return &Store{
		client: client, batches: batches{client: client, budget: cfg.Budget.Std()}, prefix: cfg.KeyPrefix, terms: terms, scripts: newScripts(), apps: make(map[push.Key]*app),
	}, nil
}

// Close closes the connections.
func (s *Store) Close() error { return s.client.Close() }

func (s *Store) key(kind string, k push.Key) string {
	return s.prefix + kind + base64.RawURLEncoding.EncodeToString(k[:])
}

func (s *Store) eventKey(k push.Key) string   { return s.key("event:", k) }
func (s *Store) pushKeyKey(k push.Key) string { return s.key("dead:", k) }
func (s *Store) appKey(k push.Key) string     { return s.key("app:", k) }
func (s *Store) quotaKey(k push.Key) string   { return s.key("pause:", k) }

func owner(o uint64) string { return strconv.FormatUint(o, 36) }

// Begin implements push.Store. It takes a second round trip where a notification
// is not new: only then it needs a script, which costs Redis several times as
// much as a command.
func (s *Store) Begin(ctx context.Context, queries []push.Query) ([]push.Finding, error) {
	asked := make([]asked, len(queries))
	err := s.batches.do(ctx, func(c *commands) {
		for i := range queries {
			asked[i] = s.ask(ctx, c, &queries[i])
		}
	})
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(asked, contested) {
		err := s.batches.do(ctx, func(c *commands) {
			for i := range asked {
				if contested(asked[i]) {
					asked[i].claim = s.claim(ctx, c, &queries[i])
				}
			}
		})
		if err != nil {
			return nil, err
		}
	}
	findings := make([]push.Finding, len(queries))
	for i := range asked {
		findings[i] = asked[i].finding()
		s.saw(queries[i].App, findings[i].Guard)
	}
	return findings, nil
}

// asked is what was asked about one device.
type asked struct {
	take      *redis.StatusCmd // nil without an event, and when one is awaited
	claim     *call            // nil when nothing was in the way
	rejection *redis.StringCmd
	guard     *redis.SliceCmd
	pause     *redis.DurationCmd
}

func (s *Store) ask(ctx context.Context, c *commands, q *push.Query) asked {
	a := asked{
		rejection: c.get(ctx, s.pushKeyKey(q.PushKey)),
		guard:     c.hmget(ctx, s.appKey(q.App), "proven", "tripped", "trips"),
		pause:     c.pttl(ctx, s.quotaKey(q.Quota)),
	}
	switch {
	case q.Event == push.Key{}:
	case q.Awaited != 0:
		a.claim = s.claim(ctx, c, q)
	default:
		a.take = c.take(ctx, s.eventKey(q.Event), "c"+owner(q.Owner), lease(q))
	}
	return a
}

func (s *Store) claim(ctx context.Context, c *commands, q *push.Query) *call {
	return c.run(ctx, s.scripts.claim, s.eventKey(q.Event),
		owner(q.Owner), owner(q.Awaited), lease(q).Milliseconds(), s.terms.Lifetime.Milliseconds())
}

func lease(q *push.Query) time.Duration { return max(q.Lease, time.Millisecond) }

// contested reports whether something is in the way of a claim, of which nothing
// more is known yet.
func contested(a asked) bool { return a.take != nil && a.take.Val() == "" }

func (a *asked) finding() push.Finding {
	var f push.Finding
	if a.claim != nil {
		value, _ := a.claim.Text()
		readState(&f, value)
	}
	f.Rejection = readRejection(a.rejection.Val())
	f.Guard = readGuard(a.guard.Val())
	f.Pause = max(0, a.pause.Val()) // negative where there is none
	return f
}

// End implements push.Store.
func (s *Store) End(ctx context.Context, results []push.Result) ([]push.Guard, error) {
	var tallies map[push.Key]*call
	due, alive := s.due(results)
	if len(due) > 0 || slices.ContainsFunc(results, recorded) {
		err := s.batches.do(ctx, func(c *commands) {
			for i := range results {
				s.record(ctx, c, &results[i])
			}
			tallies = s.tally(ctx, c, due, alive)
		})
		if err != nil {
			s.untold(alive)
			return nil, err
		}
	}
	for k, c := range tallies {
		values, _ := c.Slice()
		s.saw(k, readGuard(values))
	}
	guards := make([]push.Guard, len(results))
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, r := range results {
		guards[i] = s.app(r.App).guard
	}
	return guards, nil
}

// recorded reports whether there is something to record of a result beside its
// verdict.
func recorded(r push.Result) bool {
	return r.Event != push.Key{} && (r.Done || r.Held) || r.Rejection.Known || r.Pause > 0 || r.Resume
}

func (s *Store) record(ctx context.Context, c *commands, r *push.Result) {
	switch {
	case r.Event == push.Key{}:
	case r.Done:
		c.set(ctx, s.eventKey(r.Event), "d"+strconv.FormatUint(uint64(r.Counts), 10), s.terms.Lifetime)
	case r.Held:
		value := strings.Join([]string{
			"f" + owner(r.Owner), strconv.Itoa(int(r.Outcome.Kind)), strconv.FormatInt(r.Outcome.RetryAfter.Milliseconds(), 10), string(r.Outcome.Reason),
		}, ":")
		c.run(ctx, s.scripts.release, s.eventKey(r.Event), owner(r.Owner), value, push.EndedLifetime.Milliseconds())
	}
	if r.Rejection.Known {
		value := strconv.FormatInt(r.Rejection.PushKeyTS, 10) + ":" + strconv.FormatUint(uint64(r.Rejection.Trips), 10)
		c.set(ctx, s.pushKeyKey(r.PushKey), value, s.terms.RejectionLifetime)
	}
	switch {
	case r.Pause > 0:
		c.set(ctx, s.quotaKey(r.Quota), "", max(r.Pause, time.Millisecond))
	case r.Resume:
		c.del(ctx, s.quotaKey(r.Quota))
	}
}

// due returns how many dead verdicts of which apps Redis must be told now, and
// how many good ones with them. Good ones alone wait for each other: they are
// nearly all, and all of one app go to one key.
func (s *Store) due(results []push.Result) (dead, alive map[push.Key]int) {
	dead, alive = make(map[push.Key]int, 1), make(map[push.Key]int, 1)
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range results {
		switch r := &results[i]; r.Verdict {
		case push.Alive:
			s.app(r.App).alive++
			dead[r.App] += 0
		case push.Dead:
			dead[r.App]++
		case push.NoVerdict:
		}
	}
	for k, n := range dead {
		a := s.app(k)
		if n == 0 && a.guard.Proven && !a.guard.Tripped && now.Sub(a.told) < tallyInterval {
			delete(dead, k)
			continue
		}
		alive[k] = a.alive
		a.alive, a.told = 0, now
	}
	return dead, alive
}

func (s *Store) tally(ctx context.Context, c *commands, dead, alive map[push.Key]int) map[push.Key]*call {
	calls := make(map[push.Key]*call, len(dead))
	for k, n := range dead {
		calls[k] = c.run(ctx, s.scripts.tally, s.appKey(k), alive[k], n,
			s.terms.GuardWindow.Milliseconds(), s.terms.GuardPushes, s.terms.GuardShare, guardLifetime.Milliseconds())
	}
	return calls
}

// untold takes back what Redis could not be told.
func (s *Store) untold(alive map[push.Key]int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, n := range alive {
		s.app(k).alive += n
	}
}

func (s *Store) saw(k push.Key, g push.Guard) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.app(k).guard = g
}

// app returns what is known of an app, with mu held. There are as many as are
// configured.
func (s *Store) app(k push.Key) *app {
	a := s.apps[k]
	if a == nil {
		a = new(app)
		s.apps[k] = a
	}
	return a
}

// readState reads the value of an event's key that is in the way, if any.
func readState(f *push.Finding, value string) {
	if value == "" {
		return
	}
	switch rest := value[1:]; value[0] {
	case 'd':
		counts, _ := strconv.ParseUint(rest, 10, 32)
		f.State, f.Counts = push.Delivered, uint32(counts)
	case 'c':
		f.State = push.InFlight
		f.Owner, _ = strconv.ParseUint(rest, 36, 64)
	case 'f':
		parts := strings.SplitN(rest, ":", 4)
		if len(parts) != 4 {
			return
		}
		kind, _ := strconv.ParseUint(parts[1], 10, 8)
		wait, _ := strconv.ParseInt(parts[2], 10, 64)
		f.State = push.Ended
		f.Outcome = push.Outcome{Kind: push.Kind(kind), Reason: push.Reason(parts[3]), RetryAfter: time.Duration(wait) * time.Millisecond}
	}
}

func readRejection(value string) push.Rejection {
	ts, trips, found := strings.Cut(value, ":")
	if !found {
		return push.Rejection{}
	}
	r := push.Rejection{Known: true}
	r.PushKeyTS, _ = strconv.ParseInt(ts, 10, 64)
	n, _ := strconv.ParseUint(trips, 10, 32)
	r.Trips = uint32(n)
	return r
}

// readGuard reads proven, tripped and trips, which Redis gives as numbers or as
// texts.
func readGuard(values []any) push.Guard {
	var n [3]int64
	for i := range min(len(values), len(n)) {
		switch v := values[i].(type) {
		case int64:
			n[i] = v
		case string:
			n[i], _ = strconv.ParseInt(v, 10, 64)
		}
	}
	return push.Guard{Proven: n[0] == 1, Tripped: n[1] == 1, Trips: uint32(n[2])}
}
