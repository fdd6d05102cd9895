package serve_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/internal/serve"
)

func hang(ctx context.Context) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

func fine(context.Context) error { return nil }

func TestAHangingCheckIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		logs := new(logBuffer)
		h := serve.NewHealth(slog.New(slog.NewTextHandler(logs, nil)),
			serve.Check{Name: "fine", Probe: fine}, serve.Check{Name: "database", Probe: hang}, serve.Check{Name: "redis", Probe: hang})
		start := time.Now()
		if diff := cmp.Diff([]string{"database", "redis"}, h.Reasons(t.Context())); diff != "" {
			t.Errorf("reasons (-want +got):\n%s", diff)
		}
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("took %s, want 2 s", took)
		}
		if !strings.Contains(logs.String(), "the check took longer than 2 s") {
			t.Errorf("log: %s", logs)
		}
	})
}

func TestChecksRunAtMostOnceASecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		logs := new(logBuffer)
		var runs int
		var state error
		h := serve.NewHealth(slog.New(slog.NewTextHandler(logs, nil)), serve.Check{Name: "database", Probe: func(context.Context) error {
			runs++
			return state
		}})
		expect := func(reasons, rounds int) {
			t.Helper()
			for range 10 {
				if got := h.Reasons(t.Context()); len(got) != reasons {
					t.Errorf("reasons %v, want %d", got, reasons)
				}
			}
			if runs != rounds {
				t.Errorf("%d rounds of checks, want %d", runs, rounds)
			}
		}
		expect(0, 1)
		state = errors.New("down")
		expect(0, 1)
		next := func() { <-time.After(time.Second) }
		next()
		expect(1, 2)
		next()
		expect(1, 3)
		state = nil
		next()
		expect(0, 4)
		if n := strings.Count(logs.String(), "msg=\"not ready\""); n != 1 {
			t.Errorf("logged %d times, want once:\n%s", n, logs)
		}
		if !strings.Contains(logs.String(), "ready again") {
			t.Errorf("the recovery is not logged:\n%s", logs)
		}
		h.Drain() // counts at once
		expect(1, 4)
	})
}

func TestAnAskerWhoLeavesDoesNotSpoilTheAnswer(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	h := serve.NewHealth(slog.New(slog.DiscardHandler), serve.Check{Name: "database", Probe: func(ctx context.Context) error { return ctx.Err() }})
	if reasons := h.Reasons(ctx); reasons != nil {
		t.Errorf("reasons %v", reasons)
	}
}

// full is an error with words for everybody.
type full struct{ error }

func (full) PublicReason() string { return "the disk is full" }

func TestReadyNamesTheCheckAndNotItsError(t *testing.T) {
	t.Parallel()
	o := options(hello)
	o.Ready = []serve.Check{
		{Name: "database", Probe: func(context.Context) error { return errors.New("dial db.internal") }},
		{Name: "files", Probe: func(context.Context) error { return fmt.Errorf("write /srv: %w", full{errors.New("no space")}) }},
	}
	s := start(t, o)
	for _, url := range []string{s.url("/ready"), s.adminURL("/readyz")} {
		if r := get(t, client(t), url); r.StatusCode != http.StatusServiceUnavailable || r.body != `{"status":"unavailable","reasons":["database","files: the disk is full"]}` {
			t.Errorf("%s: %d %s", url, r.StatusCode, r.body)
		}
	}
	if r := get(t, client(t), s.url("/health")); r.StatusCode != http.StatusOK {
		t.Errorf("/health: %d", r.StatusCode)
	}
}

func TestCheckHealth(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.write(t, "public.example.org")
	o := options(hello)
	o.Ready = []serve.Check{{Name: "database", Probe: func(context.Context) error { return errors.New("down") }}}
	plain := start(t, o)
	o.Config.TLS.CertFile, o.Config.TLS.KeyFile = p.cert, p.key
	secure := start(t, o)
	socket := t.TempDir() + "/s"
	start(t, onSocket(socket))
	_, port, err := net.SplitHostPort(plain.api[0].String())
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		target string
		want   string // a part of the error; "" for none
	}{
		"host and port":              {"127.0.0.1:" + port, ""},
		"all addresses":              {":" + port, ""},
		"all IPv4 addresses":         {"0.0.0.0:" + port, ""},
		"a URL":                      {"http://127.0.0.1:" + port, ""},
		"a URL of all addresses":     {"http://0.0.0.0:" + port + "/", ""},
		"https on the loopback":      {"https://" + secure.api[0].String(), ""},
		"a Unix socket":              {"unix:" + socket, ""},
		"a path that is not well":    {"http://127.0.0.1:" + port + "/ready", "503"},
		"http where https is spoken": {secure.api[0].String(), "400"},
		"nobody there":               {"unix:" + socket + "-not", "no such file"},
		"another scheme":             {"ftp://127.0.0.1", "neither"},
		"no address":                 {"http://a b", "neither"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := serve.CheckHealth(t.Context(), tc.target)
			if tc.want == "" && err != nil {
				t.Errorf("error %v", err)
			}
			if tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("error %v, want one with %q", err, tc.want)
			}
		})
	}
}
