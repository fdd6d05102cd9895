package h2pool_test

import (
	"context"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/matrix-herald/herald/internal/h2pool"
)

// A request's first frame must leave although its body may not follow.
func TestAServerThatTakesABodyOnlyOnRequestGetsIt(t *testing.T) {
	t.Parallel()
	s := startRaw(t, func(_ int, c *rawConn) {
		_ = c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		for {
			f, err := c.ReadFrame()
			if err != nil {
				return
			}
			switch f := f.(type) {
			case *http2.MetaHeadersFrame:
				_ = c.WriteWindowUpdate(f.StreamID, 3)
			case *http2.DataFrame:
				if f.StreamEnded() {
					c.answer(f.StreamID)
				} else {
					_ = c.WriteWindowUpdate(f.StreamID, 3)
				}
			}
		}
	})
	mustPost(t, s.pool(t), s.addr, "a body of many windows")
}

// Conformance (connections): a server that reads nothing any more | its requests end, and others get another connection
func TestAServerThatReadsNothingIsLeft(t *testing.T) {
	t.Parallel()
	done := make(chan struct{})
	s := startRaw(t, func(n int, c *rawConn) {
		_ = c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30})
		_ = c.WriteWindowUpdate(0, 1<<30)
		if n == 0 {
			<-done
		}
		c.answerAll()
	})
	defer close(done)
	p := s.pool(t, func(o *h2pool.Options) { o.PingAfter, o.PingTimeout = 300*time.Millisecond, 100*time.Millisecond })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var lost atomic.Int32
	var all sync.WaitGroup
	for range 30 { // more than the system takes for the server
		all.Go(func() {
			_, err := post(ctx, p, s.addr, strings.Repeat("x", 1<<20))
			if err != nil {
				lost.Add(1)
			}
			if ctx.Err() != nil || h2pool.Unprocessed(err) {
				t.Errorf("error = %v; want a lost connection, or an answer by the next one", err)
			}
		})
	}
	all.Wait()
	if lost.Load() == 0 {
		t.Error("no request was lost with the connection")
	}
}

// recordCounter counts the TLS records that arrive on a connection.
type recordCounter struct {
	net.Conn
	header []byte
	left   int
	count  *atomic.Int32
}

func (c *recordCounter) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	for b := b[:n]; len(b) > 0; {
		if c.left > 0 {
			part := min(c.left, len(b))
			b, c.left = b[part:], c.left-part
			continue
		}
		c.header, b = append(c.header, b[0]), b[1:]
		if len(c.header) == 5 { // RFC 8446 section 5.1
			c.left, c.header = int(c.header[3])<<8|int(c.header[4]), nil
			c.count.Add(1)
		}
	}
	return n, err
}

type countingListener struct {
	net.Listener
	records atomic.Int32
}

func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &recordCounter{Conn: c, count: &l.records}, nil
}

// Each request is two frames, which net/http writes one by one.
func TestRequestsShareRecords(t *testing.T) {
	t.Parallel()
	for _, atOnce := range []int{1, 64} {
		ln := &countingListener{Listener: listen(t, "127.0.0.1:0")}
		s := serveOn(t, ln, func(http.ResponseWriter, *http.Request) {})
		p := s.pool(t)
		mustPost(t, p, s.addr, "first")
		before, requests := ln.records.Load(), 1024
		for range requests / atOnce {
			for _, err := range burst(t.Context(), p, s.addr, atOnce) {
				if err != nil {
					t.Fatal(err)
				}
			}
		}
		// Mostly fewer than one; a busy machine may interrupt a stream between its frames.
		if n := int(ln.records.Load() - before); n > requests*3/2 {
			t.Errorf("%d at once: %d requests in %d records", atOnce, requests, n)
		} else {
			t.Logf("%d at once: %d requests in %d records", atOnce, requests, n)
		}
	}
}
