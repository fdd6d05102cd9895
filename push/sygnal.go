package push

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// sygnalMetrics counts under Sygnal's names where the meaning is the same.
type sygnalMetrics struct {
	notifications prometheus.Counter
	devices       prometheus.Counter
	perPushkin    *prometheus.CounterVec
	limitDrop     *prometheus.CounterVec
	notify        *prometheus.HistogramVec
	notifyCodes   *prometheus.CounterVec
	requests      *prometheus.GaugeVec
	expiry        *prometheus.GaugeVec
	providers     map[string]sygnalProvider
}

// sygnalProvider are the series Sygnal keeps for one kind of app.
type sygnalProvider struct {
	time   prometheus.Histogram
	active prometheus.Gauge
	codes  *prometheus.CounterVec
}

func newSygnalMetrics(reg prometheus.Registerer) *sygnalMetrics {
	buckets := latencyBuckets
	s := &sygnalMetrics{
		notifications: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sygnal_notifications_received_total", Help: "Number of notification pokes received",
		}),
		devices: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sygnal_notifications_devices_received_total", Help: "Number of devices been asked to push",
		}),
		perPushkin: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sygnal_per_pushkin_type_total", Help: "Number of pushes sent via each app",
		}, []string{"pushkin"}),
		limitDrop: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sygnal_inflight_request_limit_drop_total", Help: "Pushes turned away because the app was at its limit",
		}, []string{"pushkin"}),
		notify: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sygnal_notify_time", Help: "Time taken to answer /notify, in seconds", Buckets: buckets,
		}, []string{"code"}),
		notifyCodes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sygnal_pushgateway_status_codes_total", Help: "Answers to /notify by status",
		}, []string{"code"}),
		requests: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sygnal_requests_in_flight", Help: "Requests to /notify being processed",
		}, []string{"resource"}),
		expiry: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sygnal_client_cert_expiry", Help: "The expiry date of the client certificate, in seconds since the epoch",
		}, []string{"pushkin"}),
		providers: make(map[string]sygnalProvider),
	}
	reg.MustRegister(s.notifications, s.devices, s.perPushkin, s.limitDrop, s.notify, s.notifyCodes, s.requests, s.expiry)
	// Sygnal calls FCM by its former name.
	for ours, theirs := range map[string]string{"apns": "apns", "fcm": "gcm"} {
		p := sygnalProvider{
			time: prometheus.NewHistogram(prometheus.HistogramOpts{
				Name: "sygnal_" + theirs + "_request_time", Help: "Time taken to send a push, in seconds", Buckets: buckets,
			}),
			active: prometheus.NewGauge(prometheus.GaugeOpts{
				Name: "sygnal_active_" + theirs + "_requests", Help: "Pushes being sent",
			}),
			codes: prometheus.NewCounterVec(prometheus.CounterOpts{
				Name: "sygnal_" + theirs + "_status_codes_total", Help: "Answers of the push service by status",
			}, []string{"pushkin", "code"}),
		}
		reg.MustRegister(p.time, p.active, p.codes)
		s.providers[ours] = p
	}
	return s
}

// ObserveNotify counts one answer to /notify under Sygnal's names, if they
// were asked for.
func (m *Metrics) ObserveNotify(status int, took time.Duration) {
	if m.sygnal == nil {
		return
	}
	code := strconv.Itoa(status)
	m.sygnal.notify.WithLabelValues(code).Observe(took.Seconds())
	m.sygnal.notifyCodes.WithLabelValues(code).Inc()
}

// NotifyBegins and NotifyEnds count a request to /notify as in flight under
// Sygnal's name, if it was asked for.
func (m *Metrics) NotifyBegins() { m.notifyInFlight(1) }

// NotifyEnds ends what NotifyBegins began.
func (m *Metrics) NotifyEnds() { m.notifyInFlight(-1) }

func (m *Metrics) notifyInFlight(delta float64) {
	if m.sygnal != nil {
		m.sygnal.requests.WithLabelValues("NotifyEndpoint").Add(delta)
	}
}

func (s *sygnalMetrics) notification(devices int) {
	s.notifications.Inc()
	s.devices.Add(float64(devices))
}

func (s *sygnalMetrics) outcome(app *App, out Outcome) {
	if out.Reason == ReasonBusy {
		s.limitDrop.WithLabelValues(app.Name).Inc()
		return
	}
	s.perPushkin.WithLabelValues(app.Name).Inc()
}

func (s *sygnalMetrics) begin(app *App) {
	if p, ok := s.providers[app.ProviderName]; ok {
		p.active.Inc()
	}
}

func (s *sygnalMetrics) end(app *App) {
	if p, ok := s.providers[app.ProviderName]; ok {
		p.active.Dec()
	}
}

func (s *sygnalMetrics) attempt(app *App, out Outcome, took time.Duration) {
	p, ok := s.providers[app.ProviderName]
	if !ok || out.Status == 0 {
		return
	}
	p.time.Observe(took.Seconds())
	p.codes.WithLabelValues(app.Name, codeLabel(out.Status)).Inc()
}
