package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/matrix-herald/herald/identity"
)

// logEvery is how often something long says how far it is where there is no
// terminal.
const logEvery = 10 * time.Second

// errStopped tells an operator who stopped a long command how to go on.
var errStopped = errors.New("stopped; what was done stays done, and the same command goes on from there")

// stopped puts errStopped in place of an error that comes of the end of ctx.
func stopped(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return errStopped
	}
	return err
}

// newProgress returns what shows how far something long is, with its rate and the
// time that is left: a bar if w is a terminal, and lines in the log elsewhere.
func newProgress(w io.Writer, log *slog.Logger) identity.Progress {
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return progressBar(w)
	}
	return progressLog(log, time.Now)
}

func progressBar(w io.Writer) identity.Progress {
	var bar *progressbar.ProgressBar
	shown := ""
	return func(what string, done, total int) {
		if what != shown {
			shown = what
			bar = progressbar.NewOptions(total, progressbar.OptionSetWriter(w), progressbar.OptionSetDescription(what),
				progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionSetPredictTime(true),
				progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
		}
		_ = bar.Set(done) // it is for the eye
	}
}

func progressLog(log *slog.Logger, now func() time.Time) identity.Progress {
	var begun, said time.Time
	from, doing := 0, ""
	return func(what string, done, total int) {
		at := now()
		if what != doing {
			begun, said, from, doing = at, at, done, what
		}
		if at.Sub(said) < logEvery {
			return
		}
		said = at
		rate := float64(done-from) / at.Sub(begun).Seconds()
		left := time.Duration(0)
		if rate > 0 {
			left = time.Duration(float64(total-done) / rate * float64(time.Second)).Round(time.Second)
		}
		log.Info("working", "on", what, "done", done, "of", total, "per_second", int(rate), "left", left)
	}
}
