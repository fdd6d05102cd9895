package validation

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/threepid"
)

// Labels of the metrics. They are closed sets.
const (
	sent        = "sent"
	sendError   = "send_error"
	rejected    = "destination_rejected"
	busy        = "busy"
	created     = "created"
	replaced    = "replaced"
	resent      = "sending_again"
	validated   = "validated"
	expired     = "expired"
	deleted     = "deleted"
	guessRight  = "right"
	guessRepeat = "repeated"
	guessWrong  = "wrong"
	guessSpent  = "spent"
)

type metrics struct {
	sends    *prometheus.CounterVec
	sessions *prometheus.CounterVec
	guesses  *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer, media map[threepid.Medium]Messenger) *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "herald_identity_validation_" + name, Help: help}, labels)
		reg.MustRegister(v)
		return v
	}
	m := &metrics{
		sends:    counter("sends_total", "Messages with a token by what became of them.", "medium", "outcome"),
		sessions: counter("sessions_total", "Validation sessions by what happened to them.", "transition"),
		guesses:  counter("guesses_total", "Tokens submitted by what they were.", "medium", "outcome"),
	}
	for medium := range media {
		for _, outcome := range []string{sent, sendError, rejected, busy} {
			m.sends.WithLabelValues(string(medium), outcome)
		}
		for _, outcome := range []string{guessRight, guessRepeat, guessWrong, guessSpent} {
			m.guesses.WithLabelValues(string(medium), outcome)
		}
	}
	for _, transition := range []string{created, replaced, resent, validated, expired, deleted} {
		m.sessions.WithLabelValues(transition)
	}
	return m
}

func (m *metrics) claimed(r ClaimResult) {
	switch {
	case r.Replaced:
		m.sessions.WithLabelValues(replaced).Inc()
	case r.Created:
		m.sessions.WithLabelValues(created).Inc()
	default:
		m.sessions.WithLabelValues(resent).Inc()
	}
}

func (m *metrics) sent(medium threepid.Medium, err error) {
	outcome := sendError
	switch {
	case err == nil:
		outcome = sent
	case errors.Is(err, threepid.ErrDestinationRejected), errors.Is(err, threepid.ErrNoRecipient):
		outcome = rejected // no fault of ours, nor of the relay's or provider's
	case errors.Is(err, threepid.ErrBusy):
		outcome = busy
	}
	m.sends.WithLabelValues(string(medium), outcome).Inc()
}

// guess counts a verdict about a session of a medium. The medium is one of those
// the metrics were made for: sessions of others do not come to be.
func (m *metrics) guess(medium threepid.Medium, v Verdict) {
	outcome := guessSpent
	switch v {
	case Right:
		outcome = guessRight
		m.sessions.WithLabelValues(validated).Inc()
	case Repeated:
		outcome = guessRepeat
	case Wrong:
		outcome = guessWrong
	case Spent:
	}
	m.guesses.WithLabelValues(string(medium), outcome).Inc()
}
