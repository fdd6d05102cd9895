package email

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/threepid"
)

// latencyBuckets are in seconds. A relay answers in tenths of a second; one that
// checks the mail first takes several.
var latencyBuckets = []float64{.05, .1, .2, .5, 1, 2, 5, 10, 20, 50}

type metrics struct {
	mails    *prometheus.CounterVec
	inFlight prometheus.Gauge
	seconds  prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		mails: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "herald_identity_mails_total", Help: "Mails by what became of them.",
		}, []string{"template", "outcome"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "herald_identity_mails_in_flight", Help: "Mails being sent, each in one slot.",
		}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "herald_identity_mail_seconds", Help: "Time the relay took for one mail, in seconds.", Buckets: latencyBuckets,
		}),
	}
	reg.MustRegister(m.mails, m.inFlight, m.seconds)
	for _, o := range outcomes() {
		m.mails.WithLabelValues(verificationName, string(o))
		m.mails.WithLabelValues(invitationName, string(o))
	}
	return m
}

func (m *metrics) took(since time.Time) { m.seconds.Observe(time.Since(since).Seconds()) }

// count records the end of a mail.
func (m *metrics) count(template string, err error) {
	o := outcomeSent
	var f *failure
	switch {
	case errors.As(err, &f):
		o = f.outcome
	case errors.Is(err, threepid.ErrBusy):
		o = outcomeBusy
	}
	m.mails.WithLabelValues(template, string(o)).Inc()
}
