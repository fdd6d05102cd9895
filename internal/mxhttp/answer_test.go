package mxhttp_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/matrix-herald/herald/internal/mxhttp"
)

var errDomain = errors.New("domain condition")

// Conformance (requests): why a request was refused (≠ Sygnal: in the answer alone) | errcode and error stand in the log, without anything the homeserver sent; one line a request (also TestPanics, TestNothingTellsSecrets)
func TestErrorsBecomeAnswers(t *testing.T) {
	t.Parallel()
	classify := func(err error) *mxhttp.Error {
		if errors.Is(err, errDomain) {
			return &mxhttp.Error{Status: 403, Code: "M_FORBIDDEN", Msg: "No"}
		}
		return nil
	}
	for name, tc := range map[string]struct {
		err    error
		status int
		body   string
		retry  string
		logged bool
	}{
		"an Error as it is": {
			err:    fmt.Errorf("wrapped: %w", &mxhttp.Error{Status: 400, Code: "M_INVALID_PARAM", Msg: "Bad <b>"}),
			status: 400, body: `{"errcode":"M_INVALID_PARAM","error":"Bad <b>"}`,
		},
		"extra members are added and replace nothing": {
			err:    &mxhttp.Error{Status: 400, Code: "M_THREEPID_IN_USE", Msg: "Taken", Extra: map[string]any{"mxid": "@a:b", "errcode": "X"}},
			status: 400, body: `{"errcode":"M_THREEPID_IN_USE","error":"Taken","mxid":"@a:b"}`,
		},
		"a limit tells the time, rounded up": {
			err:    &mxhttp.Error{Status: 429, Code: "M_LIMIT_EXCEEDED", Msg: "Slow", RetryAfter: 1200*time.Millisecond + 1},
			status: 429, body: `{"errcode":"M_LIMIT_EXCEEDED","error":"Slow","retry_after_ms":1201}`, retry: "2",
		},
		"other errors tell it only in the header": {
			err:    &mxhttp.Error{Status: 502, Code: "M_UNKNOWN", Msg: "Later", RetryAfter: 3 * time.Second},
			status: 502, body: `{"errcode":"M_UNKNOWN","error":"Later"}`, retry: "3",
		},
		"a classified error": {
			err: fmt.Errorf("bind: %w", errDomain), status: 403, body: `{"errcode":"M_FORBIDDEN","error":"No"}`,
		},
		"an unknown error is kept from the client and logged": {
			err: errors.New("detail 17"), status: 500, body: `{"errcode":"M_UNKNOWN","error":"Internal server error"}`, logged: true,
		},
		"somebody's deadline": {
			err:    fmt.Errorf("ask the store: %w", context.DeadlineExceeded),
			status: 503, body: `{"errcode":"M_UNKNOWN","error":"The request took too long; try again later"}`,
		},
		"a cancellation that is not the client's is a fault": {
			err: context.Canceled, status: 500, body: `{"errcode":"M_UNKNOWN","error":"Internal server error"}`, logged: true,
		},
		"an answer that cannot be encoded is still an error": {
			err:    &mxhttp.Error{Status: 400, Code: "M_X", Msg: "x", Extra: map[string]any{"f": func() {}}},
			status: 500, body: `{"errcode":"M_UNKNOWN","error":"Internal server error"}`, logged: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			engine, logs := newEngine(t, mxhttp.Options{Classify: classify}, map[string]handler{
				"GET /x": func(http.ResponseWriter, *http.Request) error { return tc.err },
			})
			w := do(engine, "GET", "/x")
			if w.Code != tc.status || w.Body.String() != tc.body {
				t.Errorf("got %d %s, want %d %s", w.Code, w.Body, tc.status, tc.body)
			}
			if got := w.Header().Get("Retry-After"); got != tc.retry {
				t.Errorf("Retry-After %q, want %q", got, tc.retry)
			}
			lines := strings.Split(strings.TrimSpace(logs.String()), "\n")
			var line struct{ Level, Errcode, Error, Fault string }
			var body struct{ Errcode, Error string }
			if err := errors.Join(json.Unmarshal([]byte(lines[0]), &line), json.Unmarshal(w.Body.Bytes(), &body)); err != nil {
				t.Fatal(err)
			}
			if len(lines) != 1 || (line.Level == "ERROR") != tc.logged || (line.Fault != "") != tc.logged {
				t.Errorf("logged %v, want one line, an error: %v", lines, tc.logged)
			}
			if !tc.logged && (line.Errcode != body.Errcode || line.Error != body.Error) {
				t.Errorf("the log has %s %q, the answer %s", line.Errcode, line.Error, w.Body)
			}
		})
	}
}

func TestAnErrorAfterTheStartIsOnlyLogged(t *testing.T) {
	t.Parallel()
	engine, logs := newEngine(t, mxhttp.Options{}, map[string]handler{
		"GET /x": func(w http.ResponseWriter, r *http.Request) error {
			return errors.Join(ok(w, r), errors.New("too late"))
		},
	})
	if w := do(engine, "GET", "/x"); w.Code != 200 || w.Body.String() != "{}" {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	if line := logs.lines(t, "request")[0]; line["err_after_start"] != "too late" {
		t.Errorf("log line %v", line)
	}
}

// Conformance (attacks): a panic | costs one request, answered 500 without detail (also TestAPanicCostsOneDelivery)
func TestPanics(t *testing.T) {
	t.Parallel()
	engine, logs := newEngine(t, mxhttp.Options{}, map[string]handler{
		"GET /secret": func(http.ResponseWriter, *http.Request) error { panic("alice@example.org") },
		"GET /index": func(_ http.ResponseWriter, r *http.Request) error {
			_ = []int{}[len(r.URL.Path)]
			return nil
		},
		"GET /late": func(w http.ResponseWriter, _ *http.Request) error {
			w.Header().Set("Content-Type", "text/plain")
			_, _ = io.WriteString(w, "half of it")
			w.(http.Flusher).Flush()
			panic("late")
		},
		"GET /abort": func(http.ResponseWriter, *http.Request) error { panic(http.ErrAbortHandler) },
	})
	server := httptest.NewServer(engine)
	defer server.Close()
	for _, path := range []string{"/secret", "/index"} {
		resp, err := server.Client().Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if resp.StatusCode != 500 || string(body) != `{"errcode":"M_UNKNOWN","error":"Internal server error"}` || err != nil {
			t.Errorf("%s: %d %s %v", path, resp.StatusCode, body, err)
		}
		_ = resp.Body.Close()
	}
	resp, err := server.Client().Get(server.URL + "/late")
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("a response cut by a panic looks complete: %q", body)
	}
	_ = resp.Body.Close()
	if resp, err := server.Client().Get(server.URL + "/abort"); err == nil {
		_ = resp.Body.Close()
		t.Error("http.ErrAbortHandler did not break the connection")
	}

	panics := slices.DeleteFunc(logs.lines(t, "request"), func(line map[string]any) bool { return line["level"] != "ERROR" })
	if len(panics) != 3 {
		t.Fatalf("%d panics logged, want 3 (an abort is none)", len(panics))
	}
	if got := panics[0]["panic"]; got != "string" {
		t.Errorf("panic text %q, want only its type", got)
	}
	if got := panics[1]["panic"]; !strings.Contains(fmt.Sprint(got), "index out of range") {
		t.Errorf("panic text %q, want the runtime's", got)
	}
	if stack := fmt.Sprint(panics[0]["stack"]); !strings.Contains(stack, "answer_test.go") {
		t.Errorf("the stack does not lead to the handler: %s", stack)
	}
	if strings.Contains(logs.String(), "alice") {
		t.Error("the value of a panic was logged")
	}
	if n := strings.Count(logs.String(), "\n"); n != 4 {
		t.Errorf("%d lines, want 4", n)
	}
}

// writeCounter counts the writes to the connections of a listener.
type writeCounter struct {
	net.Listener
	writes atomic.Int32
}

func (l *writeCounter) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return &countedConn{c, &l.writes}, err
}

type countedConn struct {
	net.Conn
	writes *atomic.Int32
}

func (c *countedConn) Write(b []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(b)
}

// A write is a system call, and a tenth of what a push costs.
func TestAnAnswerIsOneWrite(t *testing.T) {
	t.Parallel()
	engine, _ := newEngine(t, mxhttp.Options{}, map[string]handler{
		"GET /answer": func(w http.ResponseWriter, _ *http.Request) error {
			return mxhttp.WriteJSON(w, http.StatusOK, map[string]any{"rejected": []string{}})
		},
		"GET /error": func(http.ResponseWriter, *http.Request) error {
			return &mxhttp.Error{Status: http.StatusForbidden, Code: "M_FORBIDDEN", Msg: "No"}
		},
	})
	srv := httptest.NewUnstartedServer(engine)
	counter := &writeCounter{Listener: srv.Listener}
	srv.Listener = counter
	srv.Start()
	for _, path := range []string{"/answer", "/error"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		res, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		res.Body.Close()
	}
	srv.Close() // ends when both requests have been finished
	if n := counter.writes.Load(); n != 2 {
		t.Errorf("%d writes for two answers", n)
	}
}
