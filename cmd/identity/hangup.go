package main

import (
	"context"
	"log/slog"
)

// answerHangups says in the log, until ctx is done, that there is nothing to
// read again: administrators send SIGHUP to services that can.
func (p *program) answerHangups(log *slog.Logger) func(context.Context) error {
	return func(ctx context.Context) error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-p.hangup:
				log.WarnContext(ctx, "SIGHUP changes nothing: options and secrets are read at the start only")
			}
		}
	}
}
