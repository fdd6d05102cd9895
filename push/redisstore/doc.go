// Package redisstore keeps what the processes of a push gateway know together
// in Redis: a single server, one behind Sentinels, or a Cluster.
//
// It implements push.Store and knows nothing else about notifications. Keys and
// values hold fingerprints, numbers and names of reasons, never a pushkey.
package redisstore
