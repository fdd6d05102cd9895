package mxhttp

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/gin-gonic/gin"
)

const (
	// bodyGrace is how long a body may take at any pace.
	bodyGrace = 2 * time.Second
	// bodyBehind is for how long it may be too slow then: when this process gets no
	// CPU time, what has arrived long ago is read late.
	bodyBehind = 250 * time.Millisecond
	// decodedAtOnce is how many decoded bytes are acquired at a time.
	decodedAtOnce = 4 << 10
)

// body is the body of a request. It takes what arrives from the budget, and gives
// up a body that arrives too slowly.
type body struct {
	io.ReadCloser

	x       *exchange
	slowest int64 // bytes a second; 0 is any
	control *http.ResponseController
	timer   *time.Timer

	mu       sync.Mutex
	begun    time.Time
	received int64
	ended    bool // read to its end, given up, or nobody reads on
	behind   bool // was too slow at the last look
	late     bool // given up
}

// countBody lets the body of c's request count against the budget.
func (e *edge) countBody(c *gin.Context, x *exchange) {
	x.budget, x.source = e.budget, e.budget.source(x.client, x.proxied)
	if c.Request.Body == nil || c.Request.Body == http.NoBody {
		return
	}
	x.body = &body{ReadCloser: c.Request.Body, x: x, slowest: e.slowest, control: http.NewResponseController(c.Writer)}
	c.Request.Body = x.body
	if c.Request.ProtoMajor == 1 {
		x.header = c.Writer.Header()
	}
}

// Read implements [io.Reader]. Its errors but io.EOF and those of a broken
// connection are *Error.
func (b *body) Read(p []byte) (int, error) {
	if b.x.refusal != nil {
		return 0, b.x.refusal
	}
	b.begin()
	n, err := b.ReadCloser.Read(p)
	late := b.arrived(n, err != nil)
	switch {
	case late:
		b.x.budget.refused.WithLabelValues(refusedSlow).Inc()
		return 0, b.x.refuse(errSlow())
	case errors.Is(err, os.ErrDeadlineExceeded): // the server's ReadTimeout
		return 0, b.x.refuse(errSlow())
	}
	if refusal := b.x.hold(int64(n)); refusal != nil {
		return 0, refusal
	}
	return n, err //nolint:wrapcheck // a plain pass-through
}

func errSlow() *Error {
	return &Error{Status: http.StatusRequestTimeout, Code: codeUnknown, Msg: "The request body took too long to arrive"}
}

// begin starts the clock at the first read.
func (b *body) begin() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.begun.IsZero() && b.slowest > 0 {
		b.begun = time.Now()
		b.timer = time.AfterFunc(bodyGrace, b.look)
	}
}

// arrived notes n more bytes, and whether they are the last. It reports whether the
// body has been given up.
func (b *body) arrived(n int, last bool) (late bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.received += int64(n)
	if last {
		b.stop()
	}
	return b.late
}

// look gives the body up if it is behind for the second time, and else comes back
// when it will be unless more arrives.
func (b *body) look() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended {
		return
	}
	due := b.begun.Add(bodyGrace + time.Duration(float64(b.received)/float64(b.slowest)*float64(time.Second)))
	ahead := time.Until(due)
	switch {
	case ahead > 0:
		b.behind = false
		b.timer.Reset(ahead)
		return
	case !b.behind:
		b.behind = true
		b.timer.Reset(bodyBehind)
		return
	}
	b.late, b.ended = true, true
	_ = b.control.SetReadDeadline(time.Now()) // ends the read; one that cannot be ended runs into ReadTimeout
}

// stop stops the clock. The caller holds b.mu.
func (b *body) stop() {
	b.ended = true
	if b.timer != nil {
		b.timer.Stop()
	}
}

// hold takes n bytes from the budget until the end of the request.
func (x *exchange) hold(n int64) error {
	if refusal := x.budget.acquire(x.source, n); refusal != nil {
		return x.refuse(refusal)
	}
	x.held += n
	return nil
}

// holdDecoded does the same for n bytes that are decoded, for a nil exchange too.
// It also ends the decoding of what has no time left; a client that has gone ends
// nothing.
func (x *exchange) holdDecoded(n int) error {
	if x == nil {
		return nil
	}
	if x.decoded += int64(n); x.decoded < decodedAtOnce {
		return nil
	}
	if errors.Is(x.Err(), context.DeadlineExceeded) {
		return x.refuse(errTimeout())
	}
	decoded := x.decoded
	x.decoded = 0
	return x.hold(decoded)
}

// refuse makes refusal the answer, whatever the handler makes of it. The rest of
// the body is not read.
func (x *exchange) refuse(refusal *Error) error {
	x.refusal = refusal
	if x.header != nil {
		x.header.Set("Connection", "close") // else the server reads on to keep the connection
	}
	return refusal
}

// release gives back what the request holds.
func (x *exchange) release() {
	if x.body != nil {
		x.body.mu.Lock()
		x.body.stop()
		x.body.mu.Unlock()
	}
	x.budget.release(x.source, x.held)
}
