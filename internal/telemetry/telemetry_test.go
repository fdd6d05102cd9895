package telemetry_test

import (
	"bytes"
	"runtime"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/internal/telemetry"
)

func TestTheLoggerHasTheLevelAndFormatAskedFor(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		config telemetry.LogConfig
		start  string
		lines  int // of one each of debug, info, warn and error
	}{
		"nothing said means info as JSON": {telemetry.LogConfig{}, `{"time":`, 3},
		"debug logs everything":           {telemetry.LogConfig{Level: "debug", Format: "json"}, `{"time":`, 4},
		"info as text":                    {telemetry.LogConfig{Level: "info", Format: "text"}, `time=`, 3},
		"warn":                            {telemetry.LogConfig{Level: "warn"}, `{"time":`, 2},
		"error":                           {telemetry.LogConfig{Level: "error"}, `{"time":`, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var buf bytes.Buffer
			log, err := telemetry.NewLogger(&buf, tc.config)
			if err != nil {
				t.Fatal(err)
			}
			log.DebugContext(t.Context(), "m")
			log.InfoContext(t.Context(), "m")
			log.WarnContext(t.Context(), "m")
			log.ErrorContext(t.Context(), "m")
			if n := strings.Count(buf.String(), "\n"); n != tc.lines {
				t.Errorf("%d lines, want %d", n, tc.lines)
			}
			if !strings.HasPrefix(buf.String(), tc.start) {
				t.Errorf("log starts with %.20q, want %q", buf.String(), tc.start)
			}
		})
	}
}

func TestTheLoggerRefusesWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	_, err := telemetry.NewLogger(new(bytes.Buffer), telemetry.LogConfig{Level: "loud", Format: "xml"})
	if err == nil || !strings.Contains(err.Error(), "log.level") || !strings.Contains(err.Error(), "log.format") {
		t.Errorf("error %v, want both faults", err)
	}
}

func TestTheRegistryTellsTheBuildAndTheRuntime(t *testing.T) {
	t.Parallel()
	reg := telemetry.NewRegistry("pushgw", "1.2.3")
	want := `# HELP herald_build_info The running build; always 1.
# TYPE herald_build_info gauge
herald_build_info{go="` + runtime.Version() + `",service="pushgw",version="1.2.3"} 1
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "herald_build_info"); err != nil {
		t.Error(err)
	}
	n, err := testutil.GatherAndCount(reg, "go_goroutines", "process_cpu_seconds_total")
	if n != 2 || err != nil {
		t.Errorf("%d runtime and process metrics (%v), want 2", n, err)
	}
}

func TestTraceConfigFaults(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		config telemetry.TraceConfig
		want   string
	}{
		"nothing is fine":               {telemetry.TraceConfig{}, ""},
		"an http URL is fine":           {telemetry.TraceConfig{Endpoint: "http://localhost:4318"}, ""},
		"an https URL is fine":          {telemetry.TraceConfig{Endpoint: "https://otel.example.org/v1/traces"}, ""},
		"host:port is no URL":           {telemetry.TraceConfig{Endpoint: "localhost:4318"}, "tracing.endpoint"},
		"another scheme":                {telemetry.TraceConfig{Endpoint: "grpc://localhost"}, "tracing.endpoint"},
		"a query would be dropped":      {telemetry.TraceConfig{Endpoint: "http://localhost/?a=sekrit"}, "tracing.endpoint"},
		"a password belongs in headers": {telemetry.TraceConfig{Endpoint: "http://user:sekrit@localhost/"}, "tracing.endpoint"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var p conf.Problems
			tc.config.Validate("tracing", &p)
			switch err := p.Err(); {
			case tc.want == "" && err != nil:
				t.Errorf("fault %v", err)
			case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
				t.Errorf("fault %v, want one of %s", err, tc.want)
			case err != nil && strings.Contains(err.Error(), "sekrit"):
				t.Errorf("the fault %v tells a secret", err)
			}
		})
	}
}

func TestWrongHeadersForTheCollectorAreNotShown(t *testing.T) {
	for _, headers := range []string{"=sekrit", "a=b,sekrit", "authorization sekrit=1", "a=sekrit%0D%0Ab", "a=sekrit%"} {
		t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", headers)
		var p conf.Problems
		telemetry.TraceConfig{Endpoint: "http://localhost:4318"}.Validate("tracing", &p)
		if err := p.Err(); err == nil || !strings.Contains(err.Error(), "OTEL_EXPORTER_OTLP_HEADERS: write name=value") || strings.Contains(err.Error(), "sekrit") {
			t.Errorf("%q: fault %v", headers, err)
		}
	}
}
