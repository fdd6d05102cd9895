package main

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/health"
	"github.com/matrix-herald/herald/push/httpapi"
	"github.com/matrix-herald/herald/push/pushtest"
)

// oblivious remembers nothing: what suppression is compared with.
type oblivious struct{}

func (oblivious) Claim(_ context.Context, claims []push.Claim) []push.Claimed {
	claimed := make([]push.Claimed, len(claims))
	for i := range claimed {
		claimed[i].Accepted = true
	}
	return claimed
}

func (oblivious) Complete(_ context.Context, results []push.Result) []push.Guard {
	return make([]push.Guard, len(results))
}

// BenchmarkSuppression compares what the gateway delivers with memory and with
// Redis with what it delivers without either, in turns and before one APNs, so
// that whatever else the machine does meets all three.
func BenchmarkSuppression(b *testing.B) {
	const rounds, roundTime, inFlight = 7, 500 * time.Millisecond, 64
	apns := pushtest.StartAPNs(b, pushtest.APNsOptions{Discard: true})
	open := func(b *testing.B, section string, remembered push.Dedup) *contender {
		return startSuppression(b, apns, section, remembered)
	}
	none := open(b, "", oblivious{})
	contenders := map[string]*contender{"memory": open(b, "", nil)}
	if os.Getenv("TEST_REDIS_URL") != "" {
		contenders["redis"] = open(b, redisSection(b), nil)
	}
	// No event comes twice.
	body := bodies(strings.Repeat("0123456789abcdef", 4))
	cpu := func() time.Duration { return (&contender{pid: os.Getpid()}).cpu() + redisCPU(b) }
	for name, c := range contenders {
		b.Run(name, func(b *testing.B) {
			for range b.N {
				var ratios, with, without []float64
				used := make(map[*contender]time.Duration)
				sent := make(map[*contender]int64)
				rate := func(c *contender) float64 {
					before := cpu()
					perSecond, done := c.rate(b, body, inFlight, roundTime)
					used[c] += cpu() - before
					sent[c] += done
					return perSecond
				}
				rate(none)
				rate(c)
				for range rounds {
					mine, bare := rate(c), rate(none)
					with, without, ratios = append(with, mine), append(without, bare), append(ratios, mine/bare)
				}
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(median(with), "notify/s")
				b.ReportMetric(median(without), "without/s")
				b.ReportMetric(median(ratios), "ratio")
				// Of client, gateway, APNs and Redis together. Their ratio is what
				// that of the rates is on a machine that nothing else keeps busy.
				each := func(c *contender) float64 { return float64(used[c].Microseconds()) / float64(sent[c]) }
				b.ReportMetric(each(c), "cpu-us/notify")
				b.ReportMetric(each(none), "cpu-us/without")
				b.ReportMetric(each(none)/each(c), "cpu-ratio")
			}
		})
	}
}

// redisCPU returns the CPU time that Redis has used so far, 0 without one.
func redisCPU(b *testing.B) time.Duration {
	b.Helper()
	url := os.Getenv("TEST_REDIS_URL")
	if url == "" {
		return 0
	}
	opts, err := redis.ParseURL(url)
	if err != nil {
		b.Fatal(err)
	}
	client := redis.NewClient(opts)
	defer client.Close()
	info, err := client.Info(b.Context(), "cpu").Result()
	if err != nil {
		b.Fatal(err)
	}
	var sum float64
	for line := range strings.Lines(info) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if name == "used_cpu_user" || name == "used_cpu_sys" {
			seconds, err := strconv.ParseFloat(value, 64)
			if err != nil {
				b.Fatal(err)
			}
			sum += seconds
		}
	}
	return time.Duration(sum * float64(time.Second))
}

// startSuppression runs the API with one app of apns in this process; without
// memory of its own, with that of a configuration with this section.
func startSuppression(b *testing.B, apns *pushtest.APNs, section string, remembered push.Dedup) *contender {
	b.Helper()
	key := pushtest.NewTokenKey(b)
	dir := b.TempDir()
	writeFile(b, dir+"/key.p8", string(key.P8(b)))
	config := writeFile(b, dir+"/pushgw.yaml", section+"apps: {app: {type: apns, topic: org.example.ios, key_file: key.p8, key_id: "+
		key.KeyID+", team_id: "+key.TeamID+", endpoint: '"+apns.URL()+"'}}\n")
	cfg, err := loadConfig(config, nil)
	if err != nil {
		b.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	registry := prometheus.NewRegistry()
	metrics := push.NewMetrics(registry)
	if remembered == nil {
		conn, err := openRedis(b.Context(), cfg, log, registry)
		if err != nil {
			b.Fatal(err)
		}
		if conn != nil {
			b.Cleanup(func() { _ = conn.Close() })
		}
		if remembered, err = newDedup(cfg, conn); err != nil {
			b.Fatal(err)
		}
	}
	cfg.RootCAs = apns.CA().Pool()
	shared := newConnections(cfg, log, func(next http.RoundTripper) http.RoundTripper { return next })
	b.Cleanup(shared.close)
	apps, err := openApps(cfg, shared)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(apps.closeAll)
	g, err := push.NewGateway(apps.apps, push.Options{
		Log: log, Metrics: metrics, UnknownApp: cfg.UnknownApp, AttemptTimeout: 10 * time.Second, RetryWait: time.Second,
		Dedup: remembered, Health: health.New(health.Options{}),
	})
	if err != nil {
		b.Fatal(err)
	}
	handler, err := httpapi.New(httpapi.Options{Gateway: g, Log: log, Registerer: registry, Timeout: 25 * time.Second})
	if err != nil {
		b.Fatal(err)
	}
	server := httptest.NewServer(handler)
	b.Cleanup(server.Close)
	return &contender{url: server.URL + "/_matrix/push/v1/notify", client: benchClient(b)}
}
