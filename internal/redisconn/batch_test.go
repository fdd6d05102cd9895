package redisconn_test

import (
	"context"
	"errors"
	"io"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/matrix-herald/herald/internal/redisconn/redistest"
)

// held stops pipelines on their way to Redis, and tells how long each is.
type held struct {
	sizes chan int
	let   chan struct{}
}

func (h held) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (h held) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (h held) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, commands []redis.Cmder) error {
		h.sizes <- len(commands)
		<-h.let
		return next(ctx, commands)
	}
}

// Requests that ask while another waits for Redis go together, each gets the
// answers and errors of its own commands, and one that gives up takes nobody along.
func TestRequestsOfOneMomentShareAPipeline(t *testing.T) {
	t.Parallel()
	conn, _ := redistest.Connect(t, redistest.Config(miniredis.RunT(t).Addr()), io.Discard)
	hook := held{sizes: make(chan int), let: make(chan struct{})}
	conn.Client.AddHook(hook)
	ask := func(ctx context.Context, args ...any) chan error {
		failed := make(chan error, 1)
		added := make(chan struct{})
		go func() {
			var command *redis.Cmd
			err := conn.Batch(ctx, func(pipe redis.Pipeliner) {
				command = pipe.Do(ctx, args...)
				close(added)
			})
			if err == nil && command.Val() != args[len(args)-1] && !errors.Is(command.Err(), redis.Nil) {
				err = errors.New("the answer of another command")
			}
			failed <- err
		}()
		<-added
		return failed
	}
	leaving, leave := context.WithCancel(t.Context())
	first := ask(leaving, "ECHO", "first")
	if n := <-hook.sizes; n != 1 {
		t.Errorf("the first pipeline has %d commands", n)
	}
	echo := ask(t.Context(), "ECHO", "second")
	wrong := ask(t.Context(), "NO", "SUCH")
	missing := ask(t.Context(), "GET", "nothing")
	left := ask(leaving, "ECHO", "left")
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("who gave up got %v", err)
	}
	hook.let <- struct{}{}
	if n := <-hook.sizes; n != 4 {
		t.Errorf("the second pipeline has %d commands, want 4", n)
	}
	hook.let <- struct{}{}
	if err := <-first; err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("the first, which gave up or had its answer in time: %v", err)
	}
	if err := <-echo; err != nil {
		t.Errorf("a command beside a wrong one: %v", err)
	}
	if err := <-missing; err != nil {
		t.Errorf("what is not there: %v", err)
	}
	if err := <-wrong; err == nil {
		t.Error("a wrong command has no error")
	}
}
