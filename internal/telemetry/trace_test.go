package telemetry_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/matrix-herald/herald/internal/mxhttp"
	"github.com/matrix-herald/herald/internal/telemetry"
)

const (
	callerTrace = "4bf92f3577b34da6a3ce929d0e0e4736"
	callerSpan  = "00f067aa0ba902b7"
	traceparent = "00-" + callerTrace + "-" + callerSpan + "-01"
)

// collector is an OTLP receiver.
type collector struct {
	*httptest.Server

	mu       sync.Mutex
	status   int
	path     string
	token    string
	tenant   string
	resource map[string]string
	spans    map[string]*tracepb.Span
}

func newCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{status: http.StatusOK, spans: map[string]*tracepb.Span{}, resource: map[string]string{}}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := c.take(r); err != nil {
			t.Errorf("collector: %v", err)
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
		w.WriteHeader(c.status)
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *collector) take(r *http.Request) error {
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(body)
		if err != nil {
			return err
		}
		body = z
	}
	data, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	var req collectorpb.ExportTraceServiceRequest
	if err := proto.Unmarshal(data, &req); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.path, c.token, c.tenant = r.URL.Path, r.Header.Get("Authorization"), r.Header.Get("Tenant")
	for _, rs := range req.GetResourceSpans() {
		for _, a := range rs.GetResource().GetAttributes() {
			c.resource[a.GetKey()] = a.GetValue().GetStringValue()
		}
		for _, ss := range rs.GetScopeSpans() {
			for _, s := range ss.GetSpans() {
				c.spans[s.GetName()] = s
			}
		}
	}
	return nil
}

// attributes returns the names of a span's attributes.
func attributes(s *tracepb.Span) map[string]bool {
	out := map[string]bool{}
	for _, a := range s.GetAttributes() {
		out[a.GetKey()] = true
	}
	return out
}

func TestMain(m *testing.M) {
	if err := os.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "tenant=a%2Cb%3D, authorization=Bearer%20c"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// start returns a tracer for the collector at url, and its end.
func start(t *testing.T, url string) (telemetry.Tracer, func(context.Context) error) {
	t.Helper()
	tracer, end, err := telemetry.Tracing(t.Context(), telemetry.TraceConfig{Endpoint: url}, "identity", "1.2.3", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return tracer, end
}

// engine returns an API whose one route asks upstream.
func engine(t *testing.T, client *http.Client, upstream string) http.Handler {
	t.Helper()
	e, err := mxhttp.NewEngine(mxhttp.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	e.GET("/key/:id", mxhttp.Wrap(func(w http.ResponseWriter, r *http.Request) error {
		req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, upstream+"/userinfo?access_token=sekrit", nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, resp.Body)
		if err := errors.Join(err, resp.Body.Close()); err != nil {
			return err
		}
		return mxhttp.WriteJSON(w, http.StatusOK, struct{}{})
	}))
	return e
}

func TestATraceGoesThroughTheService(t *testing.T) {
	c := newCollector(t)
	// The ratio of 0 shows that the caller's decision counts.
	t.Setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
	t.Setenv("OTEL_TRACES_SAMPLER_ARG", "0")
	tracer, end := start(t, c.URL)
	var handedOn string
	upstream := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		handedOn = r.Header.Get("Traceparent")
	}))
	defer upstream.Close()
	client := &http.Client{Transport: tracer.Transport(upstream.Client().Transport)}
	api := httptest.NewServer(tracer.Handler(engine(t, client, upstream.URL)))
	defer api.Close()

	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, api.URL+"/key/alice@example.org?access_token=sekrit", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Traceparent", traceparent)
	req.Header.Set("User-Agent", "sekrit")
	req.Header.Set("X-Forwarded-For", "6.6.6.6")
	resp, err := api.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("status %d", resp.StatusCode)
	}
	api.Close() // waits for the request's end, which comes after its answer
	if err := end(t.Context()); err != nil {
		t.Fatalf("shutdown: %v", err)
	}

	if c.path != "/v1/traces" || c.token != "Bearer c" || c.tenant != "a,b=" {
		t.Errorf("collector asked at %q with %q by %q", c.path, c.token, c.tenant)
	}
	if diff := cmp.Diff(map[string]string{"service.name": "identity", "service.version": "1.2.3"}, c.resource); diff != "" {
		t.Errorf("resource (-want +got):\n%s", diff)
	}
	in, out := c.spans["GET /key/:id"], c.spans["GET"]
	if in == nil || out == nil || len(c.spans) != 2 {
		t.Fatalf("spans %v, want \"GET /key/:id\" and \"GET\"", c.spans)
	}
	if hex.EncodeToString(in.GetTraceId()) != callerTrace || hex.EncodeToString(in.GetParentSpanId()) != callerSpan {
		t.Errorf("the caller's trace is not continued: %x, parent %x", in.GetTraceId(), in.GetParentSpanId())
	}
	if hex.EncodeToString(out.GetTraceId()) != callerTrace || !bytes.Equal(out.GetParentSpanId(), in.GetSpanId()) {
		t.Errorf("the call is not part of the request: %x, parent %x", out.GetTraceId(), out.GetParentSpanId())
	}
	if want := "00-" + callerTrace + "-" + hex.EncodeToString(out.GetSpanId()) + "-01"; handedOn != want {
		t.Errorf("handed on %q, want %q", handedOn, want)
	}
	checkPrivacy(t, in, out)
}

// checkPrivacy fails if a span holds what a client typed.
func checkPrivacy(t *testing.T, in, out *tracepb.Span) {
	t.Helper()
	for _, s := range []*tracepb.Span{in, out} {
		text := s.String()
		for _, private := range []string{"alice", "sekrit", "6.6.6.6", "url.path", "url.full", "peer.address"} {
			if strings.Contains(text, private) {
				t.Errorf("span %q holds %q: %s", s.GetName(), private, text)
			}
		}
	}
	if a := attributes(in); !a["http.route"] || !a["http.response.status_code"] || a["server.address"] {
		t.Errorf("attributes of the request: %v", a)
	}
	if a := attributes(out); !a["server.address"] {
		t.Errorf("attributes of the call: %v", a)
	}
}

func TestErrorTextsStayOutOfTraces(t *testing.T) {
	t.Parallel()
	c := newCollector(t)
	tracer, end := start(t, c.URL+"/v1/traces")
	_, span := tracer.Provider().Tracer("x").Start(t.Context(), "work")
	span.RecordError(errors.New("dial alice@example.org"), trace.WithStackTrace(true))
	span.SetStatus(codes.Error, "dial alice@example.org")
	span.End()
	if err := end(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := c.spans["work"]
	if s == nil || strings.Contains(s.String(), "alice") || strings.Contains(s.String(), "stacktrace") {
		t.Errorf("span %v", s)
	}
	if s.GetStatus().GetCode() != tracepb.Status_STATUS_CODE_ERROR || len(s.GetEvents()) != 1 {
		t.Errorf("the error itself is lost: %v", s)
	}
}

func TestUnmatchedRequestsShareASpanName(t *testing.T) {
	t.Parallel()
	c := newCollector(t)
	tracer, end := start(t, c.URL)
	api := tracer.Handler(engine(t, new(http.Client), ""))
	for _, r := range []*http.Request{
		httptest.NewRequest("GET", "/alice", nil), httptest.NewRequest("ALICE", "/key/1", nil),
	} {
		api.ServeHTTP(httptest.NewRecorder(), r)
	}
	if err := end(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c.spans["GET"] == nil || c.spans["HTTP"] == nil || len(c.spans) != 2 {
		t.Errorf("spans %v, want GET and HTTP", c.spans)
	}
}

func TestWithoutEndpointNothingIsWrapped(t *testing.T) {
	t.Parallel()
	tracer, end, err := telemetry.Tracing(t.Context(), telemetry.TraceConfig{}, "x", "1", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	mux, transport := http.NewServeMux(), new(http.Transport)
	if tracer.Handler(mux) != http.Handler(mux) || tracer.Transport(transport) != http.RoundTripper(transport) {
		t.Error("tracing that is off wraps something")
	}
	if _, span := tracer.Provider().Tracer("x").Start(t.Context(), "x"); span.IsRecording() {
		t.Error("tracing that is off records")
	}
	if err := end(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestTracingRefusesABadConfig(t *testing.T) {
	t.Parallel()
	_, _, err := telemetry.Tracing(t.Context(), telemetry.TraceConfig{Endpoint: "nonsense"}, "x", "1", slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "tracing.endpoint") {
		t.Errorf("error %v", err)
	}
}

func TestLostTracesAreLoggedOnce(t *testing.T) {
	t.Parallel()
	c := newCollector(t)
	c.status = http.StatusBadRequest // is not tried again
	var logs bytes.Buffer
	tracer, end, err := telemetry.Tracing(t.Context(), telemetry.TraceConfig{Endpoint: c.URL},
		"x", "1", slog.New(slog.NewTextHandler(&logs, nil)))
	if err != nil {
		t.Fatal(err)
	}
	flusher, ok := tracer.Provider().(interface{ ForceFlush(context.Context) error })
	if !ok {
		t.Fatal("the provider cannot be flushed")
	}
	flush := func() {
		_, span := tracer.Provider().Tracer("x").Start(t.Context(), "x")
		span.End()
		if err := flusher.ForceFlush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	flush()
	flush()
	if n := strings.Count(logs.String(), "traces cannot be sent"); n != 1 {
		t.Errorf("%d warnings, want 1:\n%s", n, logs.String())
	}
	c.mu.Lock()
	c.status = http.StatusOK
	c.mu.Unlock()
	flush()
	if !strings.Contains(logs.String(), "traces are sent again") {
		t.Errorf("the recovery is not logged:\n%s", logs.String())
	}
	if err := end(t.Context()); err != nil {
		t.Fatal(err)
	}
}
