package mxhttp_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/internal/mxhttp"
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

// lines returns the log lines with this message.
func (b *logBuffer) lines(t *testing.T, msg string) []map[string]any {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []map[string]any
	for line := range strings.Lines(b.buf.String()) {
		var l map[string]any
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("log line %q: %v", line, err)
		}
		if l["msg"] == msg {
			out = append(out, l)
		}
	}
	return out
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

type handler = func(http.ResponseWriter, *http.Request) error

// newEngine returns an engine with routes given as "METHOD /path".
func newEngine(t *testing.T, o mxhttp.Options, routes map[string]handler) (*gin.Engine, *logBuffer) {
	t.Helper()
	logs := new(logBuffer)
	o.Logger = slog.New(slog.NewJSONHandler(logs, nil))
	engine, err := mxhttp.NewEngine(o)
	if err != nil {
		t.Fatal(err)
	}
	for route, h := range routes {
		method, path, _ := strings.Cut(route, " ")
		engine.Handle(method, path, mxhttp.Wrap(h))
	}
	return engine, logs
}

func do(h http.Handler, method, target string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, target, nil))
	return w
}

func ok(w http.ResponseWriter, _ *http.Request) error {
	return mxhttp.WriteJSON(w, http.StatusOK, struct{}{})
}

// Conformance (endpoints): an escaped slash in a path | 404: it separates nothing
func TestUnroutedRequests(t *testing.T) {
	t.Parallel()
	engine, _ := newEngine(t, mxhttp.Options{}, map[string]handler{
		"GET /_matrix/a": ok, "PUT /_matrix/a": ok, "POST /_matrix/p/:id": ok,
	})
	for name, tc := range map[string]struct {
		method, path string
		status       int
		allow        string
	}{
		"an unknown path is not found":                 {"GET", "/nope", 404, ""},
		"the root is not found":                        {"GET", "/", 404, ""},
		"a trailing slash is another path":             {"GET", "/_matrix/a/", 404, ""},
		"a POST with a trailing slash is not sent on":  {"POST", "/_matrix/p/x/", 404, ""},
		"case counts":                                  {"GET", "/_MATRIX/a", 404, ""},
		"an escaped slash separates nothing":           {"GET", "/_matrix%2Fa", 404, ""},
		"nor does it in a parameter":                   {"POST", "/_matrix/p/x%2fy", 404, ""},
		"HEAD where there is no GET":                   {"HEAD", "/_matrix/p/1", 405, "POST"},
		"a known path with another method":             {"DELETE", "/_matrix/a", 405, "GET, PUT"},
		"OPTIONS is a method like others without CORS": {"OPTIONS", "/_matrix/p/1", 405, "POST"},
		"an invented method":                           {"BREW", "/_matrix/p/1", 405, "POST"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := do(engine, tc.method, tc.path)
			var body struct{ Errcode, Error string }
			if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
				t.Fatalf("body %q: %v", w.Body, err)
			}
			if w.Code != tc.status || body.Errcode != "M_UNRECOGNIZED" || body.Error == "" {
				t.Errorf("got %d %+v, want %d M_UNRECOGNIZED", w.Code, body, tc.status)
			}
			allow := strings.Split(w.Header().Get("Allow"), ", ")
			if len(allow) == 2 && allow[0] > allow[1] { // gin keeps them in the order of registration
				allow[0], allow[1] = allow[1], allow[0]
			}
			if got := strings.Join(allow, ", "); got != tc.allow {
				t.Errorf("Allow %q, want %q", got, tc.allow)
			}
			if got := w.Header().Get("Content-Type"); got != "application/json" {
				t.Errorf("Content-Type %q", got)
			}
		})
	}
}

// Conformance (endpoints): HEAD where there is GET (≠ Sydent: 405) | as GET, without the body; of a mailed link nothing happens (also TestHeadOfALinkChangesNothing)
func TestHeadIsAnsweredLikeGet(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	engine, logs := newEngine(t, mxhttp.Options{Registerer: reg}, map[string]handler{
		"GET /a/:id": func(w http.ResponseWriter, r *http.Request) error {
			return mxhttp.WriteJSON(w, http.StatusOK, r.PathValue("id"))
		},
		"GET /fail": func(http.ResponseWriter, *http.Request) error {
			return &mxhttp.Error{Status: http.StatusForbidden, Code: "M_FORBIDDEN", Msg: "no"}
		},
		"GET /own": ok, "HEAD /own": func(w http.ResponseWriter, _ *http.Request) error {
			w.WriteHeader(http.StatusNoContent)
			return nil
		},
	})
	server := httptest.NewServer(engine)
	defer server.Close()
	for path, want := range map[string]struct {
		status int
		length string
	}{"/a/some%20id": {200, "9"}, "/fail": {403, "38"}, "/own": {204, ""}} {
		resp, err := server.Client().Head(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want.status || resp.Header.Get("Content-Length") != want.length || resp.Header.Get("Allow") != "" || resp.Header.Get("X-Request-Id") == "" {
			t.Errorf("%s: %s %v, want %v", path, resp.Status, resp.Header, want)
		}
	}
	routes := make(map[any]int)
	for _, line := range logs.lines(t, "request") {
		if line["method"] != "HEAD" {
			t.Errorf("line %v", line)
		}
		routes[line["route"]]++
	}
	if diff := cmp.Diff(map[any]int{"/a/:id": 1, "/fail": 1, "/own": 1}, routes); diff != "" {
		t.Errorf("lines of routes (-want +got):\n%s", diff)
	}
	if n := gauge(t, reg, "herald_http_requests_in_flight"); n != 0 {
		t.Errorf("%v requests in flight, want 0", n)
	}
}

// Conformance (endpoints): CORS headers on every answer, preflights everywhere (≠ Sydent: 501 for some), `Authorization` listed | preflights are good for a day (also TestPreflightsAreAnsweredEverywhere, TestRefusals)
func TestCORS(t *testing.T) {
	t.Parallel()
	want := map[string]string{
		"Access-Control-Allow-Origin":  "*",
		"Access-Control-Allow-Methods": "GET, POST, PUT, DELETE, OPTIONS",
		"Access-Control-Allow-Headers": "Origin, X-Requested-With, Content-Type, Accept, Authorization",
	}
	routes := map[string]handler{
		"GET /x": ok,
		"GET /boom": func(http.ResponseWriter, *http.Request) error {
			panic("boom")
		},
		"GET /fail": func(http.ResponseWriter, *http.Request) error { return errors.New("x") },
	}
	engine, _ := newEngine(t, mxhttp.Options{CORS: true}, routes)
	for request, status := range map[string]int{
		"OPTIONS /x": 200, "OPTIONS /unknown/path": 200, "OPTIONS /": 200,
		"GET /x": 200, "POST /x": 405, "GET /unknown": 404, "GET /boom": 500, "GET /fail": 500,
	} {
		method, path, _ := strings.Cut(request, " ")
		w := do(engine, method, path)
		if w.Code != status {
			t.Errorf("%s: status %d, want %d", request, w.Code, status)
		}
		for name, value := range want {
			if got := w.Header().Get(name); got != value {
				t.Errorf("%s: %s is %q, want %q", request, name, got, value)
			}
		}
		if method == http.MethodOptions && (w.Body.Len() > 0 || w.Header().Get("Allow") != "" || w.Header().Get("Access-Control-Max-Age") != "86400") {
			t.Errorf("%s: body %q, header %v", request, w.Body, w.Header())
		}
	}
	without, _ := newEngine(t, mxhttp.Options{}, routes)
	if w := do(without, "GET", "/x"); w.Header().Get("Access-Control-Allow-Origin") != "" {
		t.Error("CORS headers without CORS")
	}
}

func TestNewEngineRefusesBadOptions(t *testing.T) {
	t.Parallel()
	if _, err := mxhttp.NewEngine(mxhttp.Options{TrustedProxies: []string{"not an address"}}); err == nil {
		t.Error("a trusted proxy that is no address was taken")
	}
	reg := prometheus.NewRegistry()
	if _, err := mxhttp.NewEngine(mxhttp.Options{Registerer: reg}); err != nil {
		t.Fatal(err)
	}
	if _, err := mxhttp.NewEngine(mxhttp.Options{Registerer: reg}); err == nil {
		t.Error("metrics were registered twice")
	}
}

func TestTheTimeoutEndsTheContextAndSaysWhose(t *testing.T) {
	t.Parallel()
	engine, logs := newEngine(t, mxhttp.Options{Timeout: 20 * time.Millisecond}, map[string]handler{
		"GET /x": func(_ http.ResponseWriter, r *http.Request) error {
			ctx, cancel := context.WithCancel(r.Context())
			defer cancel()
			<-ctx.Done()
			return context.Cause(ctx)
		},
	})
	if w := do(engine, "GET", "/x"); w.Code != 503 || !strings.Contains(w.Body.String(), "M_UNKNOWN") {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	line := logs.lines(t, "request")[0]
	if got := fmt.Sprint(line["timeout"]); !strings.HasPrefix(got, "the request's own time of 20ms is over") {
		t.Errorf("line %v", line)
	}
}

func TestAClientThatLeavesIsNoError(t *testing.T) {
	t.Parallel()
	entered, done := make(chan struct{}), make(chan struct{})
	engine, logs := newEngine(t, mxhttp.Options{}, map[string]handler{
		"GET /x": func(_ http.ResponseWriter, r *http.Request) error {
			close(entered)
			<-r.Context().Done()
			return fmt.Errorf("ask: %w", r.Context().Err())
		},
	})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(done)
		engine.ServeHTTP(w, r)
	}))
	defer server.Close()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "GET /x HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-entered
	_ = conn.Close()
	<-done
	line := logs.lines(t, "request")[0]
	if line["status"] != 499.0 || line["client_gone"] != true {
		t.Errorf("line %v", line)
	}
	if line["level"] != "INFO" {
		t.Errorf("logged as an error: %v", line)
	}
}

func TestAUnixSocketBelievesItsProxy(t *testing.T) {
	t.Parallel()
	engine, _ := newEngine(t, mxhttp.Options{}, map[string]handler{
		"GET /x": func(w http.ResponseWriter, r *http.Request) error {
			return mxhttp.WriteJSON(w, 200, mxhttp.ClientAddr(r.Context()).String())
		},
	})
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	server := &httptest.Server{Listener: l, Config: &http.Server{Handler: engine}}
	server.Start()
	defer server.Close()
	conn, err := new(net.Dialer).DialContext(t.Context(), "unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET /x HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); string(body) != `"6.6.6.6"` || err != nil {
		t.Errorf("client %s (%v)", body, err)
	}
}

func TestContextFunctionsDoNothingElsewhere(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	mxhttp.AddLogAttrs(ctx, slog.Int("n", 1))
	if mxhttp.RequestID(ctx) != "" || mxhttp.ClientAddr(ctx).IsValid() {
		t.Error("a plain context has a request")
	}
}

// A push gateway answers thousands of requests a second; the engine's own share
// of the allocations is bounded here: 12, and some more under the race detector.
func TestAllocationsPerRequest(t *testing.T) {
	engine, err := mxhttp.NewEngine(mxhttp.Options{
		Logger:     slog.New(slog.NewJSONHandler(new(logBuffer), nil)),
		Registerer: prometheus.NewRegistry(),
		Timeout:    time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	engine.GET("/x", mxhttp.Wrap(func(w http.ResponseWriter, _ *http.Request) error {
		w.WriteHeader(http.StatusOK)
		return nil
	}))
	r := httptest.NewRequest("GET", "/x", nil)
	w := httptest.NewRecorder()
	if n := testing.AllocsPerRun(200, func() { engine.ServeHTTP(w, r) }); n > 20 {
		t.Errorf("%v allocations, want at most 20", n)
	}
}
