package mxhttp

import (
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/gin-gonic/gin"
)

// finish recovers from a panic of the handler, then counts and logs the request.
// It must be deferred directly.
func (e *edge) finish(c *gin.Context, x *exchange) {
	reason := recover()
	aborted := isAbort(reason)
	if reason != nil && !aborted {
		aborted = e.recovered(c, x, reason)
	}
	if aborted {
		x.add(slog.Bool("aborted", true))
	}
	// The client need not wait for the log. Without a length a flush would turn
	// the response into a chunked one.
	if !aborted && c.Writer.Header().Get("Content-Length") != "" {
		c.Writer.Flush()
	}
	x.release()
	took := time.Since(x.start)
	status := c.Writer.Status()
	e.metrics.inFlight.Dec()
	e.metrics.observe(x.route, x.method, status, took)
	e.access(c, x, status, took)
	// A response that was cut short must not look complete: only a panic with
	// this value makes net/http break the connection.
	if aborted {
		panic(http.ErrAbortHandler)
	}
}

// isAbort reports whether a handler panicked to abort its response.
func isAbort(reason any) bool {
	err, ok := reason.(error)
	return ok && err == http.ErrAbortHandler //nolint:errorlint // net/http compares the value itself
}

// recovered logs a panic and answers 500. It reports true if the response had
// already been started, so that it must be aborted instead.
func (e *edge) recovered(c *gin.Context, x *exchange, reason any) (started bool) {
	// The value of a panic may quote the request; that of the runtime does not,
	// and for the others the stack says where to look.
	text := fmt.Sprintf("%T", reason)
	if err, ok := reason.(runtime.Error); ok {
		text = err.Error()
	}
	x.failed(slog.String("panic", text), slog.String("stack", string(debug.Stack())))
	if c.Writer.Written() {
		return true
	}
	e.respond(c, x, errInternal())
	return false
}

// access writes the one line about a request, an error if it met a fault of ours.
// The path and query stay out of it: they may hold addresses and tokens.
func (e *edge) access(c *gin.Context, x *exchange, status int, took time.Duration) {
	ctx := c.Request.Context()
	x.mu.Lock()
	defer x.mu.Unlock()
	if !e.log.Enabled(ctx, x.level) {
		return
	}
	client := ""
	if x.client.IsValid() {
		client = x.client.String()
	}
	// No program counter: nobody asks where this line comes from, and to find out
	// costs as much as the rest of it.
	line := slog.NewRecord(x.start.Add(took), x.level, "request", 0)
	line.AddAttrs(
		slog.String("method", x.method),
		slog.String("route", x.route),
		slog.Int("status", status),
		slog.Duration("took", took),
		slog.String("client", client),
		slog.String("request_id", x.id[0]),
		slog.Int("bytes", max(c.Writer.Size(), 0)))
	line.AddAttrs(x.attrs...)
	_ = e.log.Handler().Handle(ctx, line) // as slog does: there is nobody to tell
}
