package serve_test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/internal/serve"
)

// logBuffer collects log lines.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// service is a running service.
type service struct {
	api   []net.Addr
	admin net.Addr
	logs  *logBuffer
	stop  context.CancelFunc
	abort chan struct{}
	ended chan error
}

// options returns options for a service with an API and an admin address on
// the loopback, which drains until it is aborted.
func options(h http.HandlerFunc) serve.Options {
	c := serve.DefaultConfig()
	c.Listen = []string{"127.0.0.1:0"}
	c.AdminListen = "127.0.0.1:0"
	c.DrainDelay, c.StopWithin = conf.Duration(time.Hour), conf.Duration(time.Hour)
	return serve.Options{Name: "pushgw", Version: "1.2.3", Config: c, Handler: h, Gatherer: prometheus.NewRegistry()}
}

// start runs a service and returns once it listens.
func start(t *testing.T, o serve.Options) *service {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	s := &service{logs: new(logBuffer), stop: stop, abort: make(chan struct{}), ended: make(chan error, 1)}
	o.Logger = slog.New(slog.NewTextHandler(s.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	o.Abort = s.abort
	listening := make(chan struct{})
	o.OnListen = func(api []net.Addr, admin net.Addr) {
		s.api, s.admin = api, admin
		close(listening)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.ended <- serve.Run(ctx, o)
	}()
	t.Cleanup(func() {
		stop()
		select {
		case <-s.abort:
		default:
			close(s.abort)
		}
		<-done
	})
	select {
	case <-listening:
	case err := <-s.ended:
		t.Fatalf("the service ended at once: %v", err)
	}
	return s
}

func (s *service) url(path string) string { return "http://" + s.api[0].String() + path }

func (s *service) adminURL(path string) string { return "http://" + s.admin.String() + path }

// drain tells the service to stop and returns once it has heard.
func (s *service) drain(t *testing.T) {
	t.Helper()
	s.stop()
	c := client(t)
	for ready := true; ready; {
		ready = get(t, c, s.adminURL("/readyz")).StatusCode == http.StatusOK
	}
}

// client returns an HTTP client with connections of its own.
func client(t *testing.T) *http.Client {
	t.Helper()
	transport := new(http.Transport)
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

type response struct {
	*http.Response

	body string
}

func request(t *testing.T, c *http.Client, method, url string) (response, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		return response{}, err
	}
	resp, err := c.Do(req)
	if err != nil {
		return response{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return response{resp, string(body)}, err
}

func get(t *testing.T, c *http.Client, url string) response {
	t.Helper()
	r, err := request(t, c, http.MethodGet, url)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func hello(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }

func TestEndpoints(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	counter := prometheus.NewCounter(prometheus.CounterOpts{Name: "herald_test_total"})
	counter.Add(7)
	reg.MustRegister(counter)
	o := options(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, r.URL.Path)
	})
	o.Gatherer = reg
	s := start(t, o)
	const api, admin = false, true
	const wrongMethod = `{"errcode":"M_UNRECOGNIZED","error":"Unrecognized request: this endpoint takes only GET"}`
	for name, tc := range map[string]struct {
		admin  bool
		method string
		path   string
		status int
		body   string // a part of it
	}{
		"the API is alive":                        {api, "GET", "/health", 200, `{"status":"ok"}`},
		"the API is ready":                        {api, "GET", "/ready", 200, `{"status":"ok"}`},
		"the API tells its version":               {api, "GET", "/version", 200, `{"name":"pushgw","version":"1.2.3","go":"go1.`},
		"HEAD works":                              {api, "HEAD", "/health", 200, ""},
		"health takes no POST":                    {api, "POST", "/health", 405, wrongMethod},
		"ready takes no DELETE":                   {api, "DELETE", "/ready", 405, wrongMethod},
		"other paths reach the handler":           {api, "GET", "/a//b/../c", 418, "/a//b/../c"},
		"metrics are not on the API":              {api, "GET", "/metrics", 418, "/metrics"},
		"profiles are not on the API":             {api, "GET", "/debug/pprof/", 418, "/debug/pprof/"},
		"healthz is not on the API":               {api, "GET", "/healthz", 418, "/healthz"},
		"the administrator sees health":           {admin, "GET", "/healthz", 200, `{"status":"ok"}`},
		"the administrator sees readiness":        {admin, "GET", "/readyz", 200, `{"status":"ok"}`},
		"by the API's names, too":                 {admin, "GET", "/ready", 200, `{"status":"ok"}`},
		"the administrator sees the version":      {admin, "GET", "/version", 200, `"version":"1.2.3"`},
		"the administrator gets metrics":          {admin, "GET", "/metrics", 200, "herald_test_total 7"},
		"metrics take no POST":                    {admin, "POST", "/metrics", 405, wrongMethod},
		"the administrator gets a list":           {admin, "GET", "/debug/pprof/", 200, "goroutine"},
		"the administrator gets a profile":        {admin, "GET", "/debug/pprof/goroutine?debug=1", 200, "goroutine profile:"},
		"the API is not on the administrator's":   {admin, "GET", "/_matrix/push/v1/notify", 404, "M_UNRECOGNIZED"},
		"the administrator's other paths are 404": {admin, "GET", "/", 404, "M_UNRECOGNIZED"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := s.url(tc.path)
			if tc.admin {
				url = s.adminURL(tc.path)
			}
			r, err := request(t, client(t), tc.method, url)
			if err != nil {
				t.Fatal(err)
			}
			if r.StatusCode != tc.status || !strings.Contains(r.body, tc.body) {
				t.Errorf("got %d %s, want %d %s", r.StatusCode, r.body, tc.status, tc.body)
			}
			if allow := r.Header.Get("Allow"); (allow == "GET, HEAD") != (tc.status == 405) {
				t.Errorf("Allow %q", allow)
			}
			if json := r.Header.Get("Content-Type") == "application/json"; strings.HasPrefix(tc.body, "{") && !json {
				t.Errorf("Content-Type %q", r.Header.Get("Content-Type"))
			}
		})
	}
}

func TestWithoutAdminListener(t *testing.T) {
	t.Parallel()
	o := options(hello)
	o.Config.AdminListen = ""
	o.Config.Listen = []string{"127.0.0.1:0", "127.0.0.1:0"}
	s := start(t, o)
	if s.admin != nil || len(s.api) != 2 {
		t.Fatalf("listens on %v and %v", s.api, s.admin)
	}
	for _, a := range s.api {
		if r := get(t, client(t), "http://"+a.String()); r.body != "hello" {
			t.Errorf("%s answers %q", a, r.body)
		}
	}
}

func TestABusyAddressIsNamedAndTheOthersAreClosed(t *testing.T) {
	t.Parallel()
	busy, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	o := options(hello)
	o.Logger = slog.New(slog.DiscardHandler)
	dir := t.TempDir()
	o.Config.Listen = []string{"unix:" + dir + "/s"}
	o.Config.AdminListen = busy.Addr().String()
	err = serve.Run(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), "listen on "+busy.Addr().String()) {
		t.Errorf("error %v does not name %s", err, busy.Addr())
	}
	if _, err := new(net.Dialer).DialContext(t.Context(), "unix", dir+"/s"); err == nil {
		t.Error("the first listener is still open")
	}
}

func TestHeadersAreBounded(t *testing.T) {
	t.Parallel()
	s := start(t, options(hello))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url("/"), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Large", strings.Repeat("x", 40<<10))
	resp, err := client(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("status %d, want 431", resp.StatusCode)
	}
}

// dial opens a bare connection to the API.
func dial(t *testing.T, s *service) net.Conn {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), s.api[0].Network(), s.api[0].String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// ask sends a request over conn and returns the status of the answer.
func ask(t *testing.T, conn net.Conn) int {
	t.Helper()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode
}
