package h2pool_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/matrix-herald/herald/internal/h2pool"
)

func TestPlacesAreGivenBack(t *testing.T) {
	t.Parallel()
	s := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/hang":
			<-r.Context().Done()
		case "/half":
			w.Write([]byte("half"))
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		case "/abort":
			panic(http.ErrAbortHandler)
		}
	}, maxStreams(1))
	tests := []struct {
		name string
		use  func(t *testing.T, p *h2pool.Pool)
	}{
		{"by a request cancelled before its answer", func(t *testing.T, p *h2pool.Pool) {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
			defer cancel()
			_, err := p.RoundTrip(request(ctx, t, s.addr, "/hang"))
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("error = %v", err)
			}
			if h2pool.Unprocessed(err) {
				t.Error("a request that was written counts as unprocessed")
			}
		}},
		{"by closing an answer half read", func(t *testing.T, p *h2pool.Pool) {
			resp, err := p.RoundTrip(request(t.Context(), t, s.addr, "/half"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(resp.Body, make([]byte, 2)); err != nil {
				t.Error(err)
			}
			resp.Body.Close()
			resp.Body.Close()
		}},
		{"by an answer read to its end and not closed", func(t *testing.T, p *h2pool.Pool) {
			resp, err := p.RoundTrip(request(t.Context(), t, s.addr, "/"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadAll(resp.Body); err != nil {
				t.Error(err)
			}
		}},
		{"by a context that ends while the answer is read", func(t *testing.T, p *h2pool.Pool) {
			ctx, cancel := context.WithCancel(t.Context())
			resp, err := p.RoundTrip(request(ctx, t, s.addr, "/half"))
			if err != nil {
				t.Fatal(err)
			}
			cancel()
			if _, err := io.ReadAll(resp.Body); !errors.Is(err, context.Canceled) {
				t.Errorf("read error = %v", err)
			}
		}},
		{"by a stream that the server resets", func(t *testing.T, p *h2pool.Pool) {
			if _, err := p.RoundTrip(request(t.Context(), t, s.addr, "/abort")); err == nil || h2pool.Unprocessed(err) {
				t.Errorf("error = %v; want one that is not unprocessed", err)
			}
		}},
		{"by a request that net/http refuses", func(t *testing.T, p *h2pool.Pool) {
			req := request(t.Context(), t, s.addr, "/")
			req.Header["Bad\nName"] = []string{"x"}
			if _, err := p.RoundTrip(req); err == nil {
				t.Error("no error")
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := s.pool(t, maxConns(1))
			mustPost(t, p, s.addr, "connect")
			for range 3 {
				tt.use(t, p)
			}
			if n := p.Stats().InFlight; n != 0 {
				t.Errorf("%d places are still taken", n)
			}
			mustPost(t, p, s.addr, "next")
		})
	}
}

func request(ctx context.Context, t *testing.T, addr, path string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

func TestIdleConnectionsAreClosedAllButOne(t *testing.T) {
	t.Parallel()
	var inside atomic.Int32
	all := make(chan struct{})
	s := startServer(t, func(http.ResponseWriter, *http.Request) {
		if inside.Add(1) == 4 {
			close(all)
		}
		<-all
	}, maxStreams(1))
	p := s.pool(t, func(o *h2pool.Options) { o.IdleTimeout = 50 * time.Millisecond })
	if err := errors.Join(burst(t.Context(), p, s.addr, 4)...); err != nil {
		t.Fatal(err)
	}
	if n := p.Stats().Open; n != 4 {
		t.Fatalf("%d connections, want 4", n)
	}
	eventually(t, "one connection is left", func() bool { return p.Stats() == h2pool.Stats{Open: 1, Dials: 4} })
	mustPost(t, p, s.addr, "again")
	if n := s.conns.Load(); n != 4 {
		t.Errorf("the remaining connection was not used: %d opened", n)
	}
}
