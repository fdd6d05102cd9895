package push

import (
	"strconv"
	"sync/atomic"
	"time"

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
	refusals      *prometheus.GaugeVec
	duplicates    *prometheus.CounterVec
	withhelds     *prometheus.CounterVec
	tripped       *prometheus.GaugeVec
	proven        *prometheus.GaugeVec
	sygnal        *sygnalMetrics // nil when not asked for

	registerer prometheus.Registerer
	perApp     atomic.Pointer[map[*App]*appMetrics]
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
	gauge := func(name, help string) *prometheus.GaugeVec {
		v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, app)
		reg.MustRegister(v)
		return v
	}
	m := &Metrics{
		registerer: reg,
		notifications: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "herald_push_notifications_total", Help: "Notifications received that could be understood.",
		}),
		devices:    counter("herald_push_devices_total", "Devices that notifications were for.", app...),
		outcomes:   counter("herald_push_outcomes_total", "Deliveries to one device by what became of them.", append(app, "outcome", "reason")...),
		responses:  counter("herald_push_provider_responses_total", "Answers of the push service by HTTP status.", append(app, "code")...),
		retries:    counter("herald_push_retries_total", "Further attempts within one request by what made them necessary.", append(app, "reason")...),
		uncertains: counter("herald_push_uncertain_total", "Attempts cut after the request was written: the push service may have accepted them.", app...),
		duplicates: counter("herald_push_duplicates_total", "Notifications that came again for a device, by what was done about them.", append(app, "result")...),
		withhelds:  counter("herald_push_rejections_withheld_total", "Pushkeys called dead that the homeserver was not told of, because it is not believed.", app...),
		inFlight:   gauge("herald_push_in_flight", "Deliveries that have one of the app's places."),
		expiry:     gauge("herald_push_certificate_expiry_timestamp_seconds", "When the app's certificate expires, in seconds since the epoch."),
		refusals:   gauge("herald_push_app_refused", "1 since the push service refused the app's credentials or settings, until it accepts a push."),
		tripped:    gauge("herald_push_guard_tripped", "1 while too many of the app's pushkeys are called dead to be believed."),
		proven:     gauge("herald_push_guard_proven", "1 once the push service has accepted a push with the app's current settings."),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "herald_push_provider_seconds", Help: "Time one attempt took, in seconds.", Buckets: latencyBuckets,
		}, app),
	}
	reg.MustRegister(m.notifications, m.latency)
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
		for _, d := range []duplicate{suppressed, countsUpdate, waited} {
			m.duplicates.WithLabelValues(app.Name, app.ProviderName, string(d))
		}
		m.withhelds.WithLabelValues(app.Name, app.ProviderName)
		for _, gauge := range []*prometheus.GaugeVec{m.tripped, m.proven, m.refusals} {
			gauge.WithLabelValues(app.Name, app.ProviderName)
		}
		per[app] = m.series(app)
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

// duplicate is what was done about a notification that a device has had or is
// about to have. It is a metric label.
type duplicate string

const (
	suppressed   duplicate = "suppressed"    // nothing
	countsUpdate duplicate = "counts_update" // its counts were sent, because they are others
	waited       duplicate = "waited"        // another request that was delivering it was waited for
)

func (m *Metrics) duplicate(app *App, d duplicate) {
	m.duplicates.WithLabelValues(app.Name, app.ProviderName, string(d)).Inc()
}

func (m *Metrics) withheld(app *App) {
	m.withhelds.WithLabelValues(app.Name, app.ProviderName).Inc()
}

func (m *Metrics) guardTripped(app *App, is bool) { set(m.tripped, app, is) }

func (m *Metrics) guardProven(app *App, is bool) { set(m.proven, app, is) }

func (m *Metrics) refused(app *App, is bool) { set(m.refusals, app, is) }

func set(gauge *prometheus.GaugeVec, app *App, is bool) {
	value := 0.0
	if is {
		value = 1
	}
	gauge.WithLabelValues(app.Name, app.ProviderName).Set(value)
}

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

// watch shows how each app's destination fares, as it is when somebody looks.
func (m *Metrics) watch(g *Gateway) { m.registerer.MustRegister(healthCollector{g}) }

type healthCollector struct{ *Gateway }

var (
	healthLabels = []string{"app", "provider"}
	breakerOpen  = prometheus.NewDesc("herald_push_breaker_open",
		"1 while the push service refuses the app's credentials and is asked only now and then.", healthLabels, nil)
	outageState = prometheus.NewDesc("herald_push_outage_state",
		"Whether the push service works, as far as this process can tell: 0 it does, 1 it is left alone, 2 a push finds out.", healthLabels, nil)
	pausedUntil = prometheus.NewDesc("herald_push_paused_until_timestamp_seconds",
		"Until when the push service asked to be left alone, in seconds since the epoch; 0 when it did not.", healthLabels, nil)
)

// Describe implements prometheus.Collector.
func (c healthCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{breakerOpen, outageState, pausedUntil} {
		ch <- desc
	}
}

// Collect implements prometheus.Collector.
func (c healthCollector) Collect(ch chan<- prometheus.Metric) {
	for _, app := range c.routes.Load().apps.All() {
		var refused, outage, paused float64
		switch s := c.opts.Health.State(app.Provider.Destination(&Device{})); s.Reason {
		case ReasonBreaker:
			refused = 1
		case ReasonOutage:
			if outage = 1; s.Probing {
				outage = 2
			}
		case ReasonPaused:
			paused = float64(s.Until.Unix())
		}
		for desc, value := range map[*prometheus.Desc]float64{breakerOpen: refused, outageState: outage, pausedUntil: paused} {
			ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, app.Name, app.ProviderName)
		}
	}
}
