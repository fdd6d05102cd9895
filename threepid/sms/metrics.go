package sms

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/threepid"
)

type metrics struct {
	messages *prometheus.CounterVec
	inFlight prometheus.Gauge
	seconds  prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		messages: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "herald_identity_sms_total", Help: "Text messages by what became of them.",
		}, []string{"outcome"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "herald_identity_sms_in_flight", Help: "Text messages being sent, each in one slot.",
		}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "herald_identity_sms_seconds", Help: "Time the provider took for one text message, in seconds.",
			Buckets: []float64{.05, .1, .2, .5, 1, 2, 5, 10, 20, 50},
		}),
	}
	reg.MustRegister(m.messages, m.inFlight, m.seconds)
	for _, o := range outcomes() {
		m.messages.WithLabelValues(string(o))
	}
	return m
}

func (m *metrics) took(since time.Time) { m.seconds.Observe(time.Since(since).Seconds()) }

// count records the end of a message.
func (m *metrics) count(err error) {
	o := outcomeSent
	var f *failure
	switch {
	case errors.As(err, &f):
		o = f.outcome
	case errors.Is(err, threepid.ErrBusy):
		o = outcomeBusy
	}
	m.messages.WithLabelValues(string(o)).Inc()
}
