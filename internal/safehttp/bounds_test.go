package safehttp_test

import (
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/internal/safehttp"
	"github.com/matrix-herald/herald/internal/safehttp/safehttptest"
)

// Conformance (attacks): answers that trickle, never end, lie about their length, unpack to gigabytes | time and bytes of a whole exchange are bounded (also TestTimeIsBounded, TestHeadersAreBounded)
func TestBodyIsBounded(t *testing.T) {
	t.Parallel()
	const limit = 1000
	tests := map[string]struct {
		handler http.HandlerFunc
		want    error
	}{
		"a body of the limit is read whole": {
			func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, limit)) }, nil,
		},
		"one byte more is an error": {
			func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, limit+1)) }, safehttp.ErrTooLarge,
		},
		"an endless body is an error": {
			func(w http.ResponseWriter, r *http.Request) {
				for {
					if _, err := w.Write(make([]byte, limit)); err != nil {
						return
					}
				}
			}, safehttp.ErrTooLarge,
		},
		"a body is counted after decompression": {
			func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Encoding", "gzip")
				zw := gzip.NewWriter(w)
				_, _ = zw.Write(make([]byte, 100*limit)) // some 130 bytes on the wire
				_ = zw.Close()
			}, safehttp.ErrTooLarge,
		},
		"a body cut short is an error": {
			func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", "10")
				_, _ = w.Write([]byte("12345"))
			}, io.ErrUnexpectedEOF,
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newClient(t, safehttp.Options{AllowNets: loopback(), MaxBody: limit})
			_, body, err := get(t, c, plainServer(t, tc.handler).URL)
			if tc.want == nil {
				if err != nil || len(body) != limit {
					t.Errorf("got %d bytes and %v", len(body), err)
				}
				return
			}
			wantError(t, err, tc.want)
			if len(body) > limit {
				t.Errorf("read %d bytes, limit %d", len(body), limit)
			}
		})
	}
}

func TestTimeIsBounded(t *testing.T) {
	t.Parallel()
	tests := map[string]http.HandlerFunc{
		"a server that never answers": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"a body that trickles": func(w http.ResponseWriter, r *http.Request) {
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-r.Context().Done():
					return
				case <-tick.C:
					_, _ = w.Write([]byte("."))
					_ = http.NewResponseController(w).Flush()
				}
			}
		},
		"redirects that each take a while": func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-r.Context().Done():
			case <-time.After(60 * time.Millisecond):
				http.Redirect(w, r, "/?"+secret, http.StatusFound)
			}
		},
	}
	for name, handler := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newClient(t, safehttp.Options{AllowNets: loopback(), Timeout: 100 * time.Millisecond, MaxRedirects: 50})
			_, _, err := get(t, c, plainServer(t, handler).URL+"/?"+secret)
			wantError(t, err, context.DeadlineExceeded)
			if !strings.Contains(err.Error(), "timed out") {
				t.Errorf("the error does not say so: %v", err)
			}
		})
	}
}

func TestAServerThatAcceptsAndNeverSpeaksTLSTimesOut(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts, nobody answers
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	c := newClient(t, safehttp.Options{AllowNets: loopback(), Timeout: 50 * time.Millisecond})
	_, _, err = get(t, c, "https://"+ln.Addr().String())
	wantError(t, err, context.DeadlineExceeded)
}

func TestTheCallersContextEndsARequest(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{})
	srv := plainServer(t, func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
	})
	c := newClient(t, safehttp.Options{AllowNets: loopback(), Timeout: time.Minute})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-arrived
		cancel()
	}()
	_, _, err := exchange(c.Do(request(t, http.MethodGet, srv.URL, nil).WithContext(ctx)))
	wantError(t, err, context.Canceled)
	<-arrived
}

func TestHeadersAreBounded(t *testing.T) {
	t.Parallel()
	huge := func(w http.ResponseWriter, _ *http.Request) {
		for i := range 200 {
			w.Header().Set(fmt.Sprintf("X-%d", i), strings.Repeat("a", 1000))
		}
	}
	ca := safehttptest.NewCA(t)
	srv := ca.Server(t, "127.0.0.1:0", http.HandlerFunc(huge), "127.0.0.1")
	c := newClient(t, safehttp.Options{AllowNets: loopback(), RootCAs: ca.Pool()})
	for name, url := range map[string]string{
		"HTTP/1.1": plainServer(t, huge).URL,
		"HTTP/2":   srv.URL,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if status, _, err := get(t, c, url); err == nil {
				t.Errorf("200 kB of headers were taken, status %d", status)
			}
		})
	}
}

func TestDefaultsBoundAClientWithoutOptions(t *testing.T) {
	t.Parallel()
	srv := plainServer(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 64<<10+1)) })
	c := newClient(t, safehttp.Options{AllowNets: loopback()})
	_, body, err := get(t, c, srv.URL)
	wantError(t, err, safehttp.ErrTooLarge)
	if diff := cmp.Diff(64<<10, len(body)); diff != "" {
		t.Errorf("bytes read (-want +got):\n%s", diff)
	}
}
