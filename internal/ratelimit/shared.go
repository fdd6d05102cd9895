package ratelimit

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"

	"github.com/redis/go-redis/v9"
)

// shared counts in Redis. A rate takes some 100 bytes there, a budget some 80 for
// each of its members, until the limit is all there again or the window ends.
type shared struct {
	client  redis.UniversalClient
	prefix  string
	scripts scripts
}

// call is a run of a script.
type call struct {
	script *redis.Script
	key    string
	args   []any
	*redis.Cmd
}

// take is as memory's, but takes from all cells before it knows that one refuses,
// and then gives back. With waits that are not nil an error means that it could
// not give back.
func (s *shared) take(ctx context.Context, cells []cell, request uint64) (waits []int64, err error) {
	calls := make([]*call, len(cells))
	for i := range cells {
		calls[i] = s.taking(&cells[i], request)
	}
	if err := s.run(ctx, calls); err != nil {
		return nil, err
	}
	waits = make([]int64, len(cells))
	var took []cell
	for i, c := range calls {
		if waits[i], err = c.Int64(); err != nil {
			return nil, fmt.Errorf("answer of a script: %w", err)
		}
		if waits[i] == 0 {
			took = append(took, cells[i])
		}
	}
	if len(took) == len(cells) {
		return waits, nil
	}
	return waits, s.give(ctx, took, request)
}

// give gives back what a request took.
func (s *shared) give(ctx context.Context, cells []cell, request uint64) error {
	calls := make([]*call, len(cells))
	for i := range cells {
		calls[i] = s.giving(&cells[i], request)
	}
	return s.run(ctx, calls)
}

func (s *shared) taking(c *cell, request uint64) *call {
	if c.distinct {
		return &call{script: s.scripts.takeMembers, key: s.key(c.id), args: []any{
			c.limit.Count, c.limit.Per.Milliseconds(), pack([]uint64{request}), pack(c.members),
		}}
	}
	return &call{script: s.scripts.takeRate, key: s.key(c.id), args: []any{c.limit.step(), c.limit.room()}}
}

func (s *shared) giving(c *cell, request uint64) *call {
	if c.distinct {
		return &call{script: s.scripts.giveMembers, key: s.key(c.id), args: []any{pack([]uint64{request}), pack(c.members)}}
	}
	return &call{script: s.scripts.giveRate, key: s.key(c.id), args: []any{c.limit.step()}}
}

func (s *shared) key(id fingerprint) string {
	return s.prefix + "limit:" + base64.RawURLEncoding.EncodeToString(id[:])
}

// pack writes members one after the other: Redis would take longer to read ten
// thousand arguments than to look them up.
func pack(members []uint64) []byte {
	packed := make([]byte, 0, 8*len(members))
	for _, m := range members {
		packed = binary.BigEndian.AppendUint64(packed, m)
	}
	return packed
}

// run sends the calls at once. A server that has not met a script, because it was
// restarted, is sent its text; that takes another round trip. It returns the
// first error of a call.
func (s *shared) run(ctx context.Context, calls []*call) error {
	if len(calls) == 0 {
		return nil
	}
	known := s.client.Pipeline()
	for _, c := range calls {
		c.Cmd = c.script.EvalSha(ctx, known, []string{c.key}, c.args...)
	}
	err := exec(ctx, known)
	unknown := s.client.Pipeline()
	for _, c := range calls {
		if redis.HasErrorPrefix(c.Err(), "NOSCRIPT") {
			c.Cmd = c.script.Eval(ctx, unknown, []string{c.key}, c.args...)
		}
	}
	if unknown.Len() > 0 {
		err = exec(ctx, unknown)
	}
	for _, c := range calls {
		if err != nil {
			break
		}
		err = c.Err()
	}
	return err
}

// exec sends pipe. It returns an error if nothing was carried out: then the
// commands themselves may not know. Else each has its own.
func exec(ctx context.Context, pipe redis.Pipeliner) error {
	sent, err := pipe.Exec(ctx)
	for _, c := range sent {
		if c.Err() != nil {
			return nil //nolint:nilerr // it is its call's
		}
	}
	return err
}

// forget returns how many of the keys there were.
func (s *shared) forget(ctx context.Context, ids []fingerprint) (int, error) {
	pipe := s.client.Pipeline()
	deleted := make([]*redis.IntCmd, len(ids))
	for i, id := range ids {
		deleted[i] = pipe.Unlink(ctx, s.key(id))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return 0, err
	}
	n := 0
	for _, d := range deleted {
		n += int(d.Val())
	}
	return n, nil
}
