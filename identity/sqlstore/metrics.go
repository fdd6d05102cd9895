package sqlstore

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// RegisterMetrics adds the state of the connection pools to reg: go_sql_* with
// the label db_name, "read" and "write" with SQLite and "main" with PostgreSQL.
// It panics when they are registered already.
func (db *DB) RegisterMetrics(reg prometheus.Registerer) {
	if db.read == db.write {
		reg.MustRegister(collectors.NewDBStatsCollector(db.write, "main"))
		return
	}
	reg.MustRegister(collectors.NewDBStatsCollector(db.read, "read"), collectors.NewDBStatsCollector(db.write, "write"))
}
