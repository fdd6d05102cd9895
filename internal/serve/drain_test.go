package serve_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/internal/serve"
)

// A homeserver such as Dendrite sends each notification once: what is refused or
// cut off while a service is replaced is lost.
func TestDrainingUnderLoadLosesNothing(t *testing.T) {
	t.Parallel()
	entered, finish := make(chan struct{}), make(chan struct{})
	s := start(t, options(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(entered)
			<-finish
		}
		hello(w, r)
	}))
	slow := make(chan response, 1)
	slowErr := make(chan error, 1)
	go func() {
		r, err := request(t, client(t), http.MethodPost, s.url("/slow"))
		slow <- r
		slowErr <- err
	}()
	<-entered

	var after atomic.Int64
	var draining atomic.Bool
	var load, warm sync.WaitGroup
	warm.Add(8)
	for i := range 8 {
		load.Go(func() {
			c := client(t)
			if _, err := request(t, c, http.MethodPost, s.url("/")); err != nil {
				t.Errorf("client %d: %v", i, err)
			}
			warm.Done()
			// POSTs, because the client would repeat a GET that met a closed connection.
			for sent := 0; sent < 25; {
				late := draining.Load()
				r, err := request(t, c, http.MethodPost, s.url("/"))
				if err != nil || r.StatusCode != http.StatusOK || r.body != "hello" {
					t.Errorf("client %d: %v", i, err)
					return
				}
				if !late {
					continue
				}
				if !r.Close {
					t.Errorf("client %d: the connection is kept alive while draining", i)
				}
				sent++
				after.Add(1)
			}
		})
	}
	warm.Wait()
	s.drain(t)
	draining.Store(true)
	load.Wait()
	if after.Load() != 8*25 {
		t.Errorf("%d requests answered while draining, want %d", after.Load(), 8*25)
	}

	close(s.abort) // ends the drain delay
	waitRefused(t, s.api[0])
	if r := get(t, client(t), s.adminURL("/readyz")); r.StatusCode != http.StatusServiceUnavailable ||
		r.body != `{"status":"unavailable","reasons":["draining"]}` {
		t.Errorf("the administrator reads %d %s during the shutdown", r.StatusCode, r.body)
	}
	select {
	case err := <-s.ended:
		t.Fatalf("the service ended with a request in flight: %v", err)
	default:
	}
	close(finish)
	if r, err := <-slow, <-slowErr; err != nil || r.body != "hello" || !r.Close {
		t.Errorf("the request in flight got %q, close %v (%v)", r.body, r.Close, err)
	}
	if err := <-s.ended; err != nil {
		t.Errorf("the service ended with %v", err)
	}
}

// waitRefused returns once nobody listens at addr any more.
func waitRefused(t *testing.T, addr net.Addr) {
	t.Helper()
	for {
		conn, err := new(net.Dialer).DialContext(t.Context(), addr.Network(), addr.String())
		if err != nil {
			if t.Context().Err() != nil {
				t.Fatal("the listener stayed open")
			}
			return
		}
		_ = conn.Close()
	}
}

func TestEveryKindOfResponseIsTheLastWhileDraining(t *testing.T) {
	t.Parallel()
	s := start(t, options(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/status":
			w.WriteHeader(http.StatusNoContent)
		case "/hints":
			w.WriteHeader(http.StatusEarlyHints)
			hello(w, r)
		case "/flush":
			w.(http.Flusher).Flush()
		}
	}))
	paths := []string{"/nothing", "/status", "/hints", "/flush", "/health", "/version"}
	for _, path := range paths {
		if get(t, client(t), s.url(path)).Close {
			t.Errorf("%s: closed before draining", path)
		}
	}
	s.drain(t)
	for _, path := range paths {
		if !get(t, client(t), s.url(path)).Close {
			t.Errorf("%s: kept alive while draining", path)
		}
	}
}

func TestTheDrainDelayEndsByItself(t *testing.T) {
	t.Parallel()
	o := options(hello)
	o.Config.DrainDelay = conf.Duration(20 * time.Millisecond)
	s := start(t, o)
	s.stop()
	if err := <-s.ended; err != nil {
		t.Errorf("the service ended with %v", err)
	}
}

func TestRequestsBeyondTheTimeToStopAreCutOff(t *testing.T) {
	t.Parallel()
	entered, cut, cause := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	o := options(func(_ http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
		cause <- context.Cause(r.Context())
		<-cut // it would be answered if its connection were not closed
	})
	o.Config.DrainDelay = 0
	o.Config.StopWithin = conf.Duration(20 * time.Millisecond)
	s := start(t, o)
	answered := make(chan error, 1)
	go func() {
		_, err := request(t, client(t), http.MethodGet, s.url("/"))
		answered <- err
	}()
	<-entered
	s.stop()
	if err := <-s.ended; err == nil || !strings.Contains(err.Error(), "cut off after 20ms") {
		t.Errorf("the service ended with %v", err)
	}
	if err := <-answered; err == nil {
		t.Error("the request was answered")
	}
	close(cut)
	if err := <-cause; err == nil || !strings.Contains(err.Error(), "the service stopped before the request was done") {
		t.Errorf("the request learns %v", err)
	}
}

func TestHTTP2ConnectionsEndWhileDraining(t *testing.T) {
	t.Parallel()
	pair := newPair(t)
	pair.write(t, "one")
	o := options(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Proto+" "+r.RemoteAddr)
	})
	o.Config.TLS.CertFile, o.Config.TLS.KeyFile = pair.cert, pair.key
	s := start(t, o)
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: pair.clientConfig(), ForceAttemptHTTP2: true}}
	url := "https://" + s.api[0].String()
	first, second := get(t, c, url), get(t, c, url)
	if first.body != second.body || !strings.HasPrefix(first.body, "HTTP/2.0 ") {
		t.Fatalf("before: %q and %q, want one HTTP/2 connection", first.body, second.body)
	}
	s.drain(t)
	if last := get(t, c, url); last.body != first.body {
		t.Fatalf("the first request while draining came over %q, want %q", last.body, first.body)
	}
	// GOAWAY is on its way; the connection changes as soon as it is read.
	for over := first.body; over == first.body; {
		over = get(t, c, url).body
	}
}

func TestWorkersOutliveTheRequests(t *testing.T) {
	t.Parallel()
	entered, finish, stopped := make(chan struct{}), make(chan struct{}), make(chan struct{})
	o := options(func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		<-finish
		select {
		case <-stopped:
			w.WriteHeader(http.StatusInternalServerError)
		default:
			hello(w, r)
		}
	})
	o.Config.DrainDelay = 0
	o.Workers = []func(context.Context) error{
		func(context.Context) error { return nil }, // may end early
		func(ctx context.Context) error {
			<-ctx.Done()
			close(stopped)
			return ctx.Err()
		},
	}
	s := start(t, o)
	answered := make(chan response, 1)
	go func() {
		r, err := request(t, client(t), http.MethodGet, s.url("/"))
		if err != nil {
			t.Error(err)
		}
		answered <- r
	}()
	<-entered
	s.stop()
	waitRefused(t, s.api[0])
	close(finish)
	if r := <-answered; r.Response != nil && r.StatusCode != http.StatusOK {
		t.Error("the worker was stopped before the request was done")
	}
	if err := <-s.ended; err != nil {
		t.Errorf("the service ended with %v", err)
	}
	<-stopped
}

func TestAFailedWorkerEndsTheService(t *testing.T) {
	t.Parallel()
	failure, fail := errors.New("the database is gone"), make(chan struct{})
	o := options(hello)
	o.Workers = []func(context.Context) error{func(context.Context) error {
		<-fail
		return failure
	}}
	s := start(t, o)
	close(fail)
	if err := <-s.ended; !errors.Is(err, failure) {
		t.Errorf("the service ended with %v, want %v", err, failure)
	}
}

func TestRunRefusesAPairThatIsNone(t *testing.T) {
	t.Parallel()
	o := options(hello)
	o.Config.TLS = serve.TLSConfig{CertFile: t.TempDir() + "/none", KeyFile: "none"}
	if err := serve.Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "tls files") {
		t.Errorf("error %v", err)
	}
}
