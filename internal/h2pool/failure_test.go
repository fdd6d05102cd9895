package h2pool_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/matrix-herald/herald/internal/h2pool"
)

func TestARequestTheServerHasNotProcessedIsSentAgain(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		refuse func(c *rawConn, stream uint32)
	}{
		{"after an orderly GOAWAY below its stream", func(c *rawConn, _ uint32) {
			c.WriteGoAway(0, http2.ErrCodeNo, nil)
		}},
		{"after GOAWAY with an error on the first stream", func(c *rawConn, _ uint32) {
			c.WriteGoAway(0, http2.ErrCodeInternal, nil)
		}},
		{"after REFUSED_STREAM", func(c *rawConn, stream uint32) {
			c.WriteRSTStream(stream, http2.ErrCodeRefusedStream)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var requests atomic.Int32
			s := startRaw(t, func(_ int, c *rawConn) {
				c.limit(100)
				for {
					id, ok := c.request()
					switch {
					case !ok:
						return
					case requests.Add(1) <= 2:
						tt.refuse(c, id)
					default:
						c.answer(id)
					}
				}
			})
			mustPost(t, s.pool(t), s.addr, "body")
			if n := requests.Load(); n != 3 {
				t.Errorf("the server saw %d attempts, want 3", n)
			}
		})
	}
}

func TestARequestRefusedForGoodIsUnprocessed(t *testing.T) {
	t.Parallel()
	const reason = `{"reason":"BadCertificate"}`
	tests := []struct {
		name     string
		oneShot  bool // the body cannot be sent again
		refuse   func(c *rawConn, stream uint32)
		attempts int32
		goAway   bool
	}{
		{"by REFUSED_STREAM three times", false, func(c *rawConn, stream uint32) {
			c.WriteRSTStream(stream, http2.ErrCodeRefusedStream)
		}, 3, false},
		{"by REFUSED_STREAM once, with a body that cannot be repeated", true, func(c *rawConn, stream uint32) {
			c.WriteRSTStream(stream, http2.ErrCodeRefusedStream)
		}, 1, false},
		{"by GOAWAY with a reason three times", false, func(c *rawConn, _ uint32) {
			c.WriteGoAway(0, http2.ErrCodeEnhanceYourCalm, []byte(reason))
		}, 3, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var requests atomic.Int32
			s := startRaw(t, func(_ int, c *rawConn) {
				c.limit(100)
				for {
					id, ok := c.request()
					if !ok {
						return
					}
					requests.Add(1)
					tt.refuse(c, id)
				}
			})
			p := s.pool(t)
			req := request(t.Context(), t, s.addr, "/")
			req.Method, req.Body = http.MethodPost, io.NopCloser(strings.NewReader("body"))
			if !tt.oneShot {
				req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("body")), nil }
			}
			_, err := p.RoundTrip(req)
			if !h2pool.Unprocessed(err) {
				t.Errorf("error = %v; want an unprocessed one", err)
			}
			if n := requests.Load(); n != tt.attempts {
				t.Errorf("%d attempts, want %d", n, tt.attempts)
			}
			if g, ok := errors.AsType[*h2pool.GoAwayError](err); ok != tt.goAway {
				t.Errorf("GOAWAY in the error: %v, want %v", ok, tt.goAway)
			} else if ok && (g.Debug != reason || g.Code != http2.ErrCodeEnhanceYourCalm) {
				t.Errorf("GOAWAY %v %q", g.Code, g.Debug)
			}
		})
	}
}

// Conformance (connections): what may have been processed is never sent again by itself
func TestARequestTheServerMayHaveProcessedIsNotSentAgain(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		cut    func(c *rawConn, stream uint32)
		goAway bool
	}{
		{"after a cut", func(c *rawConn, _ uint32) { c.nc.Close() }, false},
		{"after a GOAWAY that covers it and a cut", func(c *rawConn, stream uint32) {
			c.WriteGoAway(stream, http2.ErrCodeNo, []byte("bye"))
			c.nc.Close()
		}, true},
		{"after a reset for another reason", func(c *rawConn, stream uint32) {
			c.WriteRSTStream(stream, http2.ErrCodeInternal)
		}, false},
		{"after a reset for a protocol error", func(c *rawConn, stream uint32) {
			c.WriteRSTStream(stream, http2.ErrCodeProtocol)
		}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var requests atomic.Int32
			s := startRaw(t, func(_ int, c *rawConn) {
				c.limit(100)
				for {
					id, ok := c.request()
					if !ok {
						return
					}
					requests.Add(1)
					tt.cut(c, id)
				}
			})
			p := s.pool(t)
			_, err := post(t.Context(), p, s.addr, "body")
			if err == nil || h2pool.Unprocessed(err) {
				t.Errorf("error = %v; want one that is not unprocessed", err)
			}
			if g, ok := errors.AsType[*h2pool.GoAwayError](err); ok != tt.goAway || ok && g.Debug != "bye" {
				t.Errorf("GOAWAY in the error: %v, want %v", g, tt.goAway)
			}
			if n := requests.Load(); n != 1 {
				t.Errorf("the server saw %d attempts, want 1", n)
			}
			if n := p.Stats().InFlight; n != 0 {
				t.Errorf("%d places are still taken", n)
			}
		})
	}
}

func TestADrainedConnectionFinishesWhatItCarries(t *testing.T) {
	t.Parallel()
	finish := make(chan struct{})
	s := startRaw(t, func(n int, c *rawConn) {
		c.limit(100)
		if n > 0 {
			c.answerAll()
			return
		}
		id, _ := c.request()
		c.WriteGoAway(id, http2.ErrCodeNo, nil)
		<-finish
		c.answer(id)
		c.request() // until the client leaves
	})
	p := s.pool(t, maxConns(1))
	first := start(t.Context(), p, s.addr, "first")
	eventually(t, "the connection drains", func() bool { return p.Stats().Draining == 1 })
	mustPost(t, p, s.addr, "second")
	close(finish)
	if err := <-first; err != nil {
		t.Error(err)
	}
	eventually(t, "the drained connection is closed", func() bool {
		return p.Stats() == h2pool.Stats{Open: 1, Dials: 2}
	})
}

// A server that takes requests only to drop them is dialled ever more slowly.
func TestConnectionsThatNeverAnswerCountAsFailedDials(t *testing.T) {
	t.Parallel()
	s := startRaw(t, func(_ int, c *rawConn) {
		c.limit(100)
		c.request()
	})
	p := s.pool(t)
	begin := time.Now()
	for range 4 {
		if _, err := post(t.Context(), p, s.addr, "body"); err == nil || h2pool.Unprocessed(err) {
			t.Errorf("error = %v; want one that is not unprocessed", err)
		}
	}
	if took, want := time.Since(begin), 700*time.Millisecond; took < want {
		t.Errorf("four dials in %v, want pauses of %v in sum", took, want)
	}
	eventually(t, "all count as failed", func() bool { return p.Stats().DialFailures == 4 })
}

func TestConnectionsLeftInOrderBeforeAnAnswerAreNotReplacedWithoutPause(t *testing.T) {
	t.Parallel()
	s := startRaw(t, func(_ int, c *rawConn) {
		c.limit(1)
		c.request()
		c.WriteGoAway(0, http2.ErrCodeNo, []byte("draining"))
		c.request() // until the client leaves
	})
	p := s.pool(t)
	begin := time.Now()
	_, err := post(t.Context(), p, s.addr, "body")
	g, ok := errors.AsType[*h2pool.GoAwayError](err)
	if !h2pool.Unprocessed(err) || !ok || g.Debug != "draining" {
		t.Errorf("error = %v; want an unprocessed one with the GOAWAY", err)
	}
	if took, want := time.Since(begin), 300*time.Millisecond; took < want {
		t.Errorf("three dials in %v, want pauses of %v in sum", took, want)
	}
	if n := p.Stats().DialFailures; n != 3 {
		t.Errorf("%d failed dials, want 3", n)
	}
}

func TestAServerThatComesBackIsFoundAgain(t *testing.T) {
	t.Parallel()
	answer := func(http.ResponseWriter, *http.Request) {}
	s := startServer(t, answer)
	p := s.pool(t)
	mustPost(t, p, s.addr, "before")
	s.config.Close()
	eventually(t, "the connection is gone", func() bool { return p.Stats().Open == 0 })
	if _, err := post(t.Context(), p, s.addr, "down"); !h2pool.Unprocessed(err) {
		t.Errorf("error = %v; want an unprocessed one", err)
	}
	serveOn(t, listen(t, s.addr), answer, sameCert(s))
	mustPost(t, p, s.addr, "after")
}

func TestRequestsToADeadHostFailAtOnceWithFewDials(t *testing.T) {
	t.Parallel()
	ln := listen(t, "127.0.0.1:0")
	addr := ln.Addr().String()
	ln.Close()
	p := newPool(t, addr, nil)
	for _, err := range burst(t.Context(), p, addr, 300) {
		if !h2pool.Unprocessed(err) || !strings.Contains(err.Error(), addr) {
			t.Fatalf("error = %v; want an unprocessed one naming the host", err)
		}
	}
	s := p.Stats()
	if s.Dials > 5 || s.DialFailures != s.Dials {
		t.Errorf("%d dials, %d failed; want a handful, all failed", s.Dials, s.DialFailures)
	}
}

func TestAFailedDialDoesNotFailRequestsThatAConnectionCanServe(t *testing.T) {
	t.Parallel()
	arrived, proceed := make(chan struct{}, 2), make(chan struct{}, 2)
	ln := listen(t, "127.0.0.1:0")
	s := serveOn(t, ln, func(http.ResponseWriter, *http.Request) {
		arrived <- struct{}{}
		<-proceed
	}, maxStreams(1))
	p := s.pool(t)
	first := start(t.Context(), p, s.addr, "first")
	<-arrived
	ln.Close()
	second := start(t.Context(), p, s.addr, "second")
	eventually(t, "two dials have failed", func() bool { return p.Stats().DialFailures >= 2 })
	proceed <- struct{}{}
	proceed <- struct{}{}
	if err := errors.Join(<-first, <-second); err != nil {
		t.Error(err)
	}
}

func TestTheErrorOfAnImpatientRequestNamesTheFailedDial(t *testing.T) {
	t.Parallel()
	ln := listen(t, "127.0.0.1:0")
	addr := ln.Addr().String()
	ln.Close()
	p := newPool(t, addr, nil)
	_, err := post(t.Context(), p, addr, "first")
	wantUnprocessed(t, err, "refused")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond) // the pause is 100 ms
	defer cancel()
	_, err = post(ctx, p, addr, "second")
	if !h2pool.Unprocessed(err) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "refused") {
		t.Errorf("error = %v; want the deadline and the refused connection", err)
	}
}
