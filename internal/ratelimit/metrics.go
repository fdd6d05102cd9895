package ratelimit

import (
	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	refused           *prometheus.CounterVec
	fallbacks, errors prometheus.Counter
	away              prometheus.Gauge
}

func newMetrics(opts *Options, m *memory) (*metrics, error) {
	prefix := "herald_" + opts.Service + "_limit"
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: prefix + name, Help: help})
	}
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: prefix + "ed_total", Help: "Requests refused by a limit; of several, by the one to wait for longest.",
	}, []string{"limit"})
	for _, name := range opts.Names {
		refused.WithLabelValues(name)
	}
	all := &metrics{
		refused:   refused,
		fallbacks: counter("_store_fallbacks_total", "Requests whose limits the process counted by itself because Redis did not answer."),
		errors:    counter("_store_errors_total", "Calls of Redis for limits that failed or took too long."),
		away:      prometheus.NewGauge(prometheus.GaugeOpts{Name: prefix + "_store_away", Help: "1 while the Redis of the limits does not answer."}),
	}
	keys := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: prefix + "_keys", Help: "Keys of limits in the process's own memory that are not all there again.",
	}, func() float64 { return float64(m.keys()) })
	for _, c := range []prometheus.Collector{all.refused, all.fallbacks, all.errors, all.away, keys} {
		if err := opts.Registerer.Register(c); err != nil {
			return nil, err
		}
	}
	return all, nil
}
