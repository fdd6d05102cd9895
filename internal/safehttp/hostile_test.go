package safehttp_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/matrix-herald/herald/internal/safehttp"
)

// rawServer answers each connection, once a request has come, with what speak
// writes. It returns the server's URL.
func rawServer(t *testing.T, speak func(ctx context.Context, conn net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
				defer stop()
				if _, err := conn.Read(make([]byte, 4096)); err == nil {
					speak(ctx, conn)
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		cancel()
		serving.Wait()
	})
	return "http://" + ln.Addr().String()
}

// forever writes text until the other side has gone.
func forever(conn net.Conn, text string) {
	for {
		if _, err := io.WriteString(conn, text); err != nil {
			return
		}
	}
}

// trickle writes a piece every few milliseconds until the other side has gone.
func trickle(ctx context.Context, conn net.Conn, text func(i int) string) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if _, err := io.WriteString(conn, text(i)); err != nil {
				return
			}
		}
	}
}

// TestAnAnswerWithoutEndIsGivenUp has a timeout that nobody could wait for: what
// ends these exchanges is a bound in bytes.
func TestAnAnswerWithoutEndIsGivenUp(t *testing.T) {
	t.Parallel()
	const chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
	tests := map[string]func(net.Conn){
		"a status line": func(c net.Conn) { forever(c, "HTTP/1.1 200 "+strings.Repeat("O", 1000)) },
		"one header": func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nX: ")
			forever(c, strings.Repeat("x", 1000))
		},
		"headers":              func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n"); forever(c, "X-A: b\r\n") },
		"interim answers":      func(c net.Conn) { forever(c, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n") },
		"a body of no length":  func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n"); forever(c, "body") },
		"chunks":               func(c net.Conn) { _, _ = io.WriteString(c, chunked); forever(c, "4\r\nbody\r\n") },
		"a chunk's length":     func(c net.Conn) { _, _ = io.WriteString(c, chunked); forever(c, "0") },
		"a chunk's extensions": func(c net.Conn) { _, _ = io.WriteString(c, chunked+"4;"); forever(c, "a=b;") },
		"trailers":             func(c net.Conn) { _, _ = io.WriteString(c, chunked+"0\r\n"); forever(c, "X-A: b\r\n") },
	}
	for name, speak := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := rawServer(t, func(_ context.Context, c net.Conn) { speak(c) })
			c := newClient(t, safehttp.Options{AllowNets: loopback(), Timeout: time.Hour, MaxBody: 10 << 10})
			_, body, err := get(t, c, url)
			if err == nil || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %d bytes and %v", len(body), err)
			}
			if len(body) > 10<<10 {
				t.Errorf("read %d bytes", len(body))
			}
		})
	}
}

// Conformance (attacks): answers that trickle, never end, lie about their length, unpack to gigabytes | time and bytes of a whole exchange are bounded (also TestAnAnswerWithoutEndIsGivenUp, TestAnAnswerWhoseLengthIsWrongIsRefused, TestABombInABombIsUnpackedOnce)
func TestAnAnswerThatTricklesIsGivenUp(t *testing.T) {
	t.Parallel()
	statusLine := strings.Split("HTTP/1.1 200 O", "")
	tests := map[string]func(i int) string{
		"the status line, byte by byte": func(i int) string { return statusLine[min(i, len(statusLine)-1)] },
		"header by header": func(i int) string {
			if i == 0 {
				return "HTTP/1.1 200 OK\r\n"
			}
			return "X: y\r\n"
		},
		"interim answers": func(int) string { return "HTTP/1.1 102 Processing\r\n\r\n" },
		"chunk by chunk": func(i int) string {
			if i == 0 {
				return "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
			}
			return "1\r\nx\r\n"
		},
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := rawServer(t, func(ctx context.Context, c net.Conn) { trickle(ctx, c, text) })
			c := newClient(t, safehttp.Options{AllowNets: loopback(), Timeout: 50 * time.Millisecond})
			_, _, err := get(t, c, url+"/?"+secret)
			wantError(t, err, context.DeadlineExceeded)
		})
	}
}

func TestAnAnswerWhoseLengthIsWrongIsRefused(t *testing.T) {
	t.Parallel()
	bomb := packed(make([]byte, 4<<20))
	tests := map[string]struct {
		answer string
		want   string // the body, if the answer is good after all
	}{
		"two lengths that differ":            {"Content-Length: 4\r\nContent-Length: 5\r\n\r\nbody!", ""},
		"a negative length":                  {"Content-Length: -1\r\n\r\nbody", ""},
		"a length beyond all numbers":        {"Content-Length: 99999999999999999999\r\n\r\nbody", ""},
		"a length in two forms":              {"Content-Length: 4, 5\r\n\r\nbody", ""},
		"more than was promised is not read": {"Content-Length: 4\r\n\r\nbodyHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", "body"},
		"less than was promised":             {"Content-Length: 400\r\n\r\nbody", ""},
		"a chunk cut short":                  {"Transfer-Encoding: chunked\r\n\r\n10\r\nbody", ""},
		"chunks without the last":            {"Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n", ""},
		"a chunk of a wild length":           {"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nbody", ""},
		"a chunk of no length":               {"Transfer-Encoding: chunked\r\n\r\nhuge\r\nbody", ""},
		"an unknown transfer encoding":       {"Transfer-Encoding: gzip\r\n\r\nbody", ""},
		"gzip that is none":                  {"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nbody", ""},
		"gzip cut short":                     {"Content-Encoding: gzip\r\nContent-Length: 15\r\n\r\n" + string(packed(make([]byte, 10))[:15]), ""},
		"a gzip bomb":                        {fmt.Sprintf("Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s", len(bomb), bomb), ""},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := rawServer(t, func(_ context.Context, c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n"+tc.answer) })
			c := newClient(t, safehttp.Options{AllowNets: loopback(), MaxBody: 10 << 10, Timeout: time.Minute})
			_, body, err := get(t, c, url)
			if tc.want != "" {
				if err != nil || body != tc.want {
					t.Errorf("got %q and %v, want %q", body, err, tc.want)
				}
				return
			}
			if err == nil || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %q and %v, want an error of the answer", body, err)
			}
		})
	}
}

// packed returns data as gzip.
func packed(data []byte) []byte {
	var out bytes.Buffer
	zw := gzip.NewWriter(&out)
	_, _ = zw.Write(data) // memory takes everything
	_ = zw.Close()
	return out.Bytes()
}

// TestABombInABombIsUnpackedOnce is about answers that name an encoding twice:
// what is not understood stays as it came.
func TestABombInABombIsUnpackedOnce(t *testing.T) {
	t.Parallel()
	inner := packed(make([]byte, 1<<20))
	for header, want := range map[string]int{"gzip": len(inner), "gzip, gzip": len(packed(inner))} {
		url := rawServer(t, func(_ context.Context, c net.Conn) {
			body := packed(inner)
			_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Encoding: %s\r\nContent-Length: %d\r\n\r\n%s", header, len(body), body)
		})
		_, body, err := get(t, newClient(t, safehttp.Options{AllowNets: loopback()}), url)
		if err != nil || len(body) != want {
			t.Errorf("%s: got %d bytes and %v, want %d", header, len(body), err, want)
		}
	}
}
