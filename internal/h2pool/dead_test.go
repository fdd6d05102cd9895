package h2pool_test

import (
	"context"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/matrix-herald/herald/internal/h2pool"
)

// relay is a TCP hop that can stop forwarding without closing anything.
type relay struct {
	addr string
	mu   sync.Mutex
	stop chan struct{} // closed to stop the connections made so far
	end  chan struct{} // closed to let those go
}

func startRelay(t *testing.T, target string) *relay {
	t.Helper()
	ln := listen(t, "127.0.0.1:0")
	r := &relay{addr: ln.Addr().String(), stop: make(chan struct{}), end: make(chan struct{})}
	serveConns(t, ln, func(in net.Conn) {
		out, err := new(net.Dialer).DialContext(t.Context(), "tcp", target)
		if err != nil {
			return
		}
		r.mu.Lock()
		stop := r.stop
		r.mu.Unlock()
		var wg sync.WaitGroup
		wg.Go(func() { r.forward(out, in, stop) })
		wg.Go(func() { r.forward(in, out, stop) })
		wg.Wait()
	})
	t.Cleanup(func() { close(r.end) })
	return r
}

func (r *relay) forward(to, from net.Conn, stop chan struct{}) {
	defer to.Close()
	b := make([]byte, 4096)
	for {
		n, err := from.Read(b)
		select {
		case <-stop:
			<-r.end
			return
		default:
		}
		if _, werr := to.Write(b[:n]); err != nil || werr != nil {
			return
		}
	}
}

// freeze stops the connections made so far.
func (r *relay) freeze() {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.stop)
	r.stop = make(chan struct{})
}

// Conformance (connections): a dead connection is found and replaced
func TestADeadConnectionIsFoundByPingsAndReplaced(t *testing.T) {
	t.Parallel()
	s := startServer(t, func(http.ResponseWriter, *http.Request) {})
	r := startRelay(t, s.addr)
	p := newPool(t, r.addr, s.roots, func(o *h2pool.Options) {
		o.PingAfter, o.PingTimeout = 100*time.Millisecond, 100*time.Millisecond
	})
	mustPost(t, p, r.addr, "before")
	r.freeze()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := post(ctx, p, r.addr, "into the void"); err == nil || ctx.Err() != nil || h2pool.Unprocessed(err) {
		t.Errorf("error = %v; want a lost connection, not unprocessed", err)
	}
	mustPost(t, p, r.addr, "after")
	if n := s.conns.Load(); n != 2 {
		t.Errorf("%d connections, want 2", n)
	}
}
