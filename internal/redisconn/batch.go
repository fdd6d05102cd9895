package redisconn

import (
	"context"
	"errors"
	"sync"

	"github.com/redis/go-redis/v9"
)

// batches sends the commands of requests that ask at the same moment together: one
// pipeline is under way, and whatever comes meanwhile is the next one. That takes
// fewer system calls here and in Redis, and no longer where nobody else asks.
type batches struct {
	mu      sync.Mutex
	next    *batch
	running bool
}

type batch struct {
	pipe redis.Pipeliner
	sent []redis.Cmder // all commands, once done is closed
	done chan struct{}
}

// Batch sends the commands that add puts into a pipeline and waits for their
// answers; use it within Ask. It returns the first error of one of them, where
// redis.Nil is none, or ctx's. After ctx's the commands must not be read, as they
// may be under way still.
func (c *Conn) Batch(ctx context.Context, add func(redis.Pipeliner)) error {
	c.batches.mu.Lock()
	b := c.batches.next
	if b == nil {
		b = &batch{pipe: c.Client.Pipeline(), done: make(chan struct{})}
		c.batches.next = b
	}
	from := b.pipe.Len()
	add(b.pipe)
	to := b.pipe.Len()
	if from == to {
		c.batches.mu.Unlock()
		return nil
	}
	isFirst := !c.batches.running
	c.batches.running = true
	c.batches.mu.Unlock()
	if isFirst {
		c.send(ctx)
	}
	select {
	case <-b.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	for _, command := range b.sent[from:to] {
		if err := command.Err(); err != nil && !errors.Is(err, redis.Nil) {
			return err
		}
	}
	return nil
}

// send sends the next batch, and then has the one sent that came meanwhile.
func (c *Conn) send(ctx context.Context) {
	c.batches.mu.Lock()
	b := c.batches.next
	c.batches.next = nil
	c.batches.mu.Unlock()
	// The commands of others are in it as well, whose requests go on.
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.budget)
	defer cancel()
	b.sent, _ = b.pipe.Exec(within) // the errors are the commands' own
	close(b.done)
	c.batches.mu.Lock()
	defer c.batches.mu.Unlock()
	if c.batches.running = c.batches.next != nil && c.batches.next.pipe.Len() > 0; c.batches.running {
		go c.send(ctx)
	}
}
