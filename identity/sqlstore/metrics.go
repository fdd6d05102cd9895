package sqlstore

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// RegisterMetrics adds the state of the connection pools to reg: go_sql_* with
// the label db_name, "read" and "write". It panics when they are registered already.
func (db *DB) RegisterMetrics(reg prometheus.Registerer) {
	reg.MustRegister(collectors.NewDBStatsCollector(db.read.DB, "read"), collectors.NewDBStatsCollector(db.write.DB, "write"))
}
