package h2pool

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
)

// conn is one connection: the net.Conn under a [http.ClientConn] and the
// pool's account of it. Sitting below net/http it learns what ClientConn does
// not tell: that the first SETTINGS has come (a limit equal to net/http's
// provisional one changes nothing a caller could see), that a GOAWAY has come
// (no state hook runs), and the GOAWAY's debug data.
//
// The pool counts requests itself and does not use ClientConn.Reserve: when the
// server lowers its limit below the number of reservations, the reserved
// requests wait for one another.
type conn struct {
	*tls.Conn
	pool *Pool
	cc   *http.ClientConn
	out  *writer

	// Used by Read, which only net/http's read loop calls.
	frames   frameScanner
	settings bool // the first SETTINGS has been seen
	limit    int
	changed  bool // limit has not been reported yet

	goAway atomic.Pointer[GoAwayError]
	ready  chan struct{} // closed when the first SETTINGS is in force
	done   chan struct{} // closed when the connection has ended

	// Guarded by the pool's mutex.
	streams   int   // the limit in force, 0 before ready
	inFlight  int   // requests on the connection
	used      bool  // it was given a request
	answered  bool  // it answered one
	draining  bool  // GOAWAY received, or idle for too long: no further requests
	ended     bool  // done is closed
	endErr    error // why it ended
	idleSince time.Time
}

func newConn(p *Pool, tc *tls.Conn) *conn {
	c := &conn{Conn: tc, pool: p, out: newWriter(), ready: make(chan struct{}), done: make(chan struct{}), idleSince: time.Now()}
	p.wg.Go(func() {
		p.connEnded(c, c.out.run(tc))
		c.Close()
	})
	return c
}

// Read hands bytes to net/http and follows the frames in them. A new limit
// takes effect in the pool at the following call: net/http reads on only when
// it has acted on all it was given, and a request sent before that would wait
// inside net/http, where a raised limit wakes nobody.
func (c *conn) Read(b []byte) (int, error) {
	if c.changed {
		c.changed = false
		c.pool.limitChanged(c, c.limit)
	}
	n, err := c.Conn.Read(b)
	c.follow(b[:n])
	if err != nil {
		// What the system told the writer it does not tell again.
		err = c.out.fail(err)
		c.pool.connEnded(c, err)
	}
	return n, err
}

// Write hands net/http's frames to the writer.
func (c *conn) Write(b []byte) (int, error) { return c.out.Write(b) }

func (c *conn) follow(b []byte) {
	for len(b) > 0 {
		n, done := c.frames.next(b)
		b = b[n:]
		if !done {
			continue
		}
		if c.frames.kind() == http2.FrameGoAway {
			if g := c.frames.goAway(); g != nil {
				c.mergeGoAway(g)
				c.pool.goingAway(c, g)
			}
			continue
		}
		limit, named := c.frames.maxStreams()
		switch {
		case named:
			c.limit = int(min(limit, 1<<30))
		case !c.settings:
			c.limit = unlimitedStreams
		}
		c.settings, c.changed = true, true
	}
}

// mergeGoAway stores a GOAWAY. An orderly shutdown sends two: the first words
// and the first error count, and the last stream of the latest.
func (c *conn) mergeGoAway(g *GoAwayError) {
	if old := c.goAway.Load(); old != nil {
		if g.Debug == "" {
			g.Debug = old.Debug
		}
		if old.Code != http2.ErrCodeNo {
			g.Code = old.Code
		}
	}
	c.goAway.Store(g)
}

// Close is called by net/http when it gives the connection up, for example
// because a ping was not answered.
func (c *conn) Close() error {
	c.pool.connEnded(c, net.ErrClosed)
	_ = c.out.fail(net.ErrClosed) // there may be an earlier reason
	// Saying goodbye to a peer that no longer reads may take seconds.
	t := time.AfterFunc(250*time.Millisecond, func() { c.NetConn().Close() })
	defer t.Stop()
	return c.Conn.Close()
}

// body gives the request's place back at the end of the response.
type body struct {
	io.ReadCloser
	pool     *Pool
	conn     *conn
	released atomic.Bool
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.release()
	}
	return n, err
}

func (b *body) Close() error {
	defer b.release()
	return b.ReadCloser.Close()
}

func (b *body) release() {
	if b.released.CompareAndSwap(false, true) {
		b.pool.release(b.conn, true)
	}
}
