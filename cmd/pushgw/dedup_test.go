package main

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/internal/redisconn/redistest"
	"github.com/matrix-herald/herald/push/pushtest"
)

// redisSection returns the options of a configuration for the Redis that the
// environment names, with keys of the test's own.
func redisSection(t testing.TB) string {
	t.Helper()
	return redistest.Section(redistest.Shared(t))
}

func TestReplicasPushAnEventOnce(t *testing.T) {
	t.Parallel()
	section := redisSection(t)
	var down atomic.Bool
	down.Store(true)
	s := startServices(t, pushtest.APNsOptions{Answer: func(r pushtest.APNsRequest) pushtest.APNsAnswer {
		switch r.Token {
		case fmt.Sprintf("%x", fmt.Appendf(nil, "%032d", 1)):
			return pushtest.APNsAnswer{Status: 410, Reason: "Unregistered"}
		case fmt.Sprintf("%x", fmt.Appendf(nil, "%032d", 2)):
			if down.Load() {
				return pushtest.APNsAnswer{Status: 503, Reason: "ServiceUnavailable", RetryAfter: "7"}
			}
		}
		return pushtest.APNsAnswer{}
	}}, pushtest.FCMOptions{})
	replicas := s.startReplicas(t, section)
	post := func(replica, unread int, keys ...int) (int, string) {
		t.Helper()
		var devices []string
		for _, n := range keys {
			devices = append(devices, fmt.Sprintf(`{"app_id":%q,"pushkey":%q,"pushkey_ts":1}`, iosApp, iosKey(n)))
		}
		status, answer, err := replicas[replica].notify(t.Context(), fmt.Sprintf(
			`{"notification":{"event_id":"$e:x","room_id":"!r:x","type":"m.room.message","counts":{"unread":%d},"devices":[%s]}}`, unread, strings.Join(devices, ",")))
		if err != nil {
			t.Fatal(err)
		}
		return status, answer
	}
	expect := func(what string, status int, answer string, wantStatus int, want string, pushes int) {
		t.Helper()
		if status != wantStatus || !strings.Contains(answer, want) {
			t.Errorf("%s: %d %s", what, status, answer)
		}
		if n := len(s.apns.Requests()); n != pushes {
			t.Errorf("%s: APNs has seen %d pushes, want %d", what, n, pushes)
		}
	}

	status, answer := post(0, 1, 0, 1, 2)
	expect("a mixed result", status, answer, 502, "M_UNKNOWN", 3)
	down.Store(false)
	status, answer = post(1, 1, 0, 1, 2)
	expect("the retry at another replica", status, answer, 200, `{"rejected":["`+iosKey(1)+`"]}`, 4)
	status, answer = post(0, 1, 0, 2)
	expect("the same once more", status, answer, 200, `{"rejected":[]}`, 4)
	status, answer = post(1, 5, 0)
	expect("with other counts", status, answer, 200, `{"rejected":[]}`, 5)
	if body := string(s.apns.Requests()[4].Body); body != `{"aps":{"badge":5}}` {
		t.Errorf("other counts are pushed as %s", body)
	}
	for replica, lines := range [][]string{
		{`herald_push_duplicates_total{app="org.example.ios",provider="apns",result="suppressed"} 2`, `herald_push_guard_proven{app="org.example.ios",provider="apns"} 1`, "herald_push_redis_connections "},
		{
			`herald_push_duplicates_total{app="org.example.ios",provider="apns",result="counts_update"} 1`,
			`herald_push_outcomes_total{app="org.example.ios",outcome="rejected",provider="apns",reason="remembered"} 1`,
			`herald_push_store_fallbacks_total 0`, `herald_push_guard_tripped{app="org.example.ios",provider="apns"} 0`,
		},
	} {
		metrics := replicas[replica].get(t, replicas[replica].Admin+"/metrics")
		for _, line := range lines {
			if !strings.Contains(metrics, line) {
				t.Errorf("/metrics of replica %d lacks %s", replica, line)
			}
		}
	}
}

// A Redis that is away is told of by the connection, and nothing else.
func TestTheLogSaysWhereIsRemembered(t *testing.T) {
	t.Parallel()
	for _, away := range []bool{false, true} {
		server := miniredis.RunT(t)
		cfg := defaultConfig()
		cfg.Redis = redistest.Config(server.Addr())
		if away {
			server.Close()
		}
		var log strings.Builder
		conn, err := openRedis(t.Context(), cfg, slog.New(slog.NewTextHandler(&log, nil)), prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		if strings.Contains(log.String(), "remembered in Redis") == away || strings.Contains(log.String(), "Redis is unreachable") != away {
			t.Errorf("away is %v:\n%s", away, &log)
		}
	}
}

func TestAPushkeyOfFormerSettingsIsAskedAboutAgain(t *testing.T) {
	t.Parallel()
	s := startServices(t, pushtest.APNsOptions{}, pushtest.FCMOptions{Answer: func(r pushtest.FCMRequest) pushtest.FCMAnswer {
		if r.Project == "example" {
			return pushtest.FCMError(404, "NOT_FOUND", "UNREGISTERED", "gone")
		}
		return pushtest.FCMAnswer{}
	}})
	g := startGateway(t, s.client, "-config", s.config)
	body := fmt.Sprintf(`{"notification":{"event_id":"$e:x","type":"m.room.message","devices":[{"app_id":%q,"pushkey":"k"}]}}`, androidApp)
	for range 2 {
		if status, answer, err := g.notify(t.Context(), body); err != nil || answer != `{"rejected":["k"]}` {
			t.Errorf("a dead token: %d %s %v", status, answer, err)
		}
	}
	if n := len(s.fcm.Requests()); n != 1 {
		t.Errorf("FCM was asked %d times", n)
	}
	writeFile(t, filepath.Join(s.dir, "firebase.json"), string(s.fcm.ServiceAccount("other")))
	g.Await(t, "apps reloaded")
	if status, answer, err := g.notify(t.Context(), body); err != nil || answer != `{"rejected":[]}` {
		t.Errorf("the token with another project's key: %d %s %v", status, answer, err)
	}
}
