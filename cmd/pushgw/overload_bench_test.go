package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/matrix-herald/herald/push/pushtest"
)

// BenchmarkOverload offers an app that may deliver 500 notifications a second
// ten times as many, whether or not earlier ones have been answered, with a
// request for /health after each tenth.
func BenchmarkOverload(b *testing.B) {
	const (
		latency  = 100 * time.Millisecond
		possible = 500  // a second: 50 at a time, 100 ms each
		offered  = 5000 // a second
		duration = 4 * time.Second
		every    = 11 // request is for /health
	)
	g := startBusy(b, pushtest.StartAPNs(b, pushtest.APNsOptions{Discard: true, Latency: latency}))
	w := newWires(b, g.url)
	body := bodies(strings.Repeat("0123456789abcdef", 4))
	notify := func() (int, error) { return w.do(b.Context(), http.MethodPost, "/_matrix/push/v1/notify", body()) }
	openLoop(offered, time.Second, func(int) { _, _ = notify() }) // connections are opened
	for b.Loop() {
		var mu sync.Mutex
		var busy, healthy []float64 // microseconds
		accepted := 0
		start, cpu := time.Now(), g.cpu()
		openLoop(offered*every/(every-1), duration, func(i int) {
			begin := time.Now()
			var status int
			var err error
			forHealth := i%every == 0
			if forHealth {
				status, err = w.do(b.Context(), http.MethodGet, "/health", "")
			} else {
				status, err = notify()
			}
			took := float64(time.Since(begin).Microseconds())
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				b.Error(err)
			case forHealth && status == http.StatusOK:
				healthy = append(healthy, took)
			case status == http.StatusOK:
				accepted++
			case status == http.StatusServiceUnavailable && !forHealth:
				busy = append(busy, took)
			default:
				b.Errorf("status %d", status)
			}
		})
		took := time.Since(start).Seconds()
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(float64(accepted+len(busy))/took, "offered/s")
		b.ReportMetric(float64(accepted)/took/possible, "accepted/possible")
		b.ReportMetric(median(busy), "503-us")
		b.ReportMetric(median(healthy), "health-us")
		b.ReportMetric(median(busy)/median(healthy), "503/health")
		b.ReportMetric(g.memory(b, "VmHWM"), "rss-MB")
		b.ReportMetric((g.cpu()-cpu).Seconds()/took, "cpus")
	}
}

// maxOpen bounds the requests of an open loop that are not answered yet: it
// stops being open when the machine cannot keep up.
const maxOpen = 1000

// openLoop calls do so many times a second, each in a goroutine of its own, and
// waits for all.
func openLoop(perSecond int, d time.Duration, do func(i int)) {
	total := int(d.Seconds() * float64(perSecond))
	places := make(chan struct{}, maxOpen)
	var doing sync.WaitGroup
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	start := time.Now()
	for i := 0; i < total; <-ticker.C {
		due := min(total, int(time.Since(start).Seconds()*float64(perSecond))+1)
		for ; i < due; i++ {
			places <- struct{}{}
			doing.Go(func() {
				do(i)
				<-places
			})
		}
	}
	doing.Wait()
}

// wires are connections to a server, used for one request at a time each. They
// take a fraction of what net/http's client does, which has the machine to share
// with the server.
type wires struct {
	host string
	mu   sync.Mutex
	idle []*wire
}

type wire struct {
	net.Conn
	answers *bufio.Reader
}

func newWires(b *testing.B, of string) *wires {
	b.Helper()
	u, err := url.Parse(of)
	if err != nil {
		b.Fatal(err)
	}
	w := &wires{host: u.Host}
	b.Cleanup(func() {
		for _, c := range w.idle {
			c.Close()
		}
	})
	return w
}

func (w *wires) get(ctx context.Context) (*wire, error) {
	w.mu.Lock()
	if n := len(w.idle); n > 0 {
		c := w.idle[n-1]
		w.idle = w.idle[:n-1]
		w.mu.Unlock()
		return c, nil
	}
	w.mu.Unlock()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", w.host)
	if err != nil {
		return nil, err
	}
	return &wire{conn, bufio.NewReader(conn)}, nil
}

var errNoRetryAfter = errors.New("503 without Retry-After")

// do makes a request and returns the status of its answer.
func (w *wires) do(ctx context.Context, method, path, body string) (int, error) {
	c, err := w.get(ctx)
	if err != nil {
		return 0, err
	}
	if _, err := fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		method, path, w.host, len(body), body); err != nil {
		return 0, errors.Join(err, c.Close())
	}
	res, err := http.ReadResponse(c.answers, nil)
	if err != nil {
		return 0, errors.Join(err, c.Close())
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return 0, errors.Join(err, c.Close())
	}
	w.mu.Lock()
	w.idle = append(w.idle, c)
	w.mu.Unlock()
	if res.StatusCode == http.StatusServiceUnavailable && res.Header.Get("Retry-After") == "" {
		return 0, errNoRetryAfter
	}
	return res.StatusCode, nil
}
