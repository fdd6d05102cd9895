package dedup

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/matrix-herald/herald/internal/redisconn"
	"github.com/matrix-herald/herald/push"
)

// guardLifetime is how long it is remembered how an app's pushes fared, after
// they last did.
const guardLifetime = 30 * 24 * time.Hour

// Redis is a push.Dedup that several processes share. In front of it stands the
// process's own Memory: what the process does itself it knows without asking, and
// it repeats nothing of its own while Redis is unreachable or has forgotten.
//
// Each call is one pipeline, which is one round trip, or one to each node of a
// Cluster. Claims take a second one where something is in the way of one.
type Redis struct {
	conn *redisconn.Conn
	own  *Memory
	opts Options
}

// guardKey names one guard: of an app's pushkeys that have had an accepted push,
// or of its others.
type guardKey struct {
	app      push.Key
	accepted bool
}

// NewRedis returns a Redis at conn with own in front of it.
func NewRedis(conn *redisconn.Conn, own *Memory) *Redis {
	return &Redis{conn: conn, own: own, opts: own.opts}
}

// Keys: "event:" holds "c" and the owner of a claim, or "d" and the digest of the
// counts that were delivered. "pushkey:" holds "a" for one that has had an
// accepted push, else "r" and what is known of a dead one. "app:"
// is a hash with "proven" and the guards.
func (r *Redis) key(kind string, k push.Key) string {
	return r.conn.Prefix + kind + base64.RawURLEncoding.EncodeToString(k[:])
}

// appFields are the fields of an app that a claim reads: whether it is proven, and
// of both its guards whether it is tripped and how often it was.
var appFields = []string{"proven", "accepted_tripped", "accepted_trips", "other_tripped", "other_trips"}

// guardFields begin the fields of a guard.
func guardFields(accepted bool) string {
	if accepted {
		return "accepted_"
	}
	return "other_"
}

// query is what is asked about one device.
type query struct {
	take    *redis.StatusCmd // nil where the process itself has the event
	holder  *redis.StringCmd // of what is in the way of it
	pushKey *redis.StringCmd
	app     *redis.SliceCmd
}

// Claim implements push.Dedup.
func (r *Redis) Claim(ctx context.Context, claims []push.Claim) []push.Claimed {
	answers := r.own.Claim(ctx, claims)
	queries := make([]query, len(claims))
	err := r.conn.Ask(ctx, func(ctx context.Context) error { return r.ask(ctx, claims, answers, queries) })
	if err != nil {
		return answers
	}
	for i := range claims {
		q, a := &queries[i], &answers[i]
		known := readApp(q.app.Val())
		kept, isRejected := readPushKey(q.pushKey.Val())
		isAlive := q.pushKey.Val() == "a"
		// What the process has seen itself counts, also where Redis has forgotten it.
		a.Accepted = a.Accepted || kept.accepted || isAlive
		a.Dead = isRejected || a.Dead && !isAlive
		if kept.believed && kept.trips == known.guard(kept.accepted).trips {
			a.Rejected, a.PushKeyTS = true, max(a.PushKeyTS, kept.pushKeyTS)
		}
		a.Guard = answer(known.proven, *known.guard(a.Accepted), r.opts)
		a.Shared = true
		if q.holder != nil {
			a.State, a.Counts = readHolder(q.holder.Val())
		}
	}
	return answers
}

// ask sends the commands of Claim.
func (r *Redis) ask(ctx context.Context, claims []push.Claim, own []push.Claimed, queries []query) error {
	apps := make(map[push.Key]*redis.SliceCmd, 1)
	err := r.conn.Batch(ctx, func(pipe redis.Pipeliner) {
		for i := range claims {
			c, q := &claims[i], &queries[i]
			if c.Event != (push.Key{}) && own[i].State == push.Granted {
				q.take = pipe.SetArgs(ctx, r.key("event:", c.Event), holder(c.Owner), redis.SetArgs{Mode: "NX", TTL: max(c.Lease, time.Millisecond)})
			}
			q.pushKey = pipe.Get(ctx, r.key("pushkey:", c.PushKey))
			if apps[c.App] == nil {
				apps[c.App] = pipe.HMGet(ctx, r.key("app:", c.App), appFields...)
			}
			q.app = apps[c.App]
		}
	})
	if err != nil || !slices.ContainsFunc(queries, query.isContested) {
		return err
	}
	err = r.conn.Batch(ctx, func(pipe redis.Pipeliner) {
		for i := range queries {
			if q := &queries[i]; q.isContested() {
				q.holder = pipe.Get(ctx, r.key("event:", claims[i].Event))
			}
		}
	})
	if err != nil {
		return err
	}
	for i := range queries {
		if q := &queries[i]; q.holder != nil && q.holder.Val() == holder(claims[i].Owner) {
			q.holder = nil // it is the request's own, which had to ask twice
		}
	}
	return nil
}

// isContested reports whether something is in the way of the claim.
func (q query) isContested() bool { return q.take != nil && errors.Is(q.take.Err(), redis.Nil) }

// Complete implements push.Dedup.
func (r *Redis) Complete(ctx context.Context, results []push.Result) []push.Guard {
	own := r.own.Complete(ctx, unshared(results))
	guards := make([]push.Guard, len(results))
	for i := range results {
		if guards[i] = results[i].Guard; !results[i].Shared {
			guards[i] = own[i]
		}
	}
	var counted map[guardKey]*verdicts
	err := r.conn.Ask(ctx, func(ctx context.Context) error {
		return r.conn.Batch(ctx, func(pipe redis.Pipeliner) {
			for i := range results {
				r.record(ctx, pipe, &results[i])
			}
			counted = r.count(ctx, pipe, results)
		})
	})
	if err != nil {
		return guards
	}
	for i := range results {
		res := &results[i]
		if v := counted[guardKey{res.App, res.Accepted}]; v != nil && res.Shared {
			guards[i] = v.guard(res.Guard, r.opts)
		}
	}
	return guards
}

// unshared returns results as the process's own memory is told them: a rejection
// that follows from the shared guard is remembered beside that one alone.
func unshared(results []push.Result) []push.Result {
	told := make([]push.Result, len(results))
	for i, res := range results {
		if told[i] = res; res.Shared {
			told[i].Reject = false
		}
	}
	return told
}

// record adds the commands that remember a result.
func (r *Redis) record(ctx context.Context, pipe redis.Pipeliner, res *push.Result) {
	switch event := r.key("event:", res.Event); {
	case res.Event == push.Key{}:
	case res.Sent:
		pipe.Set(ctx, event, "d"+strconv.FormatUint(uint64(res.SentCounts), 10), r.opts.Lifetime)
	case res.State == push.Granted && res.Shared:
		// The lease is longer than the request, so it still is the request's.
		pipe.Del(ctx, event)
	}
	switch pushKey := r.key("pushkey:", res.PushKey); {
	case res.Verdict == push.Dead && !res.Reject && !res.Accepted:
		// Anybody can make up as many of these as they like. That each counts once is
		// the process's own to know.
	case res.Verdict == push.Dead && res.Shared:
		pipe.Set(ctx, pushKey, writePushKey(rejected{
			pushKeyTS: res.RejectedTS, trips: res.Guard.Trips, believed: res.Reject, accepted: res.Accepted,
		}), r.opts.RejectionLifetime)
	case res.Verdict == push.Alive:
		pipe.Set(ctx, pushKey, "a", r.opts.AcceptedLifetime)
	}
}

// verdicts are what a request adds to one guard.
type verdicts struct {
	alive, dead int
	answer      *redis.Cmd
}

// countScript adds verdicts to a guard as guard.settled does. Arguments: how many there
// are and how many of them are dead, the round, the lifetime of the key in
// milliseconds, and what the guard's fields begin with. It returns whether it is tripped, and
// how often it was. It is sent as text, so that no server has to know it.
const countScript = `
local p = ARGV[5]
local f = redis.call('HMGET', KEYS[1], p .. 'all', p .. 'dead', p .. 'tripped', p .. 'trips', 'proven')
for i = 1, 5 do f[i] = tonumber(f[i] or 0) or 0 end
local all, dead, tripped, trips = f[1] + ARGV[1], f[2] + ARGV[2], f[3], f[4]
if all >= tonumber(ARGV[3]) then
  local many = 0
  if 2 * dead > all then many = 1 end
  if many == 1 and tripped == 0 then trips = trips + 1 end
  all, dead, tripped = 0, 0, many
  redis.call('HSET', KEYS[1], p .. 'tripped', tripped, p .. 'trips', trips)
end
redis.call('HSET', KEYS[1], p .. 'all', all, p .. 'dead', dead)
if f[5] == 0 and tonumber(ARGV[1]) > tonumber(ARGV[2]) then redis.call('HSET', KEYS[1], 'proven', 1) end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return {tripped, trips}`

// count adds the commands that count the verdicts.
func (r *Redis) count(ctx context.Context, pipe redis.Pipeliner, results []push.Result) map[guardKey]*verdicts {
	counted := make(map[guardKey]*verdicts, 1)
	for i := range results {
		res := &results[i]
		if !counts(res) {
			continue
		}
		k := guardKey{res.App, res.Accepted}
		v := counted[k]
		if v == nil {
			v = new(verdicts)
			counted[k] = v
		}
		if res.Verdict == push.Dead {
			v.dead++
		} else {
			v.alive++
		}
	}
	for k, v := range counted {
		v.answer = pipe.Eval(ctx, countScript, []string{r.key("app:", k.app)},
			v.alive+v.dead, v.dead, r.opts.Round, guardLifetime.Milliseconds(), guardFields(k.accepted))
	}
	return counted
}

// guard reads the answer of countScript.
func (v *verdicts) guard(before push.Guard, opts Options) push.Guard {
	values, err := v.answer.Int64Slice()
	if err != nil || len(values) != 2 {
		return before
	}
	return answer(before.Proven || v.alive > 0, guard{tripped: values[0] == 1, trips: uint32(values[1])}, opts)
}

// answer is what package push is told of a guard.
func answer(proven bool, g guard, opts Options) push.Guard {
	return push.Guard{Proven: proven, Tripped: g.tripped && !opts.NoGuard, Trips: g.trips}
}

func holder(owner uint64) string { return "c" + strconv.FormatUint(owner, 36) }

// readHolder reads what is in the way of a claim. What has gone meanwhile is
// asked about again, like what is in flight.
func readHolder(value string) (push.ClaimState, uint32) {
	counts, isDelivered := strings.CutPrefix(value, "d")
	if !isDelivered {
		return push.InFlight, 0
	}
	n, _ := strconv.ParseUint(counts, 10, 32)
	return push.Delivered, uint32(n)
}

// writePushKey writes a rejected pushkey, and readPushKey reads it; it reports
// false for all others.
func writePushKey(v rejected) string {
	return fmt.Sprintf("r%d:%t:%t:%d", v.pushKeyTS, v.believed, v.accepted, v.trips)
}

func readPushKey(value string) (v rejected, is bool) {
	parts := strings.Split(strings.TrimPrefix(value, "r"), ":")
	if len(parts) != 4 || !strings.HasPrefix(value, "r") {
		return v, false
	}
	v.pushKeyTS, _ = strconv.ParseInt(parts[0], 10, 64)
	v.believed, v.accepted = parts[1] == "true", parts[2] == "true"
	trips, _ := strconv.ParseUint(parts[3], 10, 32)
	v.trips = uint32(trips)
	return v, true
}

// readApp reads the values of appFields.
func readApp(values []any) app {
	var n [5]int
	for i := range min(len(values), len(n)) {
		text, _ := values[i].(string)
		n[i], _ = strconv.Atoi(text)
	}
	return app{
		proven: n[0] == 1, accepted: guard{tripped: n[1] == 1, trips: uint32(n[2])}, rest: guard{tripped: n[3] == 1, trips: uint32(n[4])},
	}
}
