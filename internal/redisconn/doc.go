// Package redisconn connects both services to Redis: it owns the settings, which
// are the same for both, and a client of a single server, of one behind Sentinels,
// or of a Cluster. It stores nothing.
package redisconn
