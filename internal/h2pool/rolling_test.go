package h2pool_test

import (
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
)

// replica is the listener of one of several servers that replace one another
// behind one address; it is closed when its server shuts down.
type replica struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (r *replica) Accept() (net.Conn, error) {
	select {
	case c := <-r.conns:
		return c, nil
	case <-r.done:
		return nil, net.ErrClosed
	}
}

func (r *replica) Close() error {
	r.once.Do(func() { close(r.done) })
	return nil
}

func (r *replica) Addr() net.Addr { return r.addr }

func TestRollingRestartsLoseAndRepeatNothing(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	seen := make(map[string]int)
	progress := make(chan struct{}, 1<<20)
	handler := func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		mu.Lock()
		seen[string(b)]++
		mu.Unlock()
		progress <- struct{}{}
	}

	front := listen(t, "127.0.0.1:0")
	cert, roots := newCert(t)
	next := func() (*replica, *http.Server, func()) {
		ln := &replica{addr: front.Addr(), conns: make(chan net.Conn), done: make(chan struct{})}
		s := &http.Server{
			Handler:   http.HandlerFunc(handler),
			TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}},
			ErrorLog:  log.New(io.Discard, "", 0),
		}
		var wg sync.WaitGroup
		wg.Go(func() { _ = s.ServeTLS(ln, "", "") })
		return ln, s, wg.Wait
	}
	live, srv, wait := next()
	var liveMu sync.Mutex
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			c, err := front.Accept()
			if err != nil {
				return
			}
			for delivered := false; !delivered; {
				liveMu.Lock()
				to := live
				liveMu.Unlock()
				select {
				case to.conns <- c:
					delivered = true
				case <-to.done:
				}
			}
		}
	})

	p := newPool(t, front.Addr().String(), roots)
	stop := make(chan struct{})
	var workers sync.WaitGroup
	var sent atomic.Int32
	for w := range 20 {
		workers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				body := string(rune('a'+w)) + ":" + strconv.Itoa(i)
				if _, err := post(t.Context(), p, front.Addr().String(), body); err != nil {
					t.Errorf("request %s: %v", body, err)
				}
				sent.Add(1)
			}
		})
	}
	for range 5 {
		for range 200 {
			<-progress
		}
		old, oldWait := srv, wait
		liveMu.Lock()
		live, srv, wait = next()
		liveMu.Unlock()
		if err := old.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		oldWait()
	}
	close(stop)
	workers.Wait()
	p.Close()
	front.Close()
	accepting.Wait()
	srv.Close()
	wait()

	if len(seen) != int(sent.Load()) {
		t.Errorf("%d requests sent, %d seen", sent.Load(), len(seen))
	}
	for body, n := range seen {
		if n != 1 {
			t.Errorf("request %s was processed %d times", body, n)
		}
	}
}
