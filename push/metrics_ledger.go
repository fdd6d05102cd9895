package push

import "github.com/prometheus/client_golang/prometheus"

// duplicate is what was done about a notification that a device has had or is
// about to have. It is a metric label.
type duplicate string

const (
	suppressed   duplicate = "suppressed"    // nothing
	countsUpdate duplicate = "counts_update" // its counts were sent, because they are others
	waited       duplicate = "waited"        // another request that was delivering it was waited for
)

// ledgerMetrics count what a Ledger is good for.
type ledgerMetrics struct {
	duplicates *prometheus.CounterVec
	withheld   *prometheus.CounterVec
	tripped    *prometheus.GaugeVec
	proven     *prometheus.GaugeVec
	errors     *prometheus.CounterVec
	fallbacks  prometheus.Counter
	away       prometheus.Gauge
}

// storeCall is a call of a Store. It is a metric label.
type storeCall string

const (
	callBegin storeCall = "begin"
	callEnd   storeCall = "end"
)

func newLedgerMetrics(reg prometheus.Registerer) *ledgerMetrics {
	app := []string{"app", "provider"}
	m := &ledgerMetrics{
		duplicates: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "herald_push_duplicates_total", Help: "Notifications that came again for a device, by what was done about them.",
		}, append(app, "result")),
		withheld: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "herald_push_rejections_withheld_total", Help: "Pushkeys called dead that the homeserver was not told of, because it is not believed.",
		}, app),
		tripped: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "herald_push_guard_tripped", Help: "1 while too many of the app's pushkeys are called dead to be believed.",
		}, app),
		proven: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "herald_push_guard_proven", Help: "1 once the push service has accepted a push with the app's current settings.",
		}, app),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "herald_push_store_errors_total", Help: "Calls of the shared store that failed or took too long.",
		}, []string{"call"}),
		fallbacks: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "herald_push_store_fallbacks_total", Help: "Requests for which the process's own memory stood in for the shared store.",
		}),
		away: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "herald_push_store_away", Help: "1 while the shared store does not answer.",
		}),
	}
	reg.MustRegister(m.duplicates, m.withheld, m.tripped, m.proven, m.errors, m.fallbacks, m.away)
	m.errors.WithLabelValues(string(callBegin))
	m.errors.WithLabelValues(string(callEnd))
	return m
}

// init creates the series of app, so that all begin at zero.
func (m *ledgerMetrics) init(app *App) {
	for _, d := range []duplicate{suppressed, countsUpdate, waited} {
		m.duplicates.WithLabelValues(app.Name, app.ProviderName, string(d))
	}
	m.withheld.WithLabelValues(app.Name, app.ProviderName)
	m.tripped.WithLabelValues(app.Name, app.ProviderName)
	m.proven.WithLabelValues(app.Name, app.ProviderName)
}

func (m *Metrics) duplicate(app *App, d duplicate) {
	m.ledger.duplicates.WithLabelValues(app.Name, app.ProviderName, string(d)).Inc()
}

func (m *Metrics) withheld(app *App) {
	m.ledger.withheld.WithLabelValues(app.Name, app.ProviderName).Inc()
}

func (m *Metrics) guardTripped(app *App, is bool) { set(m.ledger.tripped, app, is) }

func (m *Metrics) guardProven(app *App, is bool) { set(m.ledger.proven, app, is) }

func set(gauge *prometheus.GaugeVec, app *App, is bool) {
	value := 0.0
	if is {
		value = 1
	}
	gauge.WithLabelValues(app.Name, app.ProviderName).Set(value)
}
