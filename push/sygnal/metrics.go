package sygnal

import (
	"maps"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/proto"
)

// renamed is a metric of Sygnal's and the one of ours that means the same.
type renamed struct {
	theirs, ours string
	help         string
	labels       map[string]string // theirs by ours; the others are added up
	only         map[string]string // of ours: only series with these values
	but          string            // of ours: no series with this reason
	add          map[string]string
}

// notifyRoute is the route that Sygnal's metrics of requests are about.
const notifyRoute = "/_matrix/push/v1/notify"

func metricNames() []renamed {
	app := map[string]string{"app": "pushkin"}
	all := []renamed{
		{theirs: "sygnal_notifications_received_total", ours: "herald_push_notifications_total", help: "Number of notification pokes received"},
		{theirs: "sygnal_notifications_devices_received_total", ours: "herald_push_devices_total", help: "Number of devices been asked to push"},
		{theirs: "sygnal_per_pushkin_type_total", ours: "herald_push_outcomes_total", help: "Number of pushes sent via each app", labels: app, but: "busy"},
		{
			theirs: "sygnal_inflight_request_limit_drop_total", ours: "herald_push_outcomes_total", help: "Pushes turned away because the app was at its limit",
			labels: app, only: map[string]string{"reason": "busy"},
		},
		{
			theirs: "sygnal_notify_time", ours: "herald_http_request_duration_seconds", help: "Time taken to answer /notify, in seconds",
			only: map[string]string{"route": notifyRoute},
		},
		{
			theirs: "sygnal_pushgateway_status_codes_total", ours: "herald_http_requests_total", help: "Answers to /notify by status",
			labels: map[string]string{"code": "code"}, only: map[string]string{"route": notifyRoute, "method": "POST"},
		},
		{
			theirs: "sygnal_requests_in_flight", ours: "herald_http_requests_in_flight", help: "Requests being processed",
			add: map[string]string{"resource": "NotifyEndpoint"},
		},
		{
			theirs: "sygnal_client_cert_expiry", ours: "herald_push_certificate_expiry_timestamp_seconds",
			help: "The expiry date of the client certificate, in seconds since the epoch", labels: app,
		},
	}
	for ours, theirs := range map[string]string{"apns": "apns", "fcm": "gcm"} { // Sygnal calls FCM by its former name
		only := map[string]string{"provider": ours}
		all = append(all,
			renamed{theirs: "sygnal_" + theirs + "_request_time", ours: "herald_push_provider_seconds", help: "Time taken to send a push, in seconds", only: only},
			renamed{theirs: "sygnal_active_" + theirs + "_requests", ours: "herald_push_in_flight", help: "Pushes being sent", only: only},
			renamed{
				theirs: "sygnal_" + theirs + "_status_codes_total", ours: "herald_push_provider_responses_total", help: "Answers of the push service by status",
				labels: map[string]string{"app": "pushkin", "code": "code"}, only: only,
			})
	}
	return all
}

// WithMetricNames returns what from gathers, and once more what Sygnal has too,
// under Sygnal's names, for dashboards and alerts made for it.
func WithMetricNames(from prometheus.Gatherer) prometheus.Gatherer {
	return prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		families, err := from.Gather()
		for _, r := range metricNames() {
			for _, family := range families {
				if family.GetName() == r.ours {
					families = append(families, r.rename(family))
					break
				}
			}
		}
		slices.SortFunc(families, func(a, b *dto.MetricFamily) int { return strings.Compare(a.GetName(), b.GetName()) })
		return families, err
	})
}

func (r renamed) rename(ours *dto.MetricFamily) *dto.MetricFamily {
	theirs := &dto.MetricFamily{Name: proto.String(r.theirs), Help: proto.String(r.help), Type: ours.Type}
	series := make(map[string]*dto.Metric)
	for _, m := range ours.GetMetric() {
		labels := make(map[string]string)
		for _, l := range m.GetLabel() {
			labels[l.GetName()] = l.GetValue()
		}
		if labels["app"] == "(unknown)" && r.labels != nil || r.but != "" && labels["reason"] == r.but || !contains(labels, r.only) {
			continue
		}
		renamed := maps.Clone(r.add)
		for ours, theirs := range r.labels {
			if renamed == nil {
				renamed = make(map[string]string)
			}
			renamed[theirs] = labels[ours]
		}
		key := ""
		var pairs []*dto.LabelPair
		for _, name := range slices.Sorted(maps.Keys(renamed)) {
			key += name + "=" + renamed[name] + "\n"
			pairs = append(pairs, &dto.LabelPair{Name: proto.String(name), Value: proto.String(renamed[name])})
		}
		if series[key] == nil {
			series[key] = &dto.Metric{Label: pairs}
			theirs.Metric = append(theirs.Metric, series[key])
		}
		add(series[key], m)
	}
	return theirs
}

func contains(labels, only map[string]string) bool {
	for name, value := range only {
		if labels[name] != value {
			return false
		}
	}
	return true
}

// add adds m to sum, which is empty or of the same kind.
func add(sum, m *dto.Metric) {
	switch {
	case m.Counter != nil:
		sum.Counter = &dto.Counter{Value: proto.Float64(sum.GetCounter().GetValue() + m.GetCounter().GetValue())}
	case m.Gauge != nil:
		sum.Gauge = &dto.Gauge{Value: proto.Float64(sum.GetGauge().GetValue() + m.GetGauge().GetValue())}
	case m.Histogram != nil && sum.Histogram == nil:
		sum.Histogram = proto.CloneOf(m.Histogram)
	case m.Histogram != nil:
		h, more := sum.GetHistogram(), m.GetHistogram()
		h.SampleCount = proto.Uint64(h.GetSampleCount() + more.GetSampleCount())
		h.SampleSum = proto.Float64(h.GetSampleSum() + more.GetSampleSum())
		for i, b := range h.GetBucket() {
			b.CumulativeCount = proto.Uint64(b.GetCumulativeCount() + more.GetBucket()[i].GetCumulativeCount())
		}
	}
}
