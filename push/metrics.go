package push

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
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
	Dropped: {ReasonTooLarge, ReasonBadMessage, ReasonNotAllowed},
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
	refused       *prometheus.GaugeVec
	duplicates    *prometheus.CounterVec
	withheld      *prometheus.CounterVec
	tripped       *prometheus.GaugeVec
	proven        *prometheus.GaugeVec

	registerer prometheus.Registerer
}

// NewMetrics registers a gateway's metrics with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	app, registered := []string{"app", "provider"}, promauto.With(reg)
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return registered.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	gauge := func(name, help string) *prometheus.GaugeVec {
		return registered.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, app)
	}
	m := &Metrics{
		registerer: reg,
		notifications: registered.NewCounter(prometheus.CounterOpts{
			Name: "herald_push_notifications_total", Help: "Notifications received that could be understood.",
		}),
		devices:    counter("herald_push_devices_total", "Devices that notifications were for.", app...),
		outcomes:   counter("herald_push_outcomes_total", "Deliveries to one device by what became of them.", append(app, "outcome", "reason")...),
		responses:  counter("herald_push_provider_responses_total", "Answers of the push service by HTTP status.", append(app, "code")...),
		retries:    counter("herald_push_retries_total", "Further attempts within one request by what made them necessary.", append(app, "reason")...),
		uncertains: counter("herald_push_uncertain_total", "Attempts cut after the request was written: the push service may have accepted them.", app...),
		duplicates: counter("herald_push_duplicates_total", "Notifications that came again for a device, by what was done about them.", append(app, "result")...),
		withheld:   counter("herald_push_rejections_withheld_total", "Pushkeys called dead that the homeserver was not told of, because it is not believed.", app...),
		inFlight:   gauge("herald_push_in_flight", "Deliveries that have one of the app's places."),
		expiry:     gauge("herald_push_certificate_expiry_timestamp_seconds", "When the app's certificate expires, in seconds since the epoch."),
		refused:    gauge("herald_push_app_refused", "1 since the push service refused the app's credentials or settings, until it accepts a push."),
		tripped:    gauge("herald_push_guard_tripped", "1 while too many of the app's pushkeys are called dead to be believed."),
		proven:     gauge("herald_push_guard_proven", "1 once the push service has accepted a push with the app's current settings."),
		latency: registered.NewHistogramVec(prometheus.HistogramOpts{
			Name: "herald_push_provider_seconds", Help: "Time one attempt took, in seconds.", Buckets: latencyBuckets,
		}, app),
	}
	m.devices.WithLabelValues(unknownApp, "")
	return m
}

// setApps creates the series of apps, so that all begin at zero.
func (m *Metrics) setApps(apps *Apps) {
	m.expiry.Reset()
	for _, app := range apps.All() {
		for kind, rs := range reasons {
			for _, r := range rs {
				m.outcomes.WithLabelValues(app.Name, app.ProviderName, kind.String(), string(r))
			}
		}
		for _, d := range []duplicate{suppressed, countsUpdate, waited} {
			m.duplicates.WithLabelValues(app.Name, app.ProviderName, string(d))
		}
		for _, counter := range []*prometheus.CounterVec{m.devices, m.uncertains, m.withheld} {
			counter.WithLabelValues(app.Name, app.ProviderName)
		}
		m.inFlight.WithLabelValues(app.Name, app.ProviderName)
		m.latency.WithLabelValues(app.Name, app.ProviderName)
		if t := app.CertificateExpiry; !t.IsZero() {
			m.expiry.WithLabelValues(app.Name, app.ProviderName).Set(float64(t.Unix()))
		}
	}
}

// outcome counts a delivery's end; app is nil when none is configured for it.
func (m *Metrics) outcome(app *App, out Outcome) {
	name, provider := unknownApp, ""
	if app != nil {
		name, provider = app.Name, app.ProviderName
	}
	m.devices.WithLabelValues(name, provider).Inc()
	m.outcomes.WithLabelValues(name, provider, out.Kind.String(), string(out.Reason)).Inc()
}

func (m *Metrics) attempt(app *App, out Outcome, took time.Duration) {
	if out.Status != 0 || out.Kind == Temporary {
		m.latency.WithLabelValues(app.Name, app.ProviderName).Observe(took.Seconds())
	}
	if out.Status != 0 {
		m.responses.WithLabelValues(app.Name, app.ProviderName, codeLabel(out.Status)).Inc()
	}
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

func set(gauge *prometheus.GaugeVec, app *App, is bool) {
	value := 0.0
	if is {
		value = 1
	}
	gauge.WithLabelValues(app.Name, app.ProviderName).Set(value)
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

// watch shows how each app's destinations fare, as it is when somebody looks.
func (m *Metrics) watch(g *Gateway) { m.registerer.MustRegister(healthCollector{g}) }

type healthCollector struct{ *Gateway }

var (
	healthLabels = []string{"app", "provider"}
	breakerOpen  = prometheus.NewDesc("herald_push_breaker_open",
		"1 while the push service refuses the app's credentials and is asked only now and then.", healthLabels, nil)
	outageState = prometheus.NewDesc("herald_push_outage_state",
		"Whether the push service works, as far as this process can tell: 0 it does, 1 it is left alone, 2 a push finds out; of several hosts the worst.", healthLabels, nil)
	pausedUntil = prometheus.NewDesc("herald_push_paused_until_timestamp_seconds",
		"Until when the push service asked to be left alone, in seconds since the epoch; 0 when it did not; of several hosts the last.", healthLabels, nil)
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
		for _, destination := range app.destinations() {
			switch s := c.opts.Health.State(destination); {
			case s.Reason == ReasonBreaker:
				refused = 1
			case s.Reason == ReasonOutage && !s.Probing:
				outage = 1
			case s.Reason == ReasonOutage && outage == 0:
				outage = 2
			case s.Reason == ReasonPaused:
				paused = max(paused, float64(s.Until.Unix()))
			}
		}
		for desc, value := range map[*prometheus.Desc]float64{breakerOpen: refused, outageState: outage, pausedUntil: paused} {
			ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, app.Name, app.ProviderName)
		}
	}
}
