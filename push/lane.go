package push

import "sync/atomic"

// lane is what the gateway keeps about an app.
type lane struct {
	*load          // of its name
	quota  *quota  // of its Quota
	key    Key     // of the app
	outage *outage // of the key: other settings are tried at once
}

// load counts what is in flight for one app, and knows what was last said
// about it.
type load struct {
	max      atomic.Int64
	inFlight atomic.Int64
	tripped  atomic.Bool
	proven   atomic.Bool
}

func (l *load) acquire() bool {
	if l.inFlight.Add(1) > l.max.Load() {
		l.inFlight.Add(-1)
		return false
	}
	return true
}

func (l *load) release() { l.inFlight.Add(-1) }
