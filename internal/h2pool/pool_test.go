package h2pool_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/matrix-herald/herald/internal/h2pool"
)

// Conformance (connections): a cold burst of 512 opens as many connections as it needs and no more, and loses nothing; a limit of one stream that is raised later (also TestRaisingTheLimitLetsAllWaitingRequestsGo)
func TestAColdBurstOpensFewConnectionsAndLosesNothing(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		limit    int // streams the server allows on a connection
		bound    int // of the pool's connections
		requests int
		together int // requests that must be in the server at the same time
		conns    int // at most
	}{
		{"300 requests at a limit of 100", 100, 4, 300, 300, 3},
		{"900 requests are more than all connections hold", 100, 4, 900, 400, 4},
		{"40 requests at a limit of one", 1, 4, 40, 4, 4},
		{"a server with Go's own limit", 0, 4, 300, 250, 4},
		{"without a bound as many connections as the requests need", 100, 0, 512, 512, 6},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var inside atomic.Int32
			full := make(chan struct{})
			s := startServer(t, func(_ http.ResponseWriter, r *http.Request) {
				if inside.Add(1) == int32(tt.together) {
					close(full)
				}
				select {
				case <-full:
				case <-r.Context().Done():
				}
			}, maxStreams(tt.limit))
			p := s.pool(t, maxConns(tt.bound))
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			if err := errors.Join(burst(ctx, p, s.addr, tt.requests)...); err != nil {
				t.Fatal(err)
			}
			if n := s.conns.Load(); int(n) > tt.conns {
				t.Errorf("opened %d connections, want at most %d", n, tt.conns)
			}
			if s := p.Stats(); s.InFlight != 0 || s.Waiting != 0 {
				t.Errorf("places not given back: %+v", s)
			}
		})
	}
}

// A token connection to APNs starts with one stream and gets the rest with the
// first accepted push.
func TestRaisingTheLimitLetsAllWaitingRequestsGo(t *testing.T) {
	t.Parallel()
	const n = 40
	s := startRaw(t, func(_ int, c *rawConn) {
		c.limit(1)
		first, ok := c.request()
		if !ok {
			return
		}
		c.limit(1000)
		c.answer(first)
		var streams []uint32
		for len(streams) < n-1 { // answers none before all have come
			id, ok := c.request()
			if !ok {
				return
			}
			streams = append(streams, id)
		}
		for _, id := range streams {
			c.answer(id)
		}
		c.answerAll()
	})
	p := s.pool(t, maxConns(1))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := errors.Join(burst(ctx, p, s.addr, n)...); err != nil {
		t.Fatal(err)
	}
	if got := s.conns.Load(); got != 1 {
		t.Errorf("opened %d connections, want 1", got)
	}
}

// With ClientConn.Reserve the requests would wait for one another's reservations.
func TestLoweringTheLimitDoesNotStallRequests(t *testing.T) {
	t.Parallel()
	s := startRaw(t, func(_ int, c *rawConn) {
		c.limit(1000)
		for {
			id, ok := c.request()
			if !ok {
				return
			}
			c.limit(1)
			c.answer(id)
		}
	})
	p := s.pool(t, maxConns(1))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for range 5 {
		if err := errors.Join(burst(ctx, p, s.addr, 40)...); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOwnStreamLimitRulesBelowTheServers(t *testing.T) {
	t.Parallel()
	var inside, total atomic.Int32
	var mu sync.Mutex
	var most int32
	full := make(chan struct{})
	s := startServer(t, func(http.ResponseWriter, *http.Request) {
		n := inside.Add(1)
		defer inside.Add(-1)
		if total.Add(1) == 3 {
			close(full)
		}
		<-full
		mu.Lock()
		defer mu.Unlock()
		most = max(most, n)
	}, maxStreams(100))
	p := s.pool(t, maxConns(1), func(o *h2pool.Options) { o.MaxStreamsPerConn = 3 })
	if err := errors.Join(burst(t.Context(), p, s.addr, 200)...); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if most != 3 {
		t.Errorf("%d requests at once, want 3", most)
	}
}

// held starts a server with one place whose requests wait for the test.
func held(t *testing.T) (*server, *h2pool.Pool, chan string, chan struct{}) {
	t.Helper()
	arrived, proceed := make(chan string, 10), make(chan struct{}, 10)
	s := startServer(t, func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		arrived <- string(b)
		select {
		case <-proceed:
		case <-r.Context().Done():
		}
	}, maxStreams(1))
	return s, s.pool(t, maxConns(1)), arrived, proceed
}

// start sends a request in the background; the channel yields its error.
func start(ctx context.Context, p *h2pool.Pool, addr, body string) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := post(ctx, p, addr, body)
		done <- err
	}()
	return done
}

func TestWaitingRequestsAreServedInOrderOfArrival(t *testing.T) {
	t.Parallel()
	s, p, arrived, proceed := held(t)
	results := []<-chan error{start(t.Context(), p, s.addr, "0")}
	got := []string{<-arrived}
	want := []string{"0", "1", "2", "3", "4"}
	for i, body := range want[1:] {
		results = append(results, start(t.Context(), p, s.addr, body))
		eventually(t, "the request waits", func() bool { return p.Stats().Waiting == i+1 })
	}
	for range want[1:] {
		proceed <- struct{}{}
		got = append(got, <-arrived)
	}
	proceed <- struct{}{}
	for _, r := range results {
		if err := <-r; err != nil {
			t.Error(err)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestARequestThatGivesUpWaitingFreesItsPlaceInTheQueue(t *testing.T) {
	t.Parallel()
	s, p, arrived, proceed := held(t)
	first := start(t.Context(), p, s.addr, "first")
	<-arrived
	ctx, cancel := context.WithCancelCause(t.Context())
	second := start(ctx, p, s.addr, "second")
	eventually(t, "the second waits", func() bool { return p.Stats().Waiting == 1 })
	third := start(t.Context(), p, s.addr, "third")
	eventually(t, "the third waits", func() bool { return p.Stats().Waiting == 2 })

	cause := errors.New("the caller has gone")
	cancel(cause)
	err := <-second
	if !h2pool.Unprocessed(err) || !errors.Is(err, context.Canceled) || !errors.Is(err, cause) {
		t.Errorf("error = %v; want an unprocessed one with the context's error and cause", err)
	}
	proceed <- struct{}{}
	proceed <- struct{}{}
	if err := errors.Join(<-first, <-third); err != nil {
		t.Error(err)
	}
	if got := <-arrived; got != "third" {
		t.Errorf("the server saw %q next", got)
	}
}

// spyBody records that it was closed.
type spyBody struct {
	io.Reader
	closed chan struct{}
	once   sync.Once
}

func (b *spyBody) Close() error {
	b.once.Do(func() { close(b.closed) })
	return nil
}

func TestRequestsForAnotherHostAreRefused(t *testing.T) {
	t.Parallel()
	p := newPool(t, "api.push.example:443", nil)
	for _, url := range []string{
		"https://api.push.example:8443/", "https://other.example/", "http://api.push.example:443/",
	} {
		b := &spyBody{Reader: strings.NewReader("x"), closed: make(chan struct{})}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, b)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.RoundTrip(req); err == nil || h2pool.Unprocessed(err) {
			t.Errorf("%s: error = %v; want a permanent one", url, err)
		}
		<-b.closed
	}
	if n := p.Stats().Dials; n != 0 {
		t.Errorf("%d dials", n)
	}
}

func TestCloseEndsEverything(t *testing.T) {
	t.Parallel()
	s, p, arrived, _ := held(t)
	first := start(t.Context(), p, s.addr, "first")
	<-arrived
	second := start(t.Context(), p, s.addr, "second")
	eventually(t, "the second waits", func() bool { return p.Stats().Waiting == 1 })
	p.Close()
	if err := <-first; err == nil || h2pool.Unprocessed(err) {
		t.Errorf("in flight: error = %v; want one that is not unprocessed", err)
	}
	if err := <-second; !errors.Is(err, h2pool.ErrClosed) || !h2pool.Unprocessed(err) {
		t.Errorf("waiting: error = %v, want ErrClosed", err)
	}
	if _, err := post(t.Context(), p, s.addr, "third"); !errors.Is(err, h2pool.ErrClosed) || !h2pool.Unprocessed(err) {
		t.Errorf("afterwards: error = %v, want ErrClosed", err)
	}
	if diff := cmp.Diff(h2pool.Stats{Dials: 1}, p.Stats()); diff != "" {
		t.Error(diff)
	}
	p.Close()
}

func TestNewRefusesUnusableOptions(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		opts h2pool.Options
	}{
		{"no address", h2pool.Options{}},
		{"an address without port", h2pool.Options{Addr: "api.push.apple.com"}},
		{"an address without host", h2pool.Options{Addr: ":443"}},
		{"a SOCKS proxy", h2pool.Options{Addr: "a:1", Proxy: mustURL(t, "socks5://proxy:1080")}},
		{"a proxy without host", h2pool.Options{Addr: "a:1", Proxy: mustURL(t, "http://")}},
		{"negative streams", h2pool.Options{Addr: "a:1", MaxStreamsPerConn: -1}},
		{"a negative timeout", h2pool.Options{Addr: "a:1", DialTimeout: -1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if _, err := h2pool.New(tt.opts); err == nil {
				t.Error("no error")
			}
		})
	}
}

func TestNewLeavesTheCallersTLSConfigAlone(t *testing.T) {
	t.Parallel()
	cfg := &tls.Config{MinVersion: tls.VersionTLS10}
	newPool(t, "provider.example:443", nil, func(o *h2pool.Options) { o.TLS = cfg })
	if cfg.MinVersion != tls.VersionTLS10 || cfg.NextProtos != nil || cfg.ServerName != "" {
		t.Error("it was changed")
	}
}

// TestFullHeadersCanEachBeReadAlone decodes each request's headers without what
// earlier ones put into the compression's table.
func TestFullHeadersCanEachBeReadAlone(t *testing.T) {
	for _, full := range []bool{true, false} {
		t.Run(strconv.FormatBool(full), func(t *testing.T) {
			const requests = 3
			failed := make(chan error, requests)
			s := startRaw(t, func(_ int, c *rawConn) {
				c.ReadMetaHeaders = nil
				c.limit(10)
				for {
					f, err := c.ReadFrame()
					if err != nil {
						return
					}
					switch f := f.(type) {
					case *http2.SettingsFrame:
						if !f.IsAck() {
							c.WriteSettingsAck()
						}
					case *http2.HeadersFrame:
						_, err := hpack.NewDecoder(4096, nil).DecodeFull(f.HeaderBlockFragment())
						failed <- err
					case *http2.DataFrame:
						if f.StreamEnded() {
							c.answer(f.StreamID)
						}
					}
				}
			})
			p := s.pool(t, func(o *h2pool.Options) { o.FullHeaders = full })
			for i := range requests {
				mustPost(t, p, s.addr, "body")
				if err, alone := <-failed, full || i == 0; alone != (err == nil) {
					t.Errorf("the headers of request %d, full %t: %v", i, full, err)
				}
			}
		})
	}
}

func mustURL(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}
