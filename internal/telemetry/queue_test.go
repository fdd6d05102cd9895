package telemetry_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"
)

// TestSpansThatWaitAreBounded ends spans while the collector keeps the service
// waiting. Those beyond the bound are lost, and nobody waits for them.
func TestSpansThatWaitAreBounded(t *testing.T) {
	t.Parallel()
	const spans, queue, batch = 10_000, 2048, 512
	asked, goOn := make(chan struct{}, 1000), make(chan struct{})
	var received atomic.Int64
	c := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, err := io.ReadAll(r.Body)
		var req collectorpb.ExportTraceServiceRequest
		if err != nil || proto.Unmarshal(data, &req) != nil {
			t.Errorf("the collector cannot read its request: %v", err)
		}
		for _, resource := range req.GetResourceSpans() {
			for _, scope := range resource.GetScopeSpans() {
				received.Add(int64(len(scope.GetSpans())))
			}
		}
		asked <- struct{}{}
		<-goOn
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(c.Close)
	tracer, end := start(t, c.URL)
	one := func() {
		_, span := tracer.Provider().Tracer("x").Start(t.Context(), "x")
		span.End()
	}
	for range batch { // a batch is sent at once
		one()
	}
	<-asked
	for range spans {
		one()
	}
	close(goOn)
	if err := end(t.Context()); err != nil {
		t.Fatal(err)
	}
	// One batch was with the collector, and another one may have been on its way.
	if n := received.Load(); n < queue || n > queue+2*batch {
		t.Errorf("%d spans arrived of %d, want about %d", n, batch+spans, queue+batch)
	}
}
