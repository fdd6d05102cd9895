package main

import (
	"context"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/matrix-herald/herald/internal/conf"
)

// lookInterval lies between two looks at the files of the configuration.
const lookInterval = 10 * time.Second

// watchFiles says in the log, until ctx is done, that a file is gone without which
// the service does not start again: the configuration itself, unless name is empty,
// one that it names, or a key in the data folder.
func watchFiles(cfg *Config, name string, log *slog.Logger, every time.Duration) func(context.Context) error {
	files := conf.Files(cfg)
	if name != "" {
		files = append(files, name)
	}
	if !cfg.usesPostgres() {
		files = append(files, cfg.keyFile())
	}
	if cfg.CodeKey == "" {
		files = append(files, filepath.Join(cfg.DataDir, codeKeyFile))
	}
	return func(ctx context.Context) error {
		conf.WatchLoss(ctx, every, func() []string { return files }, func(err error) {
			log.WarnContext(ctx, "a file that is in use cannot be read any more: the next start will fail", "err", err)
		})
		return nil
	}
}

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
