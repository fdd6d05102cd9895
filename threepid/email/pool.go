package email

import (
	"slices"
	"sync"
	"time"
)

// maxIdle bounds the connections that wait for the next mail.
const maxIdle = 4

// pool keeps idle connections, each for a while.
type pool struct {
	timeout time.Duration

	mu      sync.Mutex
	idle    []*conn // the one used last at the end
	closed  bool
	leaving sync.WaitGroup // timers that are set or run
}

// take returns the connection used last, or nil.
func (p *pool) take() *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.idle) == 0 {
		return nil
	}
	c := p.idle[len(p.idle)-1]
	p.remove(c)
	return c
}

// put keeps c for the next mail, or closes it if there are enough.
func (p *pool) put(c *conn) {
	p.mu.Lock()
	keep := !p.closed && len(p.idle) < maxIdle
	if keep {
		p.idle = append(p.idle, c)
		p.leaving.Add(1)
		c.expiry = time.AfterFunc(p.timeout, func() { p.expire(c) })
	}
	p.mu.Unlock()
	if !keep {
		c.quit()
	}
}

// remove takes c out and stops its timer.
func (p *pool) remove(c *conn) {
	p.idle = slices.DeleteFunc(p.idle, func(other *conn) bool { return other == c })
	if c.expiry.Stop() {
		p.leaving.Done()
	}
}

// expire closes c unless it has been taken in the meantime.
func (p *pool) expire(c *conn) {
	defer p.leaving.Done()
	p.mu.Lock()
	present := slices.Contains(p.idle, c)
	if present {
		p.idle = slices.DeleteFunc(p.idle, func(other *conn) bool { return other == c })
	}
	p.mu.Unlock()
	if present {
		c.quit()
	}
}

// close says goodbye on all idle connections and keeps none from now on.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	var all []*conn
	for len(p.idle) > 0 {
		c := p.idle[0]
		p.remove(c)
		all = append(all, c)
	}
	p.mu.Unlock()
	for _, c := range all {
		c.quit()
	}
	p.leaving.Wait()
}
