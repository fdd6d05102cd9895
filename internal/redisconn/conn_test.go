package redisconn_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/internal/redisconn"
	"github.com/matrix-herald/herald/internal/redisconn/redistest"
)

func pinging(conn *redisconn.Conn) func(context.Context) error {
	return func(ctx context.Context) error { return conn.Client.Ping(ctx).Err() }
}

func unreachable(t *testing.T, reg *prometheus.Registry, want int) {
	t.Helper()
	text := "# HELP herald_test_store_away 1 while Redis does not answer.\n# TYPE herald_test_store_away gauge\n" +
		"herald_test_store_away " + string(rune('0'+want)) + "\n"
	if err := testutil.GatherAndCompare(reg, strings.NewReader(text), "herald_test_store_away"); err != nil {
		t.Error(err)
	}
}

// A Redis that is not there is noticed at the start, asked for once a second, and
// both are said once.
func TestRedisIsNotThereAtTheStartAndComes(t *testing.T) {
	t.Parallel()
	server := miniredis.RunT(t)
	cfg := redistest.Config(server.Addr())
	server.Close()
	var log bytes.Buffer
	conn, reg := redistest.Connect(t, cfg, &log)
	unreachable(t, reg, 1)
	if err := conn.Ask(t.Context(), pinging(conn)); !errors.Is(err, redisconn.ErrUnreachable) {
		t.Errorf("asked again at once: %v", err)
	}
	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	redistest.Await(t, func() bool { return conn.Ask(t.Context(), pinging(conn)) == nil })
	unreachable(t, reg, 0)
	for text, n := range map[string]int{"Redis is unreachable": 1, "Redis is reachable again": 1, "\n": 2} {
		if got := strings.Count(log.String(), text); got != n {
			t.Errorf("%q is %d times in the log, want %d:\n%s", text, got, n, &log)
		}
	}
}

func blackHole(t *testing.T) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and never answers
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	return listener.Addr().String()
}

func TestABlackHoleCostsTheBudgetOnce(t *testing.T) {
	t.Parallel()
	cfg := redistest.Config(blackHole(t))
	cfg.Budget = conf.Duration(50 * time.Millisecond)
	var log bytes.Buffer
	conn, _ := redistest.Connect(t, cfg, &log)
	if err := conn.Ask(t.Context(), pinging(conn)); !errors.Is(err, redisconn.ErrUnreachable) {
		t.Errorf("the second request waits, too: %v", err)
	}
	if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), "within the budget") {
		t.Errorf("the log has %d lines:\n%s", n, &log)
	}
}

func TestARequestWhoseTimeIsOverSaysNothingAboutRedis(t *testing.T) {
	t.Parallel()
	conn, reg := redistest.Connect(t, redistest.Config(miniredis.RunT(t).Addr()), io.Discard)
	ctx, cancel := context.WithCancel(t.Context())
	err := conn.Ask(ctx, func(ctx context.Context) error {
		cancel()
		return ctx.Err()
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want the request's own end", err)
	}
	unreachable(t, reg, 0)
}

func TestConnectRefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	cfg := redistest.Config("127.0.0.1:1")
	cfg.URL, cfg.CertFile, cfg.KeyFile = "rediss://127.0.0.1:1", "missing", "missing"
	if _, err := redisconn.Connect(t.Context(), cfg, "test", nil, nil); err == nil {
		t.Error("a missing file is none")
	}
}
