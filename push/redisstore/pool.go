package redisstore

import "github.com/prometheus/client_golang/prometheus"

// Describe implements prometheus.Collector.
func (s *Store) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(s, ch) }

// Collect implements prometheus.Collector with the numbers of the connections to
// all servers together.
func (s *Store) Collect(ch chan<- prometheus.Metric) {
	stats := s.client.PoolStats()
	send := func(kind prometheus.ValueType, value uint32, name, help string) {
		desc := prometheus.NewDesc("herald_push_redis_"+name, help, nil, nil)
		ch <- prometheus.MustNewConstMetric(desc, kind, float64(value))
	}
	send(prometheus.GaugeValue, stats.TotalConns, "connections", "Connections to Redis.")
	send(prometheus.GaugeValue, stats.IdleConns, "idle_connections", "Connections to Redis that nobody uses at the moment.")
	send(prometheus.CounterValue, stats.Hits, "hits_total", "Calls of Redis that found a free connection.")
	send(prometheus.CounterValue, stats.Misses, "misses_total", "Calls of Redis that found no free connection and made one.")
}
