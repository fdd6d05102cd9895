package redisstore

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// batches gathers the commands of requests. One batch is under way at a time;
// while it is, what requests ask is gathered for the next: under load a round
// trip, which costs more than the commands in it, serves many requests. A
// request waits for two round trips at most, which a Redis that is near enough
// for the budget has time for.
type batches struct {
	client redis.UniversalClient
	budget time.Duration

	mu   sync.Mutex
	busy bool
	next *batch // gathers; nil when nobody has asked since the last began
}

// batch is a number of commands that are sent at once.
type batch struct {
	pipe    redis.Pipeliner
	scripts []*call
	// fields and lives are what several requests ask about one key.
	fields map[string]*redis.SliceCmd
	lives  map[string]*redis.DurationCmd
	// turn holds a token once the batch may begin; whoever of those who wait
	// for it takes the token sends it. It is given one once.
	turn chan struct{}
	done chan struct{} // closed when there are answers, or err
	err  error
}

// commands are one request's part of a batch.
type commands struct {
	*batch
	scripts []*call
	plain   []redis.Cmder
}

// call is a run of a script.
type call struct {
	script *redis.Script
	keys   []string
	args   []any
	*redis.Cmd
}

func (c *commands) run(ctx context.Context, script *redis.Script, key string, args ...any) *call {
	s := &call{script: script, keys: []string{key}, args: args}
	s.Cmd = script.EvalSha(ctx, c.pipe, s.keys, args...)
	c.scripts = append(c.scripts, s)
	c.batch.scripts = append(c.batch.scripts, s)
	return s
}

// get adds a command that is no script.
func (c *commands) get(ctx context.Context, key string) *redis.StringCmd {
	cmd := c.pipe.Get(ctx, key)
	c.plain = append(c.plain, cmd)
	return cmd
}

// take adds a command that sets a key which is not there.
func (c *commands) take(ctx context.Context, key, value string, lifetime time.Duration) *redis.StatusCmd {
	cmd := c.pipe.SetArgs(ctx, key, value, redis.SetArgs{Mode: "NX", TTL: lifetime})
	c.plain = append(c.plain, cmd)
	return cmd
}

// hmget asks for fields of a key, always the same of one key: a batch asks once
// for all requests.
func (c *commands) hmget(ctx context.Context, key string, fields ...string) *redis.SliceCmd {
	cmd := c.fields[key]
	if cmd == nil {
		cmd = c.pipe.HMGet(ctx, key, fields...)
		c.fields[key] = cmd
	}
	c.plain = append(c.plain, cmd)
	return cmd
}

// pttl asks how long a key lives, once for all requests of a batch.
func (c *commands) pttl(ctx context.Context, key string) *redis.DurationCmd {
	cmd := c.lives[key]
	if cmd == nil {
		cmd = c.pipe.PTTL(ctx, key)
		c.lives[key] = cmd
	}
	c.plain = append(c.plain, cmd)
	return cmd
}

func (c *commands) del(ctx context.Context, key string) {
	c.plain = append(c.plain, c.pipe.Del(ctx, key))
}

func (c *commands) set(ctx context.Context, key, value string, lifetime time.Duration) {
	c.plain = append(c.plain, c.pipe.Set(ctx, key, value, lifetime))
}

// do has add add commands to a batch and waits until they are carried out. It
// returns the first error of one of them; a value that is not there is none.
func (g *batches) do(ctx context.Context, add func(*commands)) error {
	g.mu.Lock()
	b := g.next
	if b == nil {
		b = &batch{
			pipe: g.client.Pipeline(), turn: make(chan struct{}, 1), done: make(chan struct{}),
			fields: make(map[string]*redis.SliceCmd, 1), lives: make(map[string]*redis.DurationCmd, 1),
		}
		g.next = b
	}
	c := &commands{batch: b}
	add(c)
	if !g.busy {
		g.busy = true
		b.begin()
	}
	g.mu.Unlock()

	select {
	case <-b.turn:
		g.send(ctx, b)
	case <-b.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	if b.err != nil {
		return b.err
	}
	for _, s := range c.scripts {
		if err := s.Err(); isFailure(err) {
			return err
		}
	}
	for _, p := range c.plain {
		if err := p.Err(); isFailure(err) {
			return err
		}
	}
	return nil
}

// send carries out a batch that has its turn and lets the next one begin. It
// has time of its own, because others wait for it too.
func (g *batches) send(ctx context.Context, b *batch) {
	g.mu.Lock()
	g.next = nil // it was b until now
	g.mu.Unlock()
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.budget)
	defer cancel()
	b.err = b.exec(within, g.client)
	close(b.done)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.busy = g.next != nil; g.busy {
		g.next.begin()
	}
}

// begin gives the batch its turn, with mu held.
func (b *batch) begin() { b.turn <- struct{}{} }

// exec sends the batch. A server that has not met a script, because it was
// restarted, is sent its text; that takes another round trip.
func (b *batch) exec(ctx context.Context, client redis.UniversalClient) error {
	if err := execute(ctx, b.pipe); err != nil {
		return err
	}
	unknown := client.Pipeline()
	for _, c := range b.scripts {
		if isUnknown(c.Err()) {
			c.Cmd = c.script.Eval(ctx, unknown, c.keys, c.args...)
		}
	}
	if unknown.Len() == 0 {
		return nil
	}
	return execute(ctx, unknown)
}

// execute sends pipe and returns an error if nothing was carried out: then the
// commands themselves may not know. Else each has its own.
func execute(ctx context.Context, pipe redis.Pipeliner) error {
	sent, err := pipe.Exec(ctx)
	for _, c := range sent {
		if c.Err() != nil {
			return nil //nolint:nilerr // it is for the request whose command it is
		}
	}
	return err
}

func isFailure(err error) bool {
	return err != nil && !errors.Is(err, redis.Nil)
}

func isUnknown(err error) bool { return redis.HasErrorPrefix(err, "NOSCRIPT") }
