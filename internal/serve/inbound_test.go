package serve_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/internal/serve"
)

const shortly, long = conf.Duration(50 * time.Millisecond), conf.Duration(time.Hour)

// drip sends text a byte at a time until the service ends the connection, which
// is what it waits for.
func drip(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	dripping := make(chan struct{})
	go func() {
		defer close(dripping)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i = (i + 1) % len(text) {
			select {
			case <-tick.C:
				if _, err := io.WriteString(conn, text[i:i+1]); err != nil {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	_, _ = io.Copy(io.Discard, conn) // an answer may come before the end
	cancel()
	<-dripping
}

// TestSlowClientsAreCutOff waits for the service to end connections, without a
// deadline of its own.
//
// Conformance (hostile input): slow headers, bodies, readers, handshakes | cut off (also TestAClientThatReadsNothingHoldsNoHandler, TestAHandshakeThatIsNotBegunIsCutOff)
// Conformance (attacks): sending headers, bodies, TLS handshakes slowly; never reading an answer | timeouts for each phase (also TestARequestThatStallsIsAnsweredWith408, TestAHandshakeThatIsNotBegunIsCutOff, TestAClientThatReadsNothingHoldsNoHandler)
func TestSlowClientsAreCutOff(t *testing.T) {
	t.Parallel()
	const head = "POST / HTTP/1.1\r\nHost: x\r\n"
	header := func(c *serve.Config) *conf.Duration { return &c.ReadHeaderTimeout }
	for name, words := range map[string]struct {
		first, drip string
		bound       func(*serve.Config) *conf.Duration // the one that is short
	}{
		"nothing at all":     {"", "", header},
		"slow headers":       {head, "X-Slow: x\r\n", header},
		"a slow body":        {head + "Content-Length: 1000000\r\n\r\n", "x", func(c *serve.Config) *conf.Duration { return &c.ReadTimeout }},
		"an idle connection": {head + "Content-Length: 0\r\n\r\n", "", func(c *serve.Config) *conf.Duration { return &c.IdleTimeout }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := options(readAll)
			o.Config.ReadHeaderTimeout, o.Config.ReadTimeout, o.Config.IdleTimeout = long, long, long
			*words.bound(&o.Config) = shortly
			conn := dial(t, start(t, o))
			if _, err := io.WriteString(conn, words.first); err != nil {
				t.Fatal(err)
			}
			if words.drip == "" {
				_, _ = io.Copy(io.Discard, conn)
				return
			}
			drip(t, conn, words.drip)
		})
	}
}

func TestAClientThatReadsNothingHoldsNoHandler(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 1)
	o := options(func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				ended <- err
				return
			}
		}
	})
	o.Config.WriteTimeout = shortly
	conn := dial(t, start(t, o))
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil {
		t.Error("an answer without end was written")
	}
}

func TestAHandshakeThatIsNotBegunIsCutOff(t *testing.T) {
	t.Parallel()
	o := options(readAll)
	p := newPair(t)
	p.write(t, "x")
	o.Config.TLS.CertFile, o.Config.TLS.KeyFile = p.cert, p.key
	o.Config.ReadHeaderTimeout = shortly
	_, _ = io.Copy(io.Discard, dial(t, start(t, o)))
}

// TestRequestsThatMeanTwoThingsAreRefused keeps a proxy and the service from
// seeing different requests on one connection.
//
// Conformance (requests): what is no HTTP request: a broken request line or header, an unknown Expect, headers over 32 KiB | 400, 417 or 431 of the HTTP server, the only answers that are not JSON (also TestHeadersAreBounded)
// Conformance (hostile input): headers, chunks, frames without end; requests that mean two things | refused (also TestHeadersAreBounded)
// Conformance (attacks): headers, chunks, trailers, frames without end | bounds in bytes (also TestHeadersAreBounded)
// Conformance (attacks): a request that a proxy and the service read differently | refused
func TestRequestsThatMeanTwoThingsAreRefused(t *testing.T) {
	t.Parallel()
	o := options(readAll)
	o.Config.IdleTimeout = shortly // ends what is taken after all
	s := start(t, o)
	for name, headers := range map[string]string{
		"two lengths":                 "Content-Length: 4\r\nContent-Length: 5\r\n\r\nbody!",
		"a length with a sign":        "Content-Length: +4\r\n\r\nbody",
		"a length and chunks":         "Content-Length: 4\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
		"an unknown encoding":         "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
		"a space before the colon":    "Content-Length : 4\r\n\r\nbody",
		"two hosts":                   "Host: y\r\n\r\n",
		"a null byte":                 "X: a\x00b\r\n\r\n",
		"a bare carriage return":      "X: a\rb\r\n\r\n",
		"a chunk with a wrong length": "Transfer-Encoding: chunked\r\n\r\n-1\r\nx\r\n0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := dial(t, s)
			// A second request, which must not be found inside of the first.
			if _, err := fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: x\r\n%sGET / HTTP/1.1\r\nHost: x\r\n\r\n", headers); err != nil {
				t.Fatal(err)
			}
			answers, err := io.ReadAll(conn)
			if strings.Contains(string(answers), "200 OK") {
				t.Errorf("%v: %q", err, answers)
			}
		})
	}
}
