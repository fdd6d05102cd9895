package serve

import (
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// bound keeps the connections to the API at most at a number. A connection is
// at work from the moment a request has arrived completely to its answer, and
// waits at all other times: in silence, between requests, in the middle of
// headers or of a body. When there is no room for a new connection, the one that
// has waited for the longest makes room, so that nobody keeps others out by
// waiting. Each has a moment, though, so that a rush of new ones leaves them time for
// their requests.
type bound struct {
	max int
	log *slog.Logger

	mu      sync.Mutex
	changed sync.Cond // something ended or began to wait
	count   int
	waiting list.List // of *bounded; the one that has waited for the longest is first
	warned  time.Time
}

const (
	// leastWait is how long a connection may wait in any case.
	leastWait = 250 * time.Millisecond
	// warnEvery is the time between two lines about connections that made room.
	warnEvery = time.Minute
)

func newBound(most int, log *slog.Logger) *bound {
	b := &bound{max: most, log: log}
	b.changed.L = &b.mu
	return b
}

// bounded is a connection.
type bounded struct {
	net.Conn

	b     *bound
	work  int           // requests at work; HTTP/2 has many
	place *list.Element // among those that wait, else nil
	since time.Time     // when it began to wait
	ended bool
}

// boundedKey is the context key of a request's *bounded.
type boundedKey struct{}

// boundedListener bounds the connections of a listener. Several may share one
// bound.
type boundedListener struct {
	net.Listener

	b      *bound
	closed bool // guarded by b.mu
}

// Accept implements [net.Listener]. It returns the next connection when there is
// room for it.
func (l *boundedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err //nolint:wrapcheck // a plain pass-through
	}
	l.b.mu.Lock()
	defer l.b.mu.Unlock()
	for l.b.count >= l.b.max && !l.closed {
		l.b.makeRoom()
	}
	if l.closed {
		return nil, errors.Join(net.ErrClosed, conn.Close())
	}
	c := &bounded{Conn: conn, b: l.b}
	c.wait()
	l.b.count++
	return c, nil
}

// Close implements [net.Listener].
func (l *boundedListener) Close() error {
	err := l.Listener.Close()
	l.b.mu.Lock()
	defer l.b.mu.Unlock()
	l.closed = true
	l.b.changed.Broadcast()
	return err //nolint:wrapcheck // a plain pass-through
}

// makeRoom closes the connection that has waited for the longest, or waits until
// there may be one that has waited for long enough. The caller holds b.mu.
func (b *bound) makeRoom() {
	first := b.waiting.Front()
	if first == nil {
		b.changed.Wait()
		return
	}
	c := first.Value.(*bounded)
	if early := leastWait - time.Since(c.since); early > 0 {
		timer := time.AfterFunc(early, b.changed.Broadcast)
		defer timer.Stop()
		b.changed.Wait()
		return
	}
	c.end()
	_ = c.Conn.Close() // whoever waits on it learns the same
	if now := time.Now(); now.Sub(b.warned) >= warnEvery {
		b.warned = now
		b.log.Warn("connections are at their bound, those that wait for the longest are closed", "max_connections", b.max)
	}
}

// wait puts c behind all others that wait. The caller holds b.mu.
func (c *bounded) wait() {
	c.since = time.Now()
	c.place = c.b.waiting.PushBack(c)
}

// end takes c out of the count. The caller holds b.mu.
func (c *bounded) end() {
	if c.ended {
		return
	}
	c.ended = true
	c.leave()
	c.b.count--
	c.b.changed.Broadcast()
}

// leave takes c from those that wait. The caller holds b.mu.
func (c *bounded) leave() {
	if c.place != nil {
		c.b.waiting.Remove(c.place)
		c.place = nil
	}
}

// Close implements [net.Conn].
func (c *bounded) Close() error {
	err := c.Conn.Close()
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	c.end()
	return err //nolint:wrapcheck // a plain pass-through
}

// heard makes c the one that has waited for the shortest.
func (c *bounded) heard() {
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	if c.place != nil {
		c.leave()
		c.wait()
	}
}

// begin notes that a request has arrived.
func (c *bounded) begin() {
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	c.work++
	c.leave()
}

// finish notes that a request that had arrived has been answered.
func (c *bounded) finish() {
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	if c.work--; c.work == 0 && !c.ended {
		c.wait()
		c.b.changed.Broadcast()
	}
}

// connContext is for [http.Server.ConnContext].
func (b *bound) connContext(ctx context.Context, conn net.Conn) context.Context {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	return context.WithValue(ctx, boundedKey{}, conn)
}

// watch tells the connections when their requests arrive and are answered.
func (b *bound) watch(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, ok := r.Context().Value(boundedKey{}).(*bounded)
		if !ok {
			next.ServeHTTP(w, r)
			return
		}
		c.heard()
		arriving := &arrivingBody{ReadCloser: r.Body, conn: c}
		defer arriving.finish()
		if r.ContentLength == 0 {
			arriving.arrived()
		} else {
			r.Body = arriving
		}
		next.ServeHTTP(w, r)
	})
}

// arrivingBody notices the end of a request's body.
type arrivingBody struct {
	io.ReadCloser

	conn *bounded
	once sync.Once
	all  bool // has arrived; written before the handler returns
}

// Read implements [io.Reader].
func (a *arrivingBody) Read(p []byte) (int, error) {
	n, err := a.ReadCloser.Read(p)
	if err == io.EOF {
		a.arrived()
	}
	return n, err //nolint:wrapcheck // a plain pass-through
}

func (a *arrivingBody) arrived() {
	a.once.Do(func() {
		a.all = true
		a.conn.begin()
	})
}

// finish is called when the handler has returned: what arrives afterwards is of
// no interest.
func (a *arrivingBody) finish() {
	a.once.Do(func() {})
	if a.all {
		a.conn.finish()
	}
}
