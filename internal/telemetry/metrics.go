package telemetry

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// NewRegistry returns a registry with the collectors of the Go runtime and of
// the process, and herald_build_info{service,version,go}, which is always 1.
func NewRegistry(service, version string) *prometheus.Registry {
	reg := prometheus.NewRegistry()
	reg.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "herald_build_info",
			Help: "The running build; always 1.",
			ConstLabels: prometheus.Labels{
				"service": service,
				"version": version,
				"go":      runtime.Version(),
			},
		}, func() float64 { return 1 }),
	)
	return reg
}
