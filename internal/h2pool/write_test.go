package h2pool_test

import (
	"context"
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
