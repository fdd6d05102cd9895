package pushtest

import (
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// service is a push service's server: TLS and HTTP/2 on 127.0.0.1, until the test
// ends.
type service struct {
	ca       *CA
	listener *trackingListener
	stop     chan struct{}
	close    func()
}

// listen returns a service whose connections wait until it serves.
func listen(tb testing.TB) *service {
	tb.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	return &service{ca: NewCA(tb), listener: &trackingListener{Listener: inner, conns: make(map[net.Conn]struct{})}, stop: make(chan struct{})}
}

// serve has handler answer. streams is the HTTP/2 setting, 0 for net/http's default.
func (s *service) serve(tb testing.TB, handler http.Handler, settings *tls.Config, streams int) {
	tb.Helper()
	server := &http.Server{
		Handler: handler, TLSConfig: settings, HTTP2: &http.HTTP2Config{MaxConcurrentStreams: streams},
		ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: time.Minute,
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.ServeTLS(s.listener, "", "") // ErrServerClosed
	}()
	s.close = sync.OnceFunc(func() {
		close(s.stop)
		_ = server.Close()
		s.CloseConnections()
		<-done
	})
	tb.Cleanup(s.close)
}

// URL returns the base URL, as the option endpoint wants it.
func (s *service) URL() string { return "https://" + s.Addr() }

// Addr is its host and port.
func (s *service) Addr() string { return s.listener.Addr().String() }

// CA returns the authority that signed the server's certificate.
func (s *service) CA() *CA { return s.ca }

// Close stops the server: its address refuses connections from now on.
func (s *service) Close() { s.close() }

// CloseConnections cuts all connections without a word.
func (s *service) CloseConnections() { s.listener.closeConns() }

// HoldHandshakes leaves connections that are made from now on without an answer,
// the TLS handshake included, until release is called.
func (s *service) HoldHandshakes() (release func()) { return s.listener.hold() }

// Connections returns how many connections have been made so far.
func (s *service) Connections() int { return s.listener.count() }

// write plays an answer.
func (s *service) write(w http.ResponseWriter, r *http.Request, answer FCMAnswer) {
	if !pause(r.Context(), answer.Delay, s.stop) {
		return
	}
	switch {
	case answer.Hang:
		select {
		case <-r.Context().Done():
		case <-s.stop:
		}
		return
	case answer.Cut:
		s.listener.closeConn(r.RemoteAddr)
		return
	}
	for name, value := range map[string]string{"Retry-After": answer.RetryAfter, "Location": answer.Location} {
		if value != "" {
			w.Header().Set(name, value)
		}
	}
	if name, value, ok := strings.Cut(answer.Header, ": "); ok {
		w.Header().Set(name, value)
	}
	if answer.GoAway {
		w.Header().Set("Connection", "close") // net/http turns it into GOAWAY
	}
	if answer.Status == 0 {
		answer.Status = http.StatusOK
	}
	w.WriteHeader(answer.Status)
	_, _ = io.WriteString(w, answer.Body) // the client may have gone
	if answer.Endless != nil {
		left, part := 0, make([]byte, 64<<10)
		for left < 1<<30 {
			n, err := w.Write(part)
			if left += n; err != nil {
				break
			}
		}
		answer.Endless <- left
	}
}
