package telemetry

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"time"
)

const (
	// flushDelay is how late a line may be.
	flushDelay = 100 * time.Millisecond
	// maxBuffered bounds the lines that wait, in bytes.
	maxBuffered = 64 << 10
)

// NewBufferedLogger returns a logger as NewLogger does, that writes several
// lines at once: a service that writes one for each request spends a tenth of
// its time on that otherwise. Lines are written at most 100 ms late, and
// warnings and errors at once. The returned function writes what is left; it
// must be called at the end.
func NewBufferedLogger(w io.Writer, c LogConfig) (*slog.Logger, func(), error) {
	b := &buffer{w: w}
	log, err := NewLogger(b, c)
	if err != nil {
		return nil, nil, err
	}
	return slog.New(flusher{log.Handler(), b}), b.flush, nil
}

// buffer collects what is written to it and writes it to w a little later.
type buffer struct {
	w io.Writer

	mu    sync.Mutex
	lines []byte
	timer *time.Timer // while something waits
}

// Write never fails: nobody could be told.
func (b *buffer) Write(line []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.lines)+len(line) > maxBuffered {
		b.write()
	}
	b.lines = append(b.lines, line...)
	if b.timer == nil {
		b.timer = time.AfterFunc(flushDelay, b.flush)
	}
	return len(line), nil
}

func (b *buffer) flush() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.write()
}

// write writes what waits. The caller holds b.mu.
func (b *buffer) write() {
	if b.timer != nil {
		b.timer.Stop()
		b.timer = nil
	}
	if len(b.lines) > 0 {
		_, _ = b.w.Write(b.lines)
		b.lines = b.lines[:0]
	}
}

// flusher is a handler that lets nobody wait for a warning.
type flusher struct {
	slog.Handler
	buffer *buffer
}

// Handle implements slog.Handler.
func (f flusher) Handle(ctx context.Context, r slog.Record) error {
	err := f.Handler.Handle(ctx, r)
	if r.Level >= slog.LevelWarn {
		f.buffer.flush()
	}
	return err
}

// WithAttrs implements slog.Handler.
func (f flusher) WithAttrs(attrs []slog.Attr) slog.Handler {
	return flusher{f.Handler.WithAttrs(attrs), f.buffer}
}

// WithGroup implements slog.Handler.
func (f flusher) WithGroup(name string) slog.Handler {
	return flusher{f.Handler.WithGroup(name), f.buffer}
}
