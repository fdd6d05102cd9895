package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/internal/cmdline"
	"github.com/matrix-herald/herald/internal/telemetry"
	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/health"
)

// generous is a push service that takes everything.
type generous struct{}

func (generous) Destination(*push.Device) string { return "generous" }

func (generous) Address(d *push.Device) string { return d.PushKey }

func (generous) Send(context.Context, push.Delivery) push.Outcome {
	return push.Outcome{Kind: push.Accepted, Reason: push.ReasonSent, Status: http.StatusOK}
}

// discarded is an http.ResponseWriter of which only the status is kept.
type discarded struct {
	header http.Header
	status int
}

func (d *discarded) Header() http.Header         { return d.header }
func (d *discarded) WriteHeader(status int)      { d.status = status }
func (d *discarded) Write(p []byte) (int, error) { return len(p), nil }

// BenchmarkSoak has the API deliver ten million notifications, each an event of
// its own, to a push service in memory, with everything of the service behind
// it but sockets. Its metrics are the resident memory of the process after the
// first million and at the end, in MB, and their ratio. It takes minutes, so it
// waits for HERALD_SOAK=1.
func BenchmarkSoak(b *testing.B) {
	if os.Getenv("HERALD_SOAK") != "1" {
		b.Skip("run make soak")
	}
	const million = 1_000_000
	cmdline.SaveMemory()
	handler := soakedHandler(b)
	for range b.N {
		notifyAll(b, handler, 0, million)
		first := resident(b)
		notifyAll(b, handler, million, 10*million)
		last := resident(b)
		b.ReportMetric(first, "first-MB")
		b.ReportMetric(last, "last-MB")
		b.ReportMetric(last/first, "ratio")
	}
}

func soakedHandler(b *testing.B) http.Handler {
	b.Helper()
	apps, err := push.NewApps([]push.App{{Name: "*", ProviderName: "generous", Provider: generous{}, MaxInFlight: 1000, Fingerprint: "x"}})
	if err != nil {
		b.Fatal(err)
	}
	return handlerOf(b, defaultConfig(), apps)
}

// handlerOf returns the handler of a server with a configuration, in this process.
func handlerOf(tb testing.TB, cfg *Config, apps *push.Apps) http.Handler {
	tb.Helper()
	log, flush, err := telemetry.NewBufferedLogger(io.Discard, cfg.Log)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(flush)
	registry := prometheus.NewRegistry()
	metrics := push.NewMetrics(registry)
	remembered, err := newDedup(cfg, nil)
	if err != nil {
		tb.Fatal(err)
	}
	gateway, err := push.NewGateway(apps, push.Options{
		Log: log, Metrics: metrics, UnknownApp: cfg.UnknownApp, Dedup: remembered, Health: health.New(health.Options{}),
		AttemptTimeout: cfg.Delivery.AttemptTimeout.Std(), RetryWait: cfg.Delivery.RetryWait.Std(),
	})
	if err != nil {
		tb.Fatal(err)
	}
	handler, err := newHandler(cfg, gateway, nil, log, registry)
	if err != nil {
		tb.Fatal(err)
	}
	return handler
}

// notifyAll posts the notifications from to to, a few at once, to a hundred
// thousand devices.
func notifyAll(b *testing.B, handler http.Handler, from, to int64) {
	b.Helper()
	next := atomic.Int64{}
	next.Store(from)
	var workers sync.WaitGroup
	for range 4 * runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			var body bytes.Buffer
			for n := next.Add(1) - 1; n < to && !b.Failed(); n = next.Add(1) - 1 {
				body.Reset()
				fmt.Fprintf(&body, `{"notification":{"event_id":"$%d:example.org","room_id":"!room:example.org","type":"m.room.message","sender":"@alice:example.org",`+
					`"content":{"msgtype":"m.text","body":"Noodles today?"},"counts":{"unread":1},"prio":"high",`+
					`"devices":[{"app_id":"org.example.app","pushkey":"%064x","data":{}}]}}`, n, n%100_000)
				r, err := http.NewRequestWithContext(b.Context(), http.MethodPost, "/_matrix/push/v1/notify", &body)
				if err != nil {
					b.Error(err)
					return
				}
				r.RemoteAddr = "192.0.2.1:1234"
				w := &discarded{header: make(http.Header)}
				handler.ServeHTTP(w, r)
				if w.status != http.StatusOK {
					b.Errorf("status %d", w.status)
				}
			}
		})
	}
	workers.Wait()
}

// resident returns the resident memory of the process in MB.
func resident(b *testing.B) float64 {
	b.Helper()
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		b.Skip("there is no /proc: ", err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(statm))[1])
	if err != nil {
		b.Fatal(err)
	}
	return float64(pages*os.Getpagesize()) / 1e6
}
