package push

import (
	"context"
	"sync/atomic"
)

// lane is what the gateway keeps about an app.
type lane struct {
	*load          // of its name
	quota  *quota  // of its Quota
	key    Key     // of the app
	outage *outage // of the key: other settings are tried at once
	// refusal is of this generation of apps: new settings are asked anew, whatever
	// has changed.
	refusal *refusal
}

// load counts what is in flight for one app, and knows what was last said
// about it.
type load struct {
	max      atomic.Int64
	inFlight atomic.Int64
	tripped  atomic.Bool
	proven   atomic.Bool
	shares   *shares // of the sources; nil where whoever comes first is served
}

// acquire takes a place for source if there is one, or if patient waits for the
// source's share.
func (l *load) acquire(ctx context.Context, source string, patient bool) bool {
	if l.shares != nil {
		return l.shares.acquire(ctx, source, int(l.max.Load()), patient)
	}
	if l.inFlight.Add(1) > l.max.Load() {
		l.inFlight.Add(-1)
		return false
	}
	return true
}

func (l *load) release(source string) {
	if l.shares != nil {
		l.shares.release(source, int(l.max.Load()))
		return
	}
	l.inFlight.Add(-1)
}
