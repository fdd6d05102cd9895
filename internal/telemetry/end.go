package telemetry

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// lastTraces is how long the end waits for a trace collector.
const lastTraces = 3 * time.Second

var errLastTraces = errors.New("the trace collector did not take the last traces in time")

// End calls stop, the function that Tracing returned, to send what is left of
// the traces. ctx may have ended. A collector that is away delays the end by 3 s
// at most, and is no fault of the service: it is only logged.
func End(ctx context.Context, stop func(context.Context) error, log *slog.Logger) {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), lastTraces, errLastTraces)
	defer cancel()
	if err := stop(ctx); err != nil {
		log.WarnContext(ctx, "the last traces are lost", "err", err, "cause", context.Cause(ctx))
	}
}
