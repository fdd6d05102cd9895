package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	noopmetric "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	nooptrace "go.opentelemetry.io/otel/trace/noop"
	"golang.org/x/net/http/httpguts"

	"github.com/matrix-herald/herald/internal/conf"
)

// TraceConfig says where traces go. The rest is said by the standard variables
// OTEL_TRACES_SAMPLER, OTEL_TRACES_SAMPLER_ARG and OTEL_EXPORTER_OTLP_HEADERS of
// OpenTelemetry.
type TraceConfig struct {
	// Endpoint is the URL of an OTLP collector over HTTP, such as
	// http://localhost:4318; empty is off. OTEL_TRACES_SAMPLER,
	// OTEL_TRACES_SAMPLER_ARG and OTEL_EXPORTER_OTLP_HEADERS say the rest.
	Endpoint string `yaml:"endpoint"`
}

// GoneOptions says what became of options of former versions; path is where the
// TraceConfig stands in the file.
func GoneOptions(path string) map[string]string {
	const headers = "is gone: set the environment variable OTEL_EXPORTER_OTLP_HEADERS, which has the same form"
	return map[string]string{
		path + ".sample_ratio": "is gone: set the environment variables OTEL_TRACES_SAMPLER=parentbased_traceidratio and OTEL_TRACES_SAMPLER_ARG=0.1",
		path + ".headers":      headers,
		path + ".headers_file": headers,
	}
}

var errEndpoint = errors.New("write an http or https URL without user, query and fragment, or leave it out to turn tracing off")

// Validate adds the faults of c to p; path is where c stands in the file.
func (c TraceConfig) Validate(path string, p *conf.Problems) {
	if c.Endpoint == "" {
		return
	}
	if _, err := c.endpoint(); err != nil {
		// The value is left out: a URL may hold a password.
		p.Add(path+".endpoint", nil, err.Error())
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"} {
		if !validHeaders(os.Getenv(name)) {
			p.Add(name, nil, "write name=value, the next one after a comma, values percent-encoded")
		}
	}
}

// endpoint returns the URL that traces are posted to.
func (c TraceConfig) endpoint() (string, error) {
	u, err := url.Parse(c.Endpoint)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" ||
		u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", errEndpoint
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/v1/traces"
	}
	return u.String(), nil
}

// validHeaders looks at headers for the collector before the exporter does, which
// would show those that are wrong on standard error: they are secrets.
func validHeaders(list string) bool {
	for pair := range strings.SplitSeq(list, ",") {
		if pair = strings.TrimSpace(pair); pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		value, err := url.PathUnescape(strings.TrimSpace(value))
		if err != nil || value == "" || !httpguts.ValidHeaderFieldName(strings.TrimSpace(name)) || !httpguts.ValidHeaderFieldValue(value) {
			return false
		}
	}
	return true
}

// Tracer instruments HTTP in both directions. The zero Tracer does nothing and
// costs nothing.
type Tracer struct {
	provider   trace.TracerProvider // nil: tracing is off
	propagator propagation.TextMapPropagator
}

// Tracing returns a tracer that sends its spans to the collector c names, and
// the function that sends what is left and ends it. With no endpoint both do
// nothing. Problems of sending are logged to log. It fails when c would not pass
// Validate; the collector need not be there yet.
func Tracing(ctx context.Context, c TraceConfig, service, version string, log *slog.Logger) (Tracer, func(context.Context) error, error) {
	if c.Endpoint == "" {
		return Tracer{}, func(context.Context) error { return nil }, nil
	}
	var p conf.Problems
	c.Validate("tracing", &p)
	if err := p.Err(); err != nil {
		return Tracer{}, nil, fmt.Errorf("set up tracing: %w", err)
	}
	endpoint, err := c.endpoint()
	if err != nil {
		return Tracer{}, nil, fmt.Errorf("set up tracing: %w", err)
	}
	otlp, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(endpoint))
	if err != nil {
		return Tracer{}, nil, fmt.Errorf("set up the trace exporter: %w", err)
	}
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(&exporter{next: otlp, log: log}),
		sdktrace.WithResource(resource.NewSchemaless(
			attribute.String("service.name", service),
			attribute.String("service.version", version),
		)),
	)
	return Tracer{provider: provider, propagator: propagation.TraceContext{}}, provider.Shutdown, nil
}

// Provider returns what other instrumentation, such as that of a database
// driver, makes its spans with.
func (t Tracer) Provider() trace.TracerProvider {
	if t.provider == nil {
		return nooptrace.NewTracerProvider()
	}
	return t.provider
}

// Handler makes a span of each request to next, within the caller's trace if the
// request has a traceparent header. The span is named after the method and the
// route, which next leaves in the Pattern of the request it is given.
func (t Tracer) Handler(next http.Handler) http.Handler {
	if t.provider == nil {
		return next
	}
	routed := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r)
		if r.Pattern != "" {
			trace.SpanFromContext(r.Context()).SetAttributes(attribute.String("http.route", r.Pattern))
		}
	})
	return otelhttp.NewHandler(routed, "", append(t.options(),
		otelhttp.WithSpanNameFormatter(func(_ string, r *http.Request) string { return serverSpan(r) }))...)
}

// Transport makes a span of each request sent through base and hands the trace
// on in the traceparent header.
func (t Tracer) Transport(base http.RoundTripper) http.RoundTripper {
	if t.provider == nil {
		return base
	}
	return otelhttp.NewTransport(base, append(t.options(),
		otelhttp.WithSpanNameFormatter(func(_ string, r *http.Request) string { return method(r) }))...)
}

func (t Tracer) options() []otelhttp.Option {
	return []otelhttp.Option{
		otelhttp.WithTracerProvider(t.provider),
		otelhttp.WithPropagators(t.propagator),
		otelhttp.WithMeterProvider(noopmetric.NewMeterProvider()), // metrics are Prometheus's
	}
}

func serverSpan(r *http.Request) string {
	if r.Pattern == "" {
		return method(r)
	}
	return method(r) + " " + r.Pattern
}

// method keeps span names to a closed set: on the server's side the method is
// the client's own text.
func method(r *http.Request) string {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut,
		http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return r.Method
	default:
		return "HTTP"
	}
}
