package h2pool

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/net/http2"
)

// waiter is a request without a connection.
type waiter struct {
	grant chan grant // buffered: whoever answers does not wait
}

// grant gives a waiter its place on a connection, or the reason why it has none.
type grant struct {
	conn *conn
	err  error
}

// acquire takes a place on a connection, if possible not on avoid, and waits
// for one in turn if there is none.
func (p *Pool) acquire(ctx context.Context, avoid *conn) (*conn, error) {
	if ctx.Err() != nil {
		return nil, waitError(ctx, nil)
	}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, &UnprocessedError{Op: "request to " + p.opts.Addr, Err: ErrClosed}
	}
	// While others wait nothing is free: serve hands out every place.
	if c := p.pick(avoid); c != nil {
		p.take(c)
		p.mu.Unlock()
		return c, nil
	}
	w := &waiter{grant: make(chan grant, 1)}
	place := p.waiters.PushBack(w)
	p.serve()
	p.mu.Unlock()

	select {
	case g := <-w.grant:
		return g.conn, g.err
	case <-ctx.Done():
		return nil, p.giveUp(ctx, place, w)
	}
}

// giveUp leaves the queue, passing on a place that was granted meanwhile.
func (p *Pool) giveUp(ctx context.Context, place *list.Element, w *waiter) error {
	p.mu.Lock()
	p.waiters.Remove(place) // nothing if it was served already
	lastErr := p.lastErr
	p.mu.Unlock()
	select {
	case g := <-w.grant:
		if g.conn != nil {
			p.release(g.conn, false)
		}
	default:
	}
	return waitError(ctx, lastErr)
}

// waitError says why a request stopped waiting, and why there was nothing to be had.
func waitError(ctx context.Context, lastErr error) error {
	err := ctx.Err()
	if cause := context.Cause(ctx); !errors.Is(err, cause) {
		err = fmt.Errorf("%w (%w)", err, cause)
	}
	if lastErr != nil {
		err = fmt.Errorf("%w; the last attempt to connect: %w", err, lastErr)
	}
	return &UnprocessedError{Op: "waiting for a connection", Err: err}
}

// pick returns the connection with the fewest requests that has room, so that
// one which stopped answering does not attract the traffic. The connection to
// avoid comes last. The mutex is held.
func (p *Pool) pick(avoid *conn) *conn {
	var best *conn
	for _, c := range p.conns {
		if c.inFlight >= c.streams {
			continue
		}
		if best == nil || best == avoid || c != avoid && c.inFlight < best.inFlight {
			best = c
		}
	}
	return best
}

// take accounts for one more request on c. The mutex is held.
func (p *Pool) take(c *conn) {
	c.inFlight++
	c.used = true
	p.inFlight++
}

// release gives a place on c back; answered says that the server responded.
func (p *Pool) release(c *conn, answered bool) {
	p.mu.Lock()
	c.inFlight--
	p.inFlight--
	if c.inFlight == 0 {
		c.idleSince = time.Now()
	}
	if answered {
		c.answered = true
		p.failures, p.lastErr = 0, nil
	}
	finished := c.draining && c.inFlight == 0
	p.serve()
	p.mu.Unlock()
	if finished {
		c.Close()
	}
}

// serve gives free places to waiters, first come first served, and starts a
// dial if some are left without. Whoever changes the state calls it with the
// mutex held.
func (p *Pool) serve() {
	for p.waiters.Len() > 0 {
		c := p.pick(nil)
		if c == nil {
			break
		}
		p.take(c)
		p.answer(grant{conn: c})
	}
	mayDial := !p.dialing && !p.closed && (p.opts.maxConns == 0 || len(p.conns) < p.opts.maxConns)
	if p.waiters.Len() > 0 && mayDial {
		p.dialing = true
		p.wg.Go(p.dial)
	}
}

// answer ends the wait of the oldest waiter. The mutex is held.
func (p *Pool) answer(g grant) {
	w := p.waiters.Remove(p.waiters.Front()).(*waiter)
	w.grant <- g
}

// failWaiters ends every wait with an error. The mutex is held.
func (p *Pool) failWaiters(op string, err error) {
	for p.waiters.Len() > 0 {
		p.answer(grant{err: &UnprocessedError{Op: op, Err: err}})
	}
}

// limitChanged puts the server's stream limit into force.
func (p *Pool) limitChanged(c *conn, limit int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.streams = min(limit, p.opts.MaxStreamsPerConn)
	select {
	case <-c.ready:
	default:
		close(c.ready)
	}
	p.serve()
}

// goingAway stops new requests on c; those it carries finish.
func (p *Pool) goingAway(c *conn, g *GoAwayError) {
	p.mu.Lock()
	c.draining = true
	if orderly := g.Code == http2.ErrCodeNo; orderly && g.LastStreamID > 0 {
		p.drop(c) // it has taken requests and will answer them
		p.serve()
	} else {
		p.remove(c, g, orderly)
	}
	idle := c.inFlight == 0
	p.mu.Unlock()
	if idle {
		c.Close()
	}
}

// connEnded records that c can no longer be used.
func (p *Pool) connEnded(c *conn, err error) {
	if g := c.goAway.Load(); g != nil {
		err = g
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.ended {
		return
	}
	c.ended, c.endErr = true, err
	close(c.done)
	delete(p.all, c)
	p.remove(c, err, false)
}

// remove takes c from the connections that accept requests. One that was given
// requests and never answered any counts as a failed dial: otherwise a server
// that accepts connections only to leave them would be dialled without pause.
// After an orderly leave the waiters stay for the next dial. The mutex is held.
func (p *Pool) remove(c *conn, err error, orderly bool) {
	if p.drop(c) && c.used && !c.answered && !p.closed {
		p.dialFailed(err)
		if !orderly {
			p.failStranded(err)
		}
	}
	p.serve()
}

// drop takes c out of conns and reports whether it was there. The mutex is held.
func (p *Pool) drop(c *conn) bool {
	i := slices.Index(p.conns, c)
	if i < 0 {
		return false
	}
	p.conns = slices.Delete(p.conns, i, i+1)
	return true
}

// dialFailed makes the next dial wait. The mutex is held.
func (p *Pool) dialFailed(err error) {
	p.dialFailures++
	p.failures++
	p.retryAt = time.Now().Add(min(minPause<<min(p.failures-1, 10), maxPause))
	p.lastErr = err
}

// failStranded fails the waiters unless an open connection is left to serve
// them. The mutex is held.
func (p *Pool) failStranded(err error) {
	if len(p.conns) == 0 {
		p.failWaiters("no connection", err)
	}
}

// closeIdle closes connections without requests, all but the last.
func (p *Pool) closeIdle() {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return
	}
	p.wg.Add(1)
	defer p.wg.Done()
	var idle []*conn
	for _, c := range slices.Backward(p.conns) {
		if len(p.conns) > 1 && c.inFlight == 0 && time.Since(c.idleSince) >= p.opts.IdleTimeout {
			c.draining = true
			p.drop(c)
			idle = append(idle, c)
		}
	}
	if len(p.conns) > 1 {
		p.idle.Reset(p.opts.IdleTimeout)
	}
	p.mu.Unlock()
	for _, c := range idle {
		c.Close()
	}
}
