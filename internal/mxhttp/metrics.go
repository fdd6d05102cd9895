package mxhttp

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// otherMethod stands for the methods no Matrix API uses.
const otherMethod = "other"

// metrics count and time requests. Labels come from closed sets: route
// templates, methodLabel and status codes.
type metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	inFlight prometheus.Gauge
	refused  *prometheus.CounterVec
}

func newMetrics() *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "herald_http_requests_total",
			Help: "Answered HTTP requests.",
		}, []string{"route", "method", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "herald_http_request_duration_seconds",
			Help:    "Time from the request's headers to the end of the handler.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"route"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "herald_http_requests_in_flight",
			Help: "HTTP requests being handled.",
		}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "herald_http_bodies_refused_total",
			Help: "Request bodies that were not read to their end, because too many bytes are in flight or too few arrived.",
		}, []string{"reason"}),
	}
	for _, reason := range []string{refusedSource, refusedTotal, refusedSlow} {
		m.refused.WithLabelValues(reason)
	}
	return m
}

// register registers the metrics and that of b with reg, unless it is nil.
func (m *metrics) register(reg prometheus.Registerer, b *budget) error {
	if reg == nil {
		return nil
	}
	held := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "herald_http_bytes_in_flight",
		Help: "Bytes of request bodies, and of what is decoded of them, that are held at the moment.",
	}, b.inFlight)
	return errors.Join(reg.Register(m.requests), reg.Register(m.duration), reg.Register(m.inFlight), reg.Register(m.refused), reg.Register(held))
}

func (m *metrics) observe(route, method string, status int, took time.Duration) {
	m.requests.WithLabelValues(route, method, strconv.Itoa(status)).Inc()
	m.duration.WithLabelValues(route).Observe(took.Seconds())
}

// methodLabel maps a request method, which is the client's own text, to a closed
// set.
func methodLabel(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut,
		http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return method
	default:
		return otherMethod
	}
}
