package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
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

// TraceConfig says where traces go.
type TraceConfig struct {
	// Endpoint is the URL of an OTLP collector that takes protobuf over HTTP,
	// such as http://localhost:4318/v1/traces. A URL without a path means
	// /v1/traces. Empty turns tracing off.
	Endpoint string `yaml:"endpoint"`
	// SampleRatio is the share of traces kept, from 0 to 1, of those that no
	// caller has decided on: a caller's traceparent header is followed.
	SampleRatio float64 `yaml:"sample_ratio"`
	// Headers are sent to the collector with every request: name=value, the next
	// one after a comma, values percent-encoded, as in the variable
	// OTEL_EXPORTER_OTLP_HEADERS (OpenTelemetry, "OTLP Exporter Configuration").
	// HeadersFile is a file that holds them.
	Headers     conf.Secret `yaml:"headers"`
	HeadersFile string      `yaml:"headers_file"`
}

var (
	errEndpoint = errors.New("write an http or https URL without user, query and fragment, or leave it out to turn tracing off")
	errHeaders  = errors.New("write name=value, the next one after a comma, values percent-encoded")
)

// Validate adds the faults of c to p; path is where c stands in the file.
func (c TraceConfig) Validate(path string, p *conf.Problems) {
	if c.Endpoint != "" {
		if _, err := c.endpoint(); err != nil {
			// The value is left out: a URL may hold a password.
			p.Add(path+".endpoint", nil, err.Error())
		}
	}
	if !(c.SampleRatio >= 0 && c.SampleRatio <= 1) { // also refuses NaN
		p.Add(path+".sample_ratio", c.SampleRatio, "write a number from 0 to 1")
	}
	if _, err := c.headers(); err != nil {
		p.Add(path+".headers", nil, err.Error()) // the value is a secret
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

// headers returns the headers by name.
func (c TraceConfig) headers() (map[string]string, error) {
	headers := make(map[string]string)
	for pair := range strings.SplitSeq(c.Headers.Reveal(), ",") {
		if pair = strings.TrimSpace(pair); pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		name = strings.TrimSpace(name)
		value, err := url.PathUnescape(strings.TrimSpace(value))
		if err != nil || value == "" || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
			return nil, errHeaders
		}
		headers[name] = value
	}
	return headers, nil
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
	headers, err := c.headers()
	if err != nil {
		return Tracer{}, nil, fmt.Errorf("set up tracing: %w", err)
	}
	otlp, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(endpoint), otlptracehttp.WithHeaders(headers))
	if err != nil {
		return Tracer{}, nil, fmt.Errorf("set up the trace exporter: %w", err)
	}
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(&exporter{next: otlp, log: log}),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(c.SampleRatio))),
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
