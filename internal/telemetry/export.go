package telemetry

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// exporter takes out of spans what must not leave the process, whichever
// instrumentation put it in, and logs when spans cannot be sent: the SDK would
// tell only its global error handler.
type exporter struct {
	next    sdktrace.SpanExporter
	log     *slog.Logger
	failing atomic.Bool
}

// ExportSpans implements [sdktrace.SpanExporter]. It returns nil also when the
// spans are lost, which it logs once until spans get through again.
func (e *exporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	clean := make([]sdktrace.ReadOnlySpan, len(spans))
	for i, s := range spans {
		clean[i] = cleanSpan{s}
	}
	err := e.next.ExportSpans(ctx, clean)
	switch was := e.failing.Swap(err != nil); {
	case err != nil && !was:
		e.log.WarnContext(ctx, "traces cannot be sent", "err", err)
	case err == nil && was:
		e.log.InfoContext(ctx, "traces are sent again")
	}
	return nil
}

// Shutdown implements [sdktrace.SpanExporter].
func (e *exporter) Shutdown(ctx context.Context) error {
	if err := e.next.Shutdown(ctx); err != nil {
		return fmt.Errorf("end the trace exporter: %w", err)
	}
	return nil
}

// cleanSpan is a span without private attributes and without error texts, which
// may quote a URL.
type cleanSpan struct{ sdktrace.ReadOnlySpan }

// Attributes returns the attributes that may be sent.
func (s cleanSpan) Attributes() []attribute.KeyValue {
	return public(s.ReadOnlySpan.Attributes(), s.SpanKind())
}

// Events returns the events with the attributes that may be sent.
func (s cleanSpan) Events() []sdktrace.Event {
	events := slices.Clone(s.ReadOnlySpan.Events())
	for i := range events {
		events[i].Attributes = public(events[i].Attributes, s.SpanKind())
	}
	return events
}

// Status returns the status without its description.
func (s cleanSpan) Status() sdktrace.Status {
	return sdktrace.Status{Code: s.ReadOnlySpan.Status().Code}
}

// public returns the attributes that may be sent of those of a span of this
// kind.
func public(attrs []attribute.KeyValue, kind trace.SpanKind) []attribute.KeyValue {
	return slices.DeleteFunc(slices.Clone(attrs), func(a attribute.KeyValue) bool {
		return private(a.Key, kind)
	})
}

// private reports whether an attribute may hold an address, a token or free text
// of a client.
func private(key attribute.Key, kind trace.SpanKind) bool {
	switch key {
	case "url.full", "url.path", "url.query", "http.url", "http.target",
		"client.address", "client.port", "network.peer.address", "network.peer.port",
		"user_agent.original", "http.request.method_original",
		"exception.message", "exception.stacktrace",
		"db.statement", "db.query.text": // Redis commands quote keys and values
		return true
	case "server.address", "server.port": // on the server's side, the Host header of the client
		return kind == trace.SpanKindServer
	default:
		return false
	}
}
