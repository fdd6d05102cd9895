package redisstore_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/internal/redisconn"
	"github.com/matrix-herald/herald/internal/redisconn/redistest"
	"github.com/matrix-herald/herald/push"
)

// service is a push service that counts and can be held up.
type service struct {
	mu      sync.Mutex
	answers map[string][]push.Outcome
	sent    map[string]int
	started chan struct{} // unless nil, is told of each push
	hold    chan struct{} // unless nil, holds each push until it is closed
}

var sent = push.Outcome{Reason: push.ReasonSent, Status: 200}

func newService() *service {
	return &service{answers: make(map[string][]push.Outcome), sent: make(map[string]int)}
}

func (s *service) Send(_ context.Context, d push.Delivery) push.Outcome {
	s.mu.Lock()
	s.sent[d.Device.PushKey]++
	out := sent
	if next := s.answers[d.Device.PushKey]; len(next) > 0 {
		out, s.answers[d.Device.PushKey] = next[0], next[1:]
	}
	s.mu.Unlock()
	if s.started != nil {
		s.started <- struct{}{}
	}
	if s.hold != nil {
		<-s.hold
	}
	return out
}

func (s *service) pushes(pushKey string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sent[pushKey]
}

// newGateway returns a gateway of its own process, in front of s.
func newGateway(t testing.TB, cfg redisconn.Config, s push.Provider, log io.Writer) *push.Gateway {
	t.Helper()
	return newGatewayWith(t, cfg, s, log, prometheus.NewRegistry())
}

func newGatewayWith(t testing.TB, cfg redisconn.Config, s push.Provider, log io.Writer, reg prometheus.Registerer) *push.Gateway {
	t.Helper()
	own, err := push.NewMemory(push.DefaultTerms(), push.MinMemoryEvents)
	if err != nil {
		t.Fatal(err)
	}
	logger := slog.New(slog.NewTextHandler(log, nil))
	metrics := push.NewMetrics(reg, false)
	shared, err := push.NewShared(openStore(t, cfg, push.DefaultTerms()), own, push.SharedOptions{Budget: cfg.Budget.Std(), Log: logger, Metrics: metrics})
	if err != nil {
		t.Fatal(err)
	}
	apps, err := push.NewApps([]push.App{{Name: "app", ProviderName: "apns", Provider: s, MaxInFlight: 1000}})
	if err != nil {
		t.Fatal(err)
	}
	g, err := push.NewGateway(apps, push.Options{
		Log: logger, Metrics: metrics, UnknownApp: push.UnknownAppFail, AttemptTimeout: 10 * time.Second, RetryWait: time.Millisecond, Ledger: shared,
	})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func deliver(t testing.TB, g *push.Gateway, event string, pushKeys ...string) (reasons []push.Reason) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var ds []push.Device
	for _, k := range pushKeys {
		ds = append(ds, push.Device{AppID: "app", PushKey: k, PushKeyTS: 1})
	}
	for _, out := range g.Deliver(ctx, &push.Notification{EventID: push.NewMember(event)}, ds) {
		reasons = append(reasons, out.Reason)
	}
	return reasons
}

// waiting returns how many deliveries have begun to wait for others.
func waiting(t *testing.T, reg *prometheus.Registry) (n int) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() == "herald_push_duplicates_total" && l.GetValue() == "waited" {
					n += int(m.GetCounter().GetValue())
				}
			}
		}
	}
	return n
}

func TestGatewaysShareRedis(t *testing.T) {
	t.Parallel()
	cfg := redistest.Shared(t)
	s := newService()
	s.started, s.hold = make(chan struct{}, 100), make(chan struct{})
	s.answers["dead"] = []push.Outcome{{Kind: push.Rejected, Reason: push.ReasonUnregistered}}
	s.answers["down"] = []push.Outcome{{Kind: push.Temporary, Reason: push.ReasonRateLimited}}
	regs := [2]*prometheus.Registry{prometheus.NewRegistry(), prometheus.NewRegistry()}
	gateways := [2]*push.Gateway{newGatewayWith(t, cfg, s, io.Discard, regs[0]), newGatewayWith(t, cfg, s, io.Discard, regs[1])}
	var wg sync.WaitGroup
	var mu sync.Mutex
	counts := make(map[push.Reason]int)
	for i := range 20 {
		wg.Go(func() {
			for _, reason := range deliver(t, gateways[i%2], "$1", "up", "dead", "down") {
				mu.Lock()
				counts[reason]++
				mu.Unlock()
			}
		})
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for waiting(t, regs[0])+waiting(t, regs[1]) < 3*19 {
		<-tick.C
	}
	close(s.hold)
	wg.Wait()
	for _, k := range []string{"up", "dead", "down"} {
		if n := s.pushes(k); n != 1 {
			t.Errorf("%s was pushed to %d times", k, n)
		}
	}
	compare(t, "outcomes", counts, map[push.Reason]int{
		push.ReasonSent: 1, push.ReasonDuplicate: 19, push.ReasonUnregistered: 1, push.ReasonRemembered: 19, push.ReasonRateLimited: 20,
	})
	compare(t, "the retry at the other gateway", deliver(t, gateways[1], "$1", "up", "dead", "down"),
		[]push.Reason{push.ReasonDuplicate, push.ReasonRemembered, push.ReasonSent})
}

func TestKeysExpireAndHoldNoPushkey(t *testing.T) {
	t.Parallel()
	cfg := redistest.Shared(t)
	s := newService()
	const dead, failed, alive = "secret-pushkey-dead", "secret-pushkey-failed", "secret-pushkey-alive"
	s.answers[dead] = []push.Outcome{{Kind: push.Rejected, Reason: push.ReasonUnregistered}}
	s.answers[failed] = []push.Outcome{{Kind: push.Temporary, Reason: push.ReasonRateLimited}}
	deliver(t, newGateway(t, cfg, s, io.Discard), "$secret-event", dead, failed, alive)
	client, err := cfg.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	terms := push.DefaultTerms()
	lifetimes := map[string]time.Duration{"d": terms.Lifetime, "f": push.EndedLifetime, "1": terms.RejectionLifetime, "app": 31 * 24 * time.Hour}
	seen := make(map[string]bool)
	for keys := client.Scan(t.Context(), 0, cfg.KeyPrefix+"*", 1000).Iterator(); keys.Next(t.Context()); {
		name := keys.Val()
		kind := "app"
		if value, err := client.Get(t.Context(), name).Result(); err == nil {
			kind = value[:1]
			name += " " + value
		}
		seen[kind] = true
		if strings.Contains(name, "secret") {
			t.Errorf("Redis holds %s", name)
		}
		ttl, err := client.PTTL(t.Context(), keys.Val()).Result()
		if err != nil || ttl <= 0 && kind != "f" || ttl > lifetimes[kind] {
			t.Errorf("%s expires in %s: %v", name, ttl, err)
		}
	}
	delete(seen, "f") // may have expired by now
	compare(t, "kinds of keys", seen, map[string]bool{"d": true, "1": true, "app": true})
}

func TestAQuestionLengthensTheLifetime(t *testing.T) {
	t.Parallel()
	server := miniredis.RunT(t)
	cfg := redistest.Config(server.Addr())
	s := newService()
	for i, want := range []push.Reason{push.ReasonSent, push.ReasonDuplicate, push.ReasonDuplicate, push.ReasonDuplicate} {
		// A new gateway knows nothing by itself.
		compare(t, "request", deliver(t, newGateway(t, cfg, s, io.Discard), "$1", "k"), []push.Reason{want})
		if i < 3 {
			server.FastForward(119 * time.Minute)
		}
	}
	server.FastForward(121 * time.Minute)
	compare(t, "after the lifetime", deliver(t, newGateway(t, cfg, s, io.Discard), "$1", "k"), []push.Reason{push.ReasonSent})
}

func TestARequestTakesTwoRoundTrips(t *testing.T) {
	t.Parallel()
	cfg := redistest.Shared(t)
	w := redistest.StartWire(t, cfg.Addresses[0])
	cfg.Addresses = []string{w.Address}
	s := newService()
	g := newGateway(t, cfg, s, io.Discard)
	s.answers["a0"] = []push.Outcome{{Kind: push.Temporary}}
	deliver(t, g, "$0", "a0", "a1") // connects, and Redis learns the scripts
	var keys []string
	for i := range 10 {
		keys = append(keys, strings.Repeat("k", i+1))
	}
	s.answers[keys[3]] = []push.Outcome{{Kind: push.Rejected, Reason: push.ReasonUnregistered}}
	s.answers[keys[7]] = []push.Outcome{{Kind: push.Temporary}}
	before := w.RoundTrips()
	deliver(t, g, "$1", keys...)
	if trips := w.RoundTrips() - before; trips != 2 {
		t.Errorf("%d round trips for ten devices, want 2", trips)
	}
}

func TestABlackHoleCostsTheBudgetOnce(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	cfg := redistest.Config(listener.Addr().String())
	cfg.Budget = redisconn.DefaultConfig("").Budget
	s := newService()
	var log bytes.Buffer
	g := newGateway(t, cfg, s, &log)
	compare(t, "first", deliver(t, g, "$1", "k"), []push.Reason{push.ReasonSent})
	compare(t, "second", deliver(t, g, "$1", "k"), []push.Reason{push.ReasonDuplicate})
	if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), "within its budget") {
		t.Errorf("the log has %d lines:\n%s", n, &log)
	}
}

func TestRedisDiesDuringARequestAndComesBack(t *testing.T) {
	t.Parallel()
	server := miniredis.RunT(t)
	cfg := redistest.Config(server.Addr())
	s := newService()
	s.started, s.hold = make(chan struct{}, 100), make(chan struct{})
	logs := &events{lines: make(chan string, 100)}
	g := newGateway(t, cfg, s, logs)
	var wg sync.WaitGroup
	wg.Go(func() {
		compare(t, "the request", deliver(t, g, "$1", "k"), []push.Reason{push.ReasonSent})
	})
	<-s.started
	server.Close()
	close(s.hold)
	wg.Wait()
	logs.await(t, "is away")
	compare(t, "the same event meanwhile", deliver(t, g, "$1", "k"), []push.Reason{push.ReasonDuplicate})
	compare(t, "another one", deliver(t, g, "$2", "k"), []push.Reason{push.ReasonSent})

	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	back := make(chan struct{})
	wg.Go(func() {
		defer close(back)
		logs.await(t, "is back")
	})
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for again := true; again; {
		select {
		case <-back:
			again = false
		case <-tick.C:
			deliver(t, g, "$3", "k")
		}
	}
	for _, event := range []string{"$1", "$2", "$3"} {
		compare(t, event+" with Redis back", deliver(t, g, event, "k"), []push.Reason{push.ReasonDuplicate})
		compare(t, event+" at another gateway", deliver(t, newGateway(t, cfg, s, io.Discard), event, "k"), []push.Reason{push.ReasonDuplicate})
	}
	if n := s.pushes("k"); n != 3 {
		t.Errorf("%d pushes of three events", n)
	}
}

// events are lines of a log that can be waited for.
type events struct{ lines chan string }

func (e *events) Write(p []byte) (int, error) {
	e.lines <- string(p)
	return len(p), nil
}

func (e *events) await(t *testing.T, text string) {
	for {
		select {
		case line := <-e.lines:
			if strings.Contains(line, text) {
				return
			}
		case <-t.Context().Done():
			t.Errorf("the log does not say %q", text)
			return
		}
	}
}
