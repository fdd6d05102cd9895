package ratelimit

import (
	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	refused *prometheus.CounterVec
}

func newMetrics(opts *Options, m *memory) (*metrics, error) {
	prefix := "herald_" + opts.Service + "_limit"
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: prefix + "ed_total", Help: "Requests refused by a limit; of several, by the one to wait for longest.",
	}, []string{"limit"})
	for _, name := range opts.Names {
		refused.WithLabelValues(name)
	}
	keys := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: prefix + "_keys", Help: "Keys of limits in the process's own memory that are not all there again.",
	}, func() float64 { return float64(m.keys()) })
	for _, c := range []prometheus.Collector{refused, keys} {
		if err := opts.Registerer.Register(c); err != nil {
			return nil, err
		}
	}
	return &metrics{refused}, nil
}
