package push

import (
	"strconv"
	"sync/atomic"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/prometheus/client_golang/prometheus"
)

// unknownApp is the app label of devices no app is configured for: an app_id
// is the sender's to choose and never becomes a label.
const unknownApp = "(unknown)"

// reasons are the outcomes there are, for the metrics to begin at zero.
var reasons = map[Kind][]Reason{
	Accepted: {ReasonSent, ReasonNothingToSend, ReasonDuplicate},
	Rejected: {
		ReasonUnregistered, ReasonBadToken, ReasonWrongTopic, ReasonSenderMismatch, ReasonMalformedPushKey,
		ReasonMalformedData, ReasonRemembered,
	},
	Temporary: {
		ReasonBusy, ReasonInFlight, ReasonRateLimited, ReasonPaused, ReasonUnavailable, ReasonConnection, ReasonUncertain, ReasonTimeout,
		ReasonCredentials, ReasonThirdParty, ReasonConfig, ReasonWithheld, ReasonBreaker, ReasonOutage, ReasonStaleReport, ReasonInternal, ReasonUnsupported,
	},
	Dropped: {ReasonTooLarge, ReasonBadMessage},
}

// latencyBuckets are in seconds. Push services answer within tens of
// milliseconds; the last bucket is the longest a homeserver waits.
var latencyBuckets = []float64{.005, .01, .02, .03, .05, .075, .1, .15, .2, .3, .5, .75, 1, 2, 5, 10, 30}

// Metrics counts what a Gateway does. Labels are names of configured apps,
// providers and closed sets.
type Metrics struct {
	notifications prometheus.Counter
	devices       *prometheus.CounterVec
	outcomes      *prometheus.CounterVec
	responses     *prometheus.CounterVec
	retries       *prometheus.CounterVec
	uncertains    *prometheus.CounterVec
	inFlight      *prometheus.GaugeVec
	latency       *prometheus.HistogramVec
	expiry        *prometheus.GaugeVec
	breakers      *prometheus.GaugeVec
	pauses        *prometheus.GaugeVec
	outages       *prometheus.GaugeVec
	ledger        *ledgerMetrics
	sygnal        *sygnalMetrics // nil when not asked for

	perApp atomic.Pointer[map[*App]*appMetrics]
}

// appMetrics are the hot series of one app, looked up once.
type appMetrics struct {
	devices  prometheus.Counter
	sent     prometheus.Counter
	ok       prometheus.Counter
	inFlight prometheus.Gauge
	latency  prometheus.Observer
}

// NewMetrics registers a gateway's metrics with reg. With sygnalNames those
// that Sygnal has too are also counted under Sygnal's names, for dashboards
// and alerts made for it.
func NewMetrics(reg prometheus.Registerer, sygnalNames bool) *Metrics {
	app := []string{"app", "provider"}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		reg.MustRegister(v)
		return v
	}
	m := &Metrics{
		notifications: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "herald_push_notifications_total", Help: "Notifications received that could be understood.",
		}),
		devices:    counter("herald_push_devices_total", "Devices that notifications were for.", app...),
		outcomes:   counter("herald_push_outcomes_total", "Deliveries to one device by what became of them.", append(app, "outcome", "reason")...),
		responses:  counter("herald_push_provider_responses_total", "Answers of the push service by HTTP status.", append(app, "code")...),
		retries:    counter("herald_push_retries_total", "Further attempts within one request by what made them necessary.", append(app, "reason")...),
		uncertains: counter("herald_push_uncertain_total", "Attempts cut after the request was written: the push service may have accepted them.", app...),
		inFlight: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "herald_push_in_flight", Help: "Deliveries under way.",
		}, app),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "herald_push_provider_seconds", Help: "Time one attempt took, in seconds.", Buckets: latencyBuckets,
		}, app),
		expiry: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "herald_push_certificate_expiry_timestamp_seconds", Help: "When the app's certificate expires, in seconds since the epoch.",
		}, app),
	}
	m.breakers = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "herald_push_breaker_open", Help: "1 while the push service refuses the app and is asked only now and then.",
	}, app)
	m.pauses = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "herald_push_paused_until_timestamp_seconds",
		Help: "Until when the push service asked to be left alone, as last seen, in seconds since the epoch; 0 when it did not.",
	}, app)
	m.outages = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "herald_push_outage_state",
		Help: "Whether the push service works, as far as this process can tell: 0 it does, 1 it is left alone, 2 a few pushes find out.",
	}, app)
	reg.MustRegister(m.notifications, m.inFlight, m.latency, m.expiry, m.breakers, m.pauses, m.outages)
	m.ledger = newLedgerMetrics(reg)
	if sygnalNames {
		m.sygnal = newSygnalMetrics(reg)
	}
	m.devices.WithLabelValues(unknownApp, "")
	m.perApp.Store(&map[*App]*appMetrics{})
	return m
}

// setApps creates the series of apps, so that all begin at zero.
func (m *Metrics) setApps(apps *Apps) {
	per := make(map[*App]*appMetrics, len(apps.All()))
	m.expiry.Reset()
	if m.sygnal != nil {
		m.sygnal.expiry.Reset()
	}
	for _, app := range apps.All() {
		for kind, rs := range reasons {
			for _, r := range rs {
				m.outcomes.WithLabelValues(app.Name, app.ProviderName, kind.String(), string(r))
			}
		}
		m.uncertains.WithLabelValues(app.Name, app.ProviderName)
		m.ledger.init(app)
		per[app] = m.series(app)
		m.breakers.WithLabelValues(app.Name, app.ProviderName).Set(0)
		m.pauses.WithLabelValues(app.Name, app.ProviderName)
		if t := app.CertificateExpiry; !t.IsZero() {
			m.expiry.WithLabelValues(app.Name, app.ProviderName).Set(float64(t.Unix()))
			if m.sygnal != nil {
				m.sygnal.expiry.WithLabelValues(app.Name).Set(float64(t.Unix()))
			}
		}
	}
	m.perApp.Store(&per)
}

func (m *Metrics) series(app *App) *appMetrics {
	return &appMetrics{
		devices:  m.devices.WithLabelValues(app.Name, app.ProviderName),
		sent:     m.outcomes.WithLabelValues(app.Name, app.ProviderName, Accepted.String(), string(ReasonSent)),
		ok:       m.responses.WithLabelValues(app.Name, app.ProviderName, "200"),
		inFlight: m.inFlight.WithLabelValues(app.Name, app.ProviderName),
		latency:  m.latency.WithLabelValues(app.Name, app.ProviderName),
	}
}

// of returns the series of app, also of one that a reload has just replaced.
func (m *Metrics) of(app *App) *appMetrics {
	if am := (*m.perApp.Load())[app]; am != nil {
		return am
	}
	return m.series(app)
}

func (m *Metrics) notification(devices int) {
	m.notifications.Inc()
	if m.sygnal != nil {
		m.sygnal.notification(devices)
	}
}

// outcome counts a delivery's end; app is nil when none is configured for it.
func (m *Metrics) outcome(app *App, out Outcome) {
	switch {
	case app == nil:
		m.devices.WithLabelValues(unknownApp, "").Inc()
		m.outcomes.WithLabelValues(unknownApp, "", out.Kind.String(), string(out.Reason)).Inc()
		return
	case out.Kind == Accepted && out.Reason == ReasonSent:
		m.of(app).sent.Inc()
	default:
		m.outcomes.WithLabelValues(app.Name, app.ProviderName, out.Kind.String(), string(out.Reason)).Inc()
	}
	m.of(app).devices.Inc()
	if m.sygnal != nil {
		m.sygnal.outcome(app, out)
	}
}

func (m *Metrics) begin(app *App) {
	m.of(app).inFlight.Inc()
	if m.sygnal != nil {
		m.sygnal.begin(app)
	}
}

func (m *Metrics) end(app *App) {
	m.of(app).inFlight.Dec()
	if m.sygnal != nil {
		m.sygnal.end(app)
	}
}

func (m *Metrics) attempt(app *App, out Outcome, took time.Duration) {
	if out.Status != 0 || out.Kind == Temporary {
		m.of(app).latency.Observe(took.Seconds())
	}
	switch {
	case out.Status == 200:
		m.of(app).ok.Inc()
	case out.Status != 0:
		m.responses.WithLabelValues(app.Name, app.ProviderName, codeLabel(out.Status)).Inc()
	}
	if m.sygnal != nil {
		m.sygnal.attempt(app, out, took)
	}
}

func (m *Metrics) retry(app *App, reason Reason) {
	m.retries.WithLabelValues(app.Name, app.ProviderName, string(reason)).Inc()
}

func (m *Metrics) outageState(app *App, s circuitbreaker.State) {
	m.outages.WithLabelValues(app.Name, app.ProviderName).Set(float64(s))
}

// pausedFor notes how long the app's push service is to be left alone.
func (m *Metrics) pausedFor(app *App, left time.Duration) {
	until := 0.0
	if left > 0 {
		until = float64(time.Now().Add(left).Unix())
	}
	m.pauses.WithLabelValues(app.Name, app.ProviderName).Set(until)
}

func (m *Metrics) breakerOpen(app *App, is bool) { set(m.breakers, app, is) }

func (m *Metrics) uncertain(app *App) {
	m.uncertains.WithLabelValues(app.Name, app.ProviderName).Inc()
}

// codeLabel keeps the set of status labels closed: whoever answers for the
// push service chooses the number.
func codeLabel(status int) string {
	switch status {
	case 200, 302, 400, 401, 403, 404, 405, 407, 408, 410, 413, 429, 500, 501, 502, 503, 504:
		return strconv.Itoa(status)
	default:
		return "other"
	}
}
