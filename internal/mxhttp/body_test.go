package mxhttp_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/internal/mxhttp"
)

// budgetOfTests is small, so that few bytes fill it. A source may hold 10,000.
const budgetOfTests = 40_000

// crowd is many clients of an engine. What they post to /hold is told to held when
// it has been read, and held until release is closed.
type crowd struct {
	engine  http.Handler
	held    chan struct{}
	release chan struct{}

	forwarded string // for whom a proxy says it asks
}

func newCrowd(t *testing.T, o mxhttp.Options) (*crowd, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewRegistry()
	o.BytesInFlight, o.Registerer = budgetOfTests, reg
	c := &crowd{held: make(chan struct{}), release: make(chan struct{})}
	c.engine, _ = newEngine(t, o, map[string]handler{
		"POST /hold": func(w http.ResponseWriter, r *http.Request) error {
			if _, err := io.ReadAll(r.Body); err != nil {
				return fmt.Errorf("as a handler may take it: %w", err)
			}
			c.held <- struct{}{}
			<-c.release
			return ok(w, r)
		},
		"POST /panic": func(_ http.ResponseWriter, r *http.Request) error {
			_, _ = io.ReadAll(r.Body)
			panic("on purpose")
		},
		"POST /abort": func(_ http.ResponseWriter, r *http.Request) error {
			_, _ = io.ReadAll(r.Body)
			panic(http.ErrAbortHandler)
		},
		"POST /json": func(w http.ResponseWriter, r *http.Request) error {
			return errors.Join(mxhttp.ReadJSON(w, r, 5000, new(wire)), ok(w, r))
		},
		"POST /value": func(w http.ResponseWriter, r *http.Request) error {
			return new(mxhttp.Decoders).ReadBody(w, r, 5000, func(d mxhttp.Decoder) error {
				_, err := d.Value()
				return err
			})
		},
	})
	return c, reg
}

func (c *crowd) send(path, addr, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	r.ContentLength = -1 // what is declared does not count
	r.RemoteAddr = netip.AddrPortFrom(netip.MustParseAddr(addr), 99).String()
	if c.forwarded != "" {
		r.Header.Set("X-Forwarded-For", c.forwarded)
	}
	w := httptest.NewRecorder()
	c.engine.ServeHTTP(w, r)
	return w
}

// hold has addr hold n bytes.
func (c *crowd) hold(addr string, n int) {
	go c.send("/hold", addr, strings.Repeat("x", n))
	<-c.held
}

// refused wants a request of n bytes from addr to be refused by 503, and told to
// come back.
func (c *crowd) refused(t *testing.T, errcode, addr string, n int) {
	t.Helper()
	w := c.send("/hold", addr, strings.Repeat("x", n))
	var answer struct {
		Errcode, Error string
		RetryAfterMs   int `json:"retry_after_ms"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		t.Fatal(err)
	}
	if w.Code != http.StatusServiceUnavailable || answer.Errcode != errcode || answer.Error == "" ||
		w.Header().Get("Retry-After") != "5" || w.Header().Get("Connection") != "close" {
		t.Errorf("%d bytes from %s: %d %s %v, want 503 %s", n, addr, w.Code, w.Body, w.Header(), errcode)
	}
}

// Conformance (requests): more bytes in flight than `limits.bytes_in_flight`, or than a quarter of it from one source (≠ Sygnal: memory grows) | 503 with Retry-After, `M_UNKNOWN` or `M_LIMIT_EXCEEDED`, before more is read (also TestStalledBodiesLeaveOthersTheirPlaces)
// Conformance (endpoints): more bytes in flight than `limits.bytes_in_flight`, or than a quarter of it from one source; a body slower than 4 KiB a second after its first 2 s | 503 with Retry-After, `M_UNKNOWN` or `M_LIMIT_EXCEEDED`; 408 `M_UNKNOWN` (also TestABodyThatTricklesIsCut)
// Conformance (attacks): twenty lookups of 6 MiB of `""` at once (2.7 GB) | refused while they are read, within one budget of bytes (also BenchmarkHostileAttacks)
func TestASourceHoldsAQuarterAndHalfOfWhatTheOthersLeave(t *testing.T) {
	t.Parallel()
	c, reg := newCrowd(t, mxhttp.Options{})
	defer close(c.release)
	c.hold("192.0.2.1", 9_000)
	c.refused(t, "M_LIMIT_EXCEEDED", "192.0.2.1", 1_001)
	c.refused(t, "M_LIMIT_EXCEEDED", "::ffff:192.0.2.1", 1_001)
	c.hold("192.0.2.2", 9_000)
	c.hold("2001:db8::1", 9_000)
	c.refused(t, "M_LIMIT_EXCEEDED", "2001:db8::2", 1_001) // has the same /64
	// 13,000 are left: there is always room for one source more.
	c.refused(t, "M_LIMIT_EXCEEDED", "2001:db8:0:1::1", 6_501)
	c.hold("2001:db8:0:1::1", 6_500)
	c.refused(t, "M_LIMIT_EXCEEDED", "192.0.2.3", 3_251)
	c.hold("192.0.2.3", 3_250)
	if n := gauge(t, reg, "herald_http_bytes_in_flight"); n != 36_750 {
		t.Errorf("%v bytes in flight, want 36750", n)
	}
	for reason, want := range map[string]float64{"source": 5, "total": 0, "slow": 0} {
		if n := refusals(t, reg, reason); n != want {
			t.Errorf("%v refusals for %s, want %v", n, reason, want)
		}
	}
}

func refusals(t *testing.T, reg *prometheus.Registry, reason string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "herald_http_bodies_refused_total" && m.GetLabel()[0].GetValue() == reason {
				return m.GetCounter().GetValue()
			}
		}
	}
	t.Fatalf("no refusals for %s", reason)
	return 0
}

func TestTrustedSourcesAreLeftAQuarterAndMayHoldAll(t *testing.T) {
	t.Parallel()
	c, _ := newCrowd(t, mxhttp.Options{TrustedSources: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
	defer close(c.release)
	for i := range 3 {
		c.hold(fmt.Sprintf("192.0.2.%d", i), 10_000)
	}
	c.refused(t, "M_UNKNOWN", "192.0.2.4", 1)
	c.hold("10.0.0.1", 10_000)

	c, _ = newCrowd(t, mxhttp.Options{TrustedSources: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
	defer close(c.release)
	c.hold("10.0.0.1", 40_000)
	c.refused(t, "M_UNKNOWN", "10.0.0.1", 1)

	c, _ = newCrowd(t, mxhttp.Options{TrustedSources: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
	c.forwarded = "192.0.2.1" // which makes it a proxy that hides its clients
	c.refused(t, "M_LIMIT_EXCEEDED", "10.0.0.1", 10_001)
}

// TestWhatARequestHoldsIsGivenBack ends requests in each way there is.
func TestWhatARequestHoldsIsGivenBack(t *testing.T) {
	t.Parallel()
	c, reg := newCrowd(t, mxhttp.Options{})
	for range 3 {
		c.send("/json", "192.0.2.1", `{"name":"`+strings.Repeat("x", 1000)+`"}`)
		c.send("/json", "192.0.2.1", strings.Repeat("x", 9000)) // too large
		c.send("/json", "192.0.2.1", "{")
		c.send("/value", "192.0.2.1", "["+strings.Repeat(`{"a":1},`, 500)+"1]") // takes more than there is
		c.send("/panic", "192.0.2.1", strings.Repeat("x", 9000))
		c.send("/unknown", "192.0.2.1", strings.Repeat("x", 9000))
		func() {
			defer func() { _ = recover() }()
			c.send("/abort", "192.0.2.1", strings.Repeat("x", 9000))
		}()
	}
	if n := gauge(t, reg, "herald_http_bytes_in_flight"); n != 0 {
		t.Errorf("%v bytes in flight after all requests have ended", n)
	}
}

// TestWhatIsDecodedIsInFlightToo sends little text that takes much memory.
//
// Conformance (attacks): JSON that takes much more memory than text: small objects, lists without end | what is decoded counts in the same budget; lists end while they arrive (also TestWhatRequestsHoldIsBounded, TestAListIsRefusedWhileItArrives)
func TestWhatIsDecodedIsInFlightToo(t *testing.T) {
	t.Parallel()
	c, _ := newCrowd(t, mxhttp.Options{})
	for name, body := range map[string]string{
		"objects with a member": "[" + strings.Repeat(`{"a":1},`, 100) + "1]",
		"empty objects":         "[" + strings.Repeat(`{},`, 300) + "1]",
		"lists":                 "[" + strings.Repeat(`[],`, 300) + "1]",
		"members":               "{" + manyNames(300) + `"a":1}`,
	} {
		if w := c.send("/value", "192.0.2.1", body); w.Code != http.StatusServiceUnavailable {
			t.Errorf("%s: %d", name, w.Code)
		}
	}
	if w := c.send("/value", "192.0.2.1", `["`+strings.Repeat("x", 4900)+`"]`); w.Code != http.StatusOK {
		t.Errorf("a long text: %d %s", w.Code, w.Body)
	}
}

// TestTheTimeoutEndsDecoding decodes after the time of the request is over, or after
// its client has gone, which ends nothing.
//
// Conformance (pushgw): the time of a request ends the decoding of its body, too
func TestTheTimeoutEndsDecoding(t *testing.T) {
	t.Parallel()
	for cause, want := range map[error]int{context.DeadlineExceeded: 503, context.Canceled: 200} {
		engine, _ := newEngine(t, mxhttp.Options{}, map[string]handler{"POST /": func(w http.ResponseWriter, r *http.Request) error {
			if !errors.Is(r.Context().Err(), cause) {
				t.Errorf("ended by %v", r.Context().Err())
			}
			return new(mxhttp.Decoders).ReadBody(w, r, 50_000, func(d mxhttp.Decoder) error {
				_, err := d.Value()
				return err
			})
		}})
		ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
		if errors.Is(cause, context.Canceled) {
			ctx, cancel = context.WithCancel(t.Context())
		}
		cancel()
		w := httptest.NewRecorder()
		engine.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodPost, "/", strings.NewReader("["+strings.Repeat("1,", 20_000)+"1]")))
		if w.Code != want {
			t.Errorf("%v: %d %s", cause, w.Code, w.Body)
		}
	}
}

// TestAListIsRefusedWhileItArrives sends a list item by item, and goes silent after
// the first that is too many.
//
// Conformance (endpoints): a list of more than 10,000 | 413 `M_TOO_LARGE`, before more is read (also TestLookupOfTenThousandHashes)
func TestAListIsRefusedWhileItArrives(t *testing.T) {
	t.Parallel()
	ten := mxhttp.Decoders{MaxItems: 10}
	for name, tc := range map[string]struct {
		body string
		more bool // the rest does not come
		want int
	}{
		"as many as allowed":   {`{"a":["",",\",","","","","","","","",[1,2]]}`, false, 200},
		"one more":             {`{"a":["","","","","","","","","","",`, true, 413},
		"an object's members":  {`{"a":{"1":1,"2":2,"3":3,"4":4,"5":5,"6":6,"7":7,"8":8,"9":9,"10":10,`, true, 413},
		"each list for itself": {`[[1,1,1,1,1,1],[1,1,1,1,1,1],{"a":[1,1,1,1,1]}]`, false, 200},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			engine, _ := newEngine(t, mxhttp.Options{}, map[string]handler{"POST /": func(w http.ResponseWriter, r *http.Request) error {
				if err := ten.ReadBody(w, r, 5000, mxhttp.Decoder.SkipValue); err != nil {
					return err
				}
				return ok(w, r)
			}})
			body, more := io.Pipe()
			defer body.Close()
			go func() {
				for i := range tc.body { // a byte at a time: the worst place to cut is among them
					if _, err := io.WriteString(more, tc.body[i:i+1]); err != nil {
						return
					}
				}
				if !tc.more {
					more.Close()
				}
			}()
			w := httptest.NewRecorder()
			engine.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/", body))
			if w.Code != tc.want {
				t.Errorf("%d %s, want %d", w.Code, w.Body, tc.want)
			}
		})
	}
}

// pipes listens to one connection, without sockets.
type pipes struct {
	conn chan net.Conn
	done chan struct{}
}

func (p pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conn:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

// TestABodyThatTricklesIsCut sends a body at several speeds to an engine that wants
// 1,000 bytes a second.
//
// Conformance (requests): a body slower than 64 KiB a second after its first 2 s | 408 `M_UNKNOWN`
func TestABodyThatTricklesIsCut(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		pause  time.Duration // before each 100 bytes of 5,000
		status int
		after  time.Duration
	}{
		"fast enough":        {90 * time.Millisecond, 200, 4500 * time.Millisecond},
		"slow":               {210 * time.Millisecond, 408, 3950 * time.Millisecond},
		"silent":             {time.Hour, 408, 2250 * time.Millisecond},
		"all after a moment": {0, 200, 0},
		"a little too slow":  {140 * time.Millisecond, 408, 6950 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				reg := prometheus.NewRegistry()
				engine, _ := newEngine(t, mxhttp.Options{SlowestBody: 1000, Registerer: reg}, map[string]handler{"POST /": func(w http.ResponseWriter, r *http.Request) error {
					if _, err := io.ReadAll(r.Body); err != nil {
						return errors.New("as a handler may take it")
					}
					// A handler takes as long as it likes.
					select {
					case <-time.After(time.Minute):
						return ok(w, r)
					case <-r.Context().Done():
						return context.Cause(r.Context())
					}
				}})
				l := pipes{make(chan net.Conn), make(chan struct{})}
				server := &http.Server{Handler: engine, ReadTimeout: 15 * time.Second}
				go func() { _ = server.Serve(l) }()
				client, conn := net.Pipe()
				l.conn <- conn
				ctx, stop := context.WithCancel(t.Context())
				defer stop()
				begun := time.Now()
				go func() {
					_, _ = fmt.Fprint(client, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n")
					for range 50 {
						select {
						case <-time.After(tc.pause):
						case <-ctx.Done():
							return
						}
						if _, err := client.Write(make([]byte, 100)); err != nil {
							return
						}
					}
				}()
				res, err := http.ReadResponse(bufio.NewReader(client), nil)
				if err != nil {
					t.Fatal(err)
				}
				res.Body.Close()
				took := time.Since(begun)
				if res.StatusCode == http.StatusOK {
					took -= time.Minute
				}
				if res.StatusCode != tc.status || took.Round(10*time.Millisecond) != tc.after || res.Close != (tc.status != http.StatusOK) {
					t.Errorf("%s after %s, closes: %t, want %d after %s", res.Status, took, res.Close, tc.status, tc.after)
				}
				if n := refusals(t, reg, "slow"); (n == 1) != (tc.status == http.StatusRequestTimeout) {
					t.Errorf("%v refusals", n)
				}
				client.Close()
				close(l.done)
				server.Close()
			})
		})
	}
}
