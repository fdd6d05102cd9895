package h2pool

// SetMaxConns bounds the connections of a pool.
func SetMaxConns(o *Options, n int) { o.maxConns = n }
