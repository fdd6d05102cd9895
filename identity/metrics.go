package identity

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/threepid"
)

// Metrics counts what accounts, the directory and its peppers do. Labels are
// closed sets.
type Metrics struct {
	registers *prometheus.CounterVec
	sweeps    prometheus.Counter
	binds     *prometheus.CounterVec
	unbinds   *prometheus.CounterVec
	lookups   *prometheus.CounterVec
	addresses *prometheus.CounterVec
	invites   *prometheus.CounterVec
	accepts   *prometheus.CounterVec
	cancels   prometheus.Counter
	onbinds   *prometheus.CounterVec
	bindings  prometheus.Gauge
	peppers   *prometheus.GaugeVec
	pepperAge prometheus.Gauge

	pepperErrors prometheus.Counter
}

const (
	outcomeOK    = "ok"
	outcomeError = "error"
)

// outcome is the label of an error.
type outcome struct {
	err   error
	label string
}

func registerOutcomes() []outcome {
	return []outcome{
		{nil, outcomeOK}, {ErrInvalidServerName, "invalid_server_name"}, {ErrOpenIDRefused, "refused"},
		{ErrOpenIDMismatch, "mismatch"}, {ErrUnreachable, "unreachable"}, {ErrBusy, "busy"},
	}
}

func bindOutcomes() []outcome {
	return []outcome{
		{nil, outcomeOK}, {ErrNotYours, "not_yours"}, {threepid.ErrNoSession, "no_session"},
		{threepid.ErrNotValidated, "not_validated"}, {threepid.ErrSessionExpired, "expired"},
	}
}

func unbindOutcomes() []outcome {
	return []outcome{
		{nil, outcomeOK}, {errNothing, "nothing"}, {ErrForbidden, "forbidden"}, {ErrNotItsUser, "not_its_user"},
	}
}

func inviteOutcomes() []outcome {
	return []outcome{
		{nil, outcomeOK}, {ErrNotSender, "not_sender"}, {ErrInvalidRoom, "invalid_room"}, {ErrInUse, "in_use"},
		{ErrMedium, "medium"}, {threepid.ErrInvalidEmail, "invalid_email"}, {threepid.ErrSend, "not_sent"},
		{threepid.ErrBusy, "busy"},
	}
}

func acceptOutcomes() []outcome {
	return []outcome{
		{nil, outcomeOK}, {ErrNoInvite, "no_invite"}, {ErrInviteKey, "wrong_key"}, {ErrInvalidUser, "invalid_user"},
	}
}

func onbindOutcomes() []outcome {
	return []outcome{{nil, outcomeOK}, {errRefused, "refused"}, {errLater, "later"}, {errAborted, "aborted"}}
}

func lookupOutcomes() []outcome {
	return []outcome{
		{nil, outcomeOK}, {ErrBadAlgorithm, "bad_algorithm"}, {ErrTooMany, "too_many"}, {ErrBadPepper, "bad_pepper"},
	}
}

// errNothing stands for an unbind that succeeded without a change.
var errNothing = errors.New("nothing to unbind")

// lookupAlgorithms are the labels of lookups: whatever else was asked for is
// one label.
func lookupAlgorithms() []string { return []string{AlgorithmSHA256, AlgorithmNone, "other"} }

// NewMetrics registers the metrics with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "herald_identity_" + name, Help: help}, labels)
		reg.MustRegister(v)
		return v
	}
	m := &Metrics{
		registers: counter("registers_total", "Registrations by outcome.", "outcome"),
		binds:     counter("binds_total", "Requests to bind by outcome.", "outcome"),
		unbinds:   counter("unbinds_total", "Requests to unbind by outcome.", "outcome"),
		lookups:   counter("lookups_total", "Lookups by algorithm and outcome.", "algorithm", "outcome"),
		invites:   counter("invites_total", "Requests to invite by outcome.", "outcome"),
		accepts:   counter("invite_signatures_total", "Requests to sign the acceptance of an invite by outcome.", "outcome"),
		onbinds: counter("onbind_attempts_total",
			"Attempts to tell a homeserver about a binding by outcome; refused ones are given up.", "outcome"),
		cancels: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "herald_identity_invite_cancellations_total", Help: "Invites cancelled by their senders.",
		}),
		addresses: counter("lookup_addresses_total", "Addresses in answered lookups by algorithm.", "algorithm"),
		sweeps: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "herald_identity_swept_rows_total", Help: "Expired access tokens, invites and deliveries and abandoned consents removed.",
		}),
		bindings: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "herald_identity_bindings", Help: "Bindings in the directory.",
		}),
		peppers: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "herald_identity_peppers", Help: "Generations of the lookup pepper by state; next is not 0 while a rotation is under way.",
		}, []string{"state"}),
		pepperAge: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "herald_identity_pepper_age_seconds", Help: "How long the current pepper has been announced.",
		}),
	}
	m.pepperErrors = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "herald_identity_pepper_errors_total",
		Help: "Steps of the worker that rotates the lookup pepper and removes old digests that failed; each is tried again.",
	})
	reg.MustRegister(m.sweeps, m.cancels, m.bindings, m.peppers, m.pepperAge, m.pepperErrors)
	zero := func(v *prometheus.CounterVec, outcomes []outcome, labels ...string) {
		for _, o := range outcomes {
			v.WithLabelValues(append(labels, o.label)...)
		}
		v.WithLabelValues(append(labels, outcomeError)...)
	}
	zero(m.registers, registerOutcomes())
	zero(m.binds, bindOutcomes())
	zero(m.unbinds, unbindOutcomes())
	zero(m.invites, inviteOutcomes())
	zero(m.accepts, acceptOutcomes())
	zero(m.onbinds, onbindOutcomes())
	for _, algorithm := range lookupAlgorithms() {
		zero(m.lookups, lookupOutcomes(), algorithm)
		m.addresses.WithLabelValues(algorithm)
	}
	for _, s := range pepperStates() {
		m.peppers.WithLabelValues(string(s))
	}
	return m
}

func pepperStates() []PepperState {
	return []PepperState{PepperNext, PepperCurrent, PepperPrevious, PepperRetired}
}

// label returns the label of err.
func label(err error, outcomes []outcome) string {
	for _, o := range outcomes {
		if errors.Is(err, o.err) {
			return o.label
		}
	}
	return outcomeError
}

func (m *Metrics) registered(err error) {
	m.registers.WithLabelValues(label(err, registerOutcomes())).Inc()
}

func (m *Metrics) swept(rows int) { m.sweeps.Add(float64(rows)) }

func (m *Metrics) bound(err error) { m.binds.WithLabelValues(label(err, bindOutcomes())).Inc() }

func (m *Metrics) unbound(removed bool, err error) {
	if err == nil && !removed {
		err = errNothing
	}
	m.unbinds.WithLabelValues(label(err, unbindOutcomes())).Inc()
}

func (m *Metrics) invited(err error) {
	m.invites.WithLabelValues(label(err, inviteOutcomes())).Inc()
}

func (m *Metrics) accepted(err error) {
	m.accepts.WithLabelValues(label(err, acceptOutcomes())).Inc()
}

func (m *Metrics) told(err error) { m.onbinds.WithLabelValues(label(err, onbindOutcomes())).Inc() }

func (m *Metrics) lookedUp(r LookupRequest, err error) {
	algorithm := r.Algorithm
	if algorithm != AlgorithmSHA256 && algorithm != AlgorithmNone {
		algorithm = "other"
	}
	m.lookups.WithLabelValues(algorithm, label(err, lookupOutcomes())).Inc()
	if err == nil {
		m.addresses.WithLabelValues(algorithm).Add(float64(len(r.Addresses)))
	}
}

func (m *Metrics) observe(bindings int64, peppers []Pepper, now time.Time) {
	m.bindings.Set(float64(bindings))
	count := make(map[PepperState]int)
	for _, p := range peppers {
		count[p.State]++
		if p.State == PepperCurrent {
			m.pepperAge.Set(now.Sub(p.Since).Seconds())
		}
	}
	for _, s := range pepperStates() {
		m.peppers.WithLabelValues(string(s)).Set(float64(count[s]))
	}
}
