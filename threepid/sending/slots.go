package sending

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"

	"github.com/matrix-herald/herald/threepid"
)

// latencyBuckets are in seconds. A relay or provider answers in tenths of a second;
// one that looks at the message first takes several.
var latencyBuckets = []float64{.05, .1, .2, .5, 1, 2, 5, 10, 20, 50}

// Options are what Slots are made from.
type Options struct {
	// Config has its defaults and no faults.
	Config Config
	// One and Many are what a message is called in metrics: mail and mails.
	One, Many string
	// Templates are the names of all templates, for metrics.
	Templates []string
	// Registerer takes the metrics.
	Registerer prometheus.Registerer
	// Log is told of messages that were not sent.
	Log *slog.Logger
}

// Slots bound how many messages are sent at once. They are safe for concurrent use.
type Slots struct {
	opts     Options
	slots    *semaphore.Weighted
	messages *prometheus.CounterVec
	inFlight prometheus.Gauge
	seconds  prometheus.Histogram
}

// New returns Slots that are all free.
func New(opts Options) *Slots {
	const prefix = "herald_identity_"
	s := &Slots{
		opts: opts, slots: semaphore.NewWeighted(int64(opts.Config.MaxSending)),
		messages: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: prefix + opts.Many + "_total", Help: "Messages of this kind by what became of them.",
		}, []string{"template", "outcome"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: prefix + opts.Many + "_in_flight", Help: "Messages of this kind being sent, each in one slot.",
		}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: prefix + opts.One + "_seconds", Help: "Time the relay or provider took for one message, in seconds.", Buckets: latencyBuckets,
		}),
	}
	opts.Registerer.MustRegister(s.messages, s.inFlight, s.seconds)
	for _, t := range opts.Templates {
		for _, o := range Outcomes() {
			s.messages.WithLabelValues(t, string(o))
		}
	}
	return s
}

// Send counts and logs what becomes of a message of a template. Unless err says why
// there is none, it waits for a slot and has deliver send it, for as long as one
// message may take. It returns err, what deliver returns, or *threepid.BusyError if
// no slot was free within Config.MaxWait.
func (s *Slots) Send(ctx context.Context, template string, err error, deliver func(context.Context) error) error {
	if err == nil {
		err = s.inSlot(ctx, deliver)
	}
	outcome, said := Sent, ""
	if f, ok := errors.AsType[*Failure](err); ok {
		outcome, said = f.Outcome, f.Said
	} else if err != nil {
		outcome = Busy
	}
	s.messages.WithLabelValues(template, string(outcome)).Inc()
	switch outcome {
	case Sent, Disabled, Country: // the latter two are the operator's own wish
	default:
		s.opts.Log.WarnContext(ctx, "message not sent", "kind", s.opts.One, "template", template, "outcome", outcome, "err", err, "said", said)
	}
	return err
}

func (s *Slots) inSlot(ctx context.Context, deliver func(context.Context) error) error {
	wait := s.opts.Config.MaxWait.Std()
	waiting, cancel := context.WithTimeout(ctx, wait)
	err := s.slots.Acquire(waiting, 1)
	cancel()
	if err != nil {
		return fmt.Errorf("send %s: %w", s.opts.One, &threepid.BusyError{RetryAfter: wait})
	}
	defer s.slots.Release(1)
	s.inFlight.Inc()
	defer s.inFlight.Dec()
	defer func(since time.Time) { s.seconds.Observe(time.Since(since).Seconds()) }(time.Now())
	ctx, cancel = context.WithTimeout(ctx, s.opts.Config.Timeout.Std())
	defer cancel()
	return deliver(ctx)
}
