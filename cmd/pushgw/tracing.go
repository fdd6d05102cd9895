package main

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// lastTraces is how long the end waits for a trace collector.
const lastTraces = 3 * time.Second

var errLastTraces = errors.New("the trace collector did not take the last traces in time")

// endTracing sends what is left of the traces, and does not let a collector
// that is away delay the end.
func endTracing(ctx context.Context, stop func(context.Context) error, log *slog.Logger) {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), lastTraces, errLastTraces)
	defer cancel()
	if err := stop(ctx); err != nil {
		log.WarnContext(ctx, "the last traces are lost", "err", err, "cause", context.Cause(ctx))
	}
}
