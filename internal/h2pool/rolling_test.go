package h2pool_test

import (
	"crypto/tls"
	"crypto/x509"
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

// site is one address whose server is replaced again and again.
type site struct {
	addr    string
	roots   *x509.CertPool
	cert    tls.Certificate
	handler http.HandlerFunc

	mu   sync.Mutex
	live *replica
	srv  *http.Server
	done chan struct{} // closed when srv has stopped serving
}

func startSite(t *testing.T, h http.HandlerFunc) *site {
	t.Helper()
	front := listen(t, "127.0.0.1:0")
	s := &site{addr: front.Addr().String(), handler: h}
	s.cert, s.roots = newCert(t)
	s.replace(front.Addr())
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			c, err := front.Accept()
			if err != nil {
				return
			}
			s.hand(c)
		}
	})
	t.Cleanup(func() {
		front.Close()
		s.srv.Close()
		<-s.done
		accepting.Wait()
	})
	return s
}

// hand gives a connection to the present server, or to its successor if it leaves.
func (s *site) hand(c net.Conn) {
	for {
		s.mu.Lock()
		to := s.live
		s.mu.Unlock()
		select {
		case to.conns <- c:
			return
		case <-to.done:
		}
	}
}

// replace starts a server in place of the present one, which it returns.
func (s *site) replace(addr net.Addr) (*http.Server, chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, oldDone := s.srv, s.done
	ln, done := &replica{addr: addr, conns: make(chan net.Conn), done: make(chan struct{})}, make(chan struct{})
	srv := &http.Server{
		Handler:   s.handler,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{s.cert}},
		ErrorLog:  log.New(io.Discard, "", 0),
	}
	go func() {
		defer close(done)
		_ = srv.ServeTLS(ln, "", "")
	}()
	s.live, s.srv, s.done = ln, srv, done
	return old, oldDone
}

// Conformance (connections): rolling GOAWAY loses and repeats nothing
func TestRollingRestartsLoseAndRepeatNothing(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	seen := make(map[string]int)
	progress := make(chan struct{}, 1<<20)
	s := startSite(t, func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		mu.Lock()
		seen[string(b)]++
		mu.Unlock()
		progress <- struct{}{}
	})
	p := newPool(t, s.addr, s.roots)
	var stop atomic.Bool
	var workers sync.WaitGroup
	var sent atomic.Int32
	for w := range 20 {
		workers.Go(func() {
			for i := 0; !stop.Load(); i++ {
				body := strconv.Itoa(w) + ":" + strconv.Itoa(i)
				if _, err := post(t.Context(), p, s.addr, body); err != nil {
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
		old, done := s.replace(s.live.addr)
		if err := old.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		<-done
	}
	stop.Store(true)
	workers.Wait()

	mu.Lock()
	defer mu.Unlock()
	if len(seen) != int(sent.Load()) {
		t.Errorf("%d requests sent, %d seen", sent.Load(), len(seen))
	}
	for body, n := range seen {
		if n != 1 {
			t.Errorf("request %s was processed %d times", body, n)
		}
	}
}
