package main

import (
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/matrix-herald/herald/push/pushtest"
)

// collector is an OTLP receiver that keeps the names of the spans by trace.
type collector struct {
	*httptest.Server

	mu    sync.Mutex
	spans map[string][]string
}

func startCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{spans: make(map[string][]string)}
	c.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if err := c.take(r); err != nil {
			t.Errorf("collector: %v", err)
		}
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *collector) take(r *http.Request) error {
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		unzipped, err := gzip.NewReader(r.Body)
		if err != nil {
			return err
		}
		body = unzipped
	}
	data, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	var export collectorpb.ExportTraceServiceRequest
	if err := proto.Unmarshal(data, &export); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, resource := range export.GetResourceSpans() {
		for _, scope := range resource.GetScopeSpans() {
			for _, span := range scope.GetSpans() {
				id := fmt.Sprintf("%x", span.GetTraceId())
				c.spans[id] = append(c.spans[id], span.GetName())
				if strings.Contains(span.String(), "PUSHKEY") || strings.Contains(span.String(), "/3/device/") {
					return fmt.Errorf("a span holds a pushkey: %s", span.GetName())
				}
			}
		}
	}
	return nil
}

// Conformance (pushgw): traces continue the caller's and reach the push service
func TestTracesGoThroughTheGateway(t *testing.T) {
	t.Parallel()
	const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
	collector := startCollector(t)
	s := startServices(t, pushtest.APNsOptions{}, pushtest.FCMOptions{})
	web := s.addEndpoints(t, nil)
	config, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, s.config, fmt.Sprintf("tracing: {endpoint: %q}\n%s", collector.URL, config))
	g := startGateway(t, s.client, "-config", s.config)
	endpoint := "https://" + web.Addr() + "/PUSHKEY"
	for appID, pushKey := range map[string]string{iosApp: iosKey(1), androidApp: "PUSHKEY", "web": web.Subscription.PushKey(), "up": endpoint} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.API+"/_matrix/push/v1/notify", strings.NewReader(fmt.Sprintf(
			`{"notification":{"event_id":"$e","type":"m.room.message","devices":[{"app_id":%q,"pushkey":%q,"data":{"endpoint":%q,"auth":%[4]q,"p256dh":%[5]q}}]}}`,
			appID, pushKey, endpoint+"2", web.Subscription.Auth(), web.Subscription.PushKey())))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Traceparent", "00-"+trace+"-00f067aa0ba902b7-01")
		res, err := g.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
	}
	for service, header := range map[string]http.Header{
		"APNs": s.apns.Requests()[0].Header, "FCM": s.fcm.Requests()[0].Header,
		"a Web Push host": web.Requests()[0].Header, "another": web.Requests()[1].Header,
	} {
		if got := header.Get("Traceparent"); !strings.HasPrefix(got, "00-"+trace+"-") {
			t.Errorf("%s sees the traceparent %q", service, got)
		}
	}
	g.Stop(t) // sends what is left
	collector.mu.Lock()
	defer collector.mu.Unlock()
	// Four requests, each with its push.
	if got := collector.spans[trace]; len(got) != 8 {
		t.Errorf("spans of the caller's trace: %q; all: %v", got, collector.spans)
	}
}

// TestNothingCapsWhatIsInFlight holds 512 notifications at the push service at
// once: none is answered before all have arrived. A connection to FCM takes 100.
//
// Conformance (pushgw): hundreds in flight at once
func TestNothingCapsWhatIsInFlight(t *testing.T) {
	t.Parallel()
	const notifications = 512
	for app, key := range map[string]func(int) string{iosApp: iosKey, androidApp: func(i int) string { return fmt.Sprint("key", i) }} {
		var arrived sync.WaitGroup
		arrived.Add(notifications)
		s := startServices(t,
			pushtest.APNsOptions{Answer: func(pushtest.APNsRequest) pushtest.APNsAnswer {
				arrived.Done()
				arrived.Wait()
				return pushtest.APNsAnswer{}
			}},
			pushtest.FCMOptions{MaxConcurrentStreams: 100, Answer: func(pushtest.FCMRequest) pushtest.FCMAnswer {
				arrived.Done()
				arrived.Wait()
				return pushtest.FCMAnswer{}
			}})
		// The longest times there are: the first waits until the last has arrived.
		config, err := os.ReadFile(s.config)
		if err != nil {
			t.Fatal(err)
		}
		patient := strings.Replace(string(config), "drain_delay: 100ms", "drain_delay: 100ms\n  test_request_timeout: 29s", 1)
		// New pushkeys have half of the places.
		patient = strings.ReplaceAll(patient, "    type: ", "    concurrency: 1100\n    type: ")
		writeFile(t, s.config, "test_attempt_timeout: 28s\n"+patient)
		g := startGateway(t, s.client, "-config", s.config)
		var wg sync.WaitGroup
		for i := range notifications {
			wg.Go(func() {
				status, answer, err := g.notify(context.WithoutCancel(t.Context()), fmt.Sprintf(
					`{"notification":{"event_id":"$%d","type":"m.room.message","devices":[{"app_id":%q,"pushkey":%q}]}}`, i, app, key(i)))
				if err != nil || status != http.StatusOK {
					t.Errorf("%d %s %v", status, answer, err)
				}
			})
		}
		wg.Wait()
	}
}
