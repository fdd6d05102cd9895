package sygnal_test

import (
	"os"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/matrix-herald/herald/push/sygnal"
)

// gathered are metrics of ours as the service has them.
func gathered() prometheus.Gatherer {
	reg := prometheus.NewRegistry()
	counter := func(name string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name}, labels)
		reg.MustRegister(v)
		return v
	}
	gauge := func(name string, labels ...string) *prometheus.GaugeVec {
		v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name}, labels)
		reg.MustRegister(v)
		return v
	}
	histogram := func(name string, labels ...string) *prometheus.HistogramVec {
		v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Buckets: []float64{1, 2}}, labels)
		reg.MustRegister(v)
		return v
	}
	counter("herald_push_notifications_total").WithLabelValues().Add(2)
	devices := counter("herald_push_devices_total", "app", "provider")
	devices.WithLabelValues("a", "apns").Add(2)
	devices.WithLabelValues("b", "fcm").Add(3)
	outcomes := counter("herald_push_outcomes_total", "app", "provider", "outcome", "reason")
	outcomes.WithLabelValues("a", "apns", "accepted", "sent").Add(4)
	outcomes.WithLabelValues("a", "apns", "rejected", "bad_token").Add(1)
	outcomes.WithLabelValues("a", "apns", "temporary", "busy").Add(7)
	outcomes.WithLabelValues("(unknown)", "", "temporary", "unknown_app").Add(9)
	responses := counter("herald_push_provider_responses_total", "app", "provider", "code")
	responses.WithLabelValues("a", "apns", "200").Add(4)
	responses.WithLabelValues("b", "fcm", "404").Add(5)
	requests := counter("herald_http_requests_total", "route", "method", "code")
	requests.WithLabelValues("/_matrix/push/v1/notify", "POST", "200").Add(6)
	requests.WithLabelValues("/health", "GET", "200").Add(6)
	histogram("herald_http_request_duration_seconds", "route").WithLabelValues("/_matrix/push/v1/notify").Observe(1.5)
	seconds := histogram("herald_push_provider_seconds", "app", "provider")
	seconds.WithLabelValues("a", "apns").Observe(0.5)
	seconds.WithLabelValues("c", "apns").Observe(1.5)
	seconds.WithLabelValues("b", "fcm").Observe(3)
	gauge("herald_http_requests_in_flight").WithLabelValues().Set(8)
	inFlight := gauge("herald_push_in_flight", "app", "provider")
	inFlight.WithLabelValues("a", "apns").Set(1)
	inFlight.WithLabelValues("c", "apns").Set(2)
	inFlight.WithLabelValues("b", "fcm").Set(4)
	gauge("herald_push_certificate_expiry_timestamp_seconds", "app", "provider").WithLabelValues("a", "apns").Set(1000)
	return sygnal.WithMetricNames(reg)
}

func TestMetricsUnderSygnalsNames(t *testing.T) {
	t.Parallel()
	golden, err := os.Open("testdata/metrics.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer golden.Close()
	families, err := gathered().Gather()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range families {
		if name := f.GetName(); strings.HasPrefix(name, "sygnal_") {
			names = append(names, name)
		}
	}
	if err := testutil.GatherAndCompare(gathered(), golden, names...); err != nil {
		t.Error(err)
	}
}
