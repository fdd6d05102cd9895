// Package health says whether a push service may be asked now. It keeps a
// breaker and the pause that a push service asked for, for each destination: a
// host with a credential, or a project. Every process keeps its own. Health does
// not know pushkeys, apps or payloads.
//
// Anybody can post to a push gateway. So only what the provider calls evidence
// changes the breaker and the pause, and no single device or source can make
// enough evidence.
package health

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"

	"github.com/matrix-herald/herald/push"
)

const (
	// The breaker opens when so many of the last so many answers that count are
	// failures. A device's failure counts once between two successes, and of a
	// slot of time one failure and one success: a cut connection fails all pushes
	// on it at once and is not an outage.
	maxFailures = 8
	ofLast      = 10
	slot        = 100 * time.Millisecond

	// A pause for all takes 429 for so many devices, of which so many from one
	// source count, and for half of the last so many devices. One device counts
	// once, however often somebody asks for it.
	pauseDevices = 10
	perSource    = 2
	pauseOfLast  = 40
)

// Health implements push.Health.
type Health struct {
	wait     time.Duration
	maxPause time.Duration

	mu           sync.Mutex
	destinations map[string]*destination // as many as are configured
}

// Options are how long a destination is left alone. The zero value works.
type Options struct {
	// Wait is how long a destination that does not work is left alone before one
	// push finds out whether it works again; 0 is 5 s.
	Wait time.Duration
	// MaxPause bounds how long a destination is left alone that asked for it; 0
	// is 5 min.
	MaxPause time.Duration
}

// New returns a Health that knows nothing yet.
func New(opts Options) *Health {
	return &Health{
		wait: cmp.Or(opts.Wait, 5*time.Second), maxPause: cmp.Or(opts.MaxPause, 5*time.Minute), destinations: make(map[string]*destination),
	}
}

// destination is what is known of one destination.
type destination struct {
	breaker     circuitbreaker.CircuitBreaker[any]
	reason      push.Reason // of the last failure that counted
	probing     bool        // one push finds out whether it works again
	failed      map[push.Key]struct{}
	lastSuccess time.Time // that counted
	lastFailure time.Time

	paused  time.Time // until then
	answers []answer  // to the last devices, a ring
	next    int
}

// answer is the last one to a device.
type answer struct {
	by        push.Witness
	throttled bool
}

// at returns what is known of a destination, with mu held.
func (h *Health) at(name string) *destination {
	d := h.destinations[name]
	if d == nil {
		d = &destination{
			breaker: circuitbreaker.NewBuilder[any]().WithFailureThresholdRatio(maxFailures, ofLast).
				WithDelay(h.wait).WithJitterFactor(0.2).Build(),
			failed: make(map[push.Key]struct{}, maxFailures),
		}
		h.destinations[name] = d
	}
	return d
}

// Wait implements push.Health.
func (h *Health) Wait(destination string) (time.Duration, push.Reason) {
	if destination == "" {
		return 0, ""
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	d := h.at(destination)
	if left := time.Until(d.paused); left > 0 {
		return left, push.ReasonPaused
	}
	if d.breaker.IsClosed() {
		return 0, ""
	}
	if left := d.breaker.RemainingDelay(); left > 0 || d.probing {
		return max(left, time.Second), d.reason
	}
	d.breaker.HalfOpen()
	d.probing = true
	return 0, ""
}

// Record implements push.Health.
func (h *Health) Record(destination string, by push.Witness, out push.Outcome) push.HealthChange {
	if destination == "" {
		return push.HealthSame
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	d := h.at(destination)
	now := time.Now()
	if pause := h.pause(d, by, out); pause > 0 {
		d.success(now)
		d.paused = now.Add(pause)
		return push.HealthPaused
	}
	before := d.breaker.IsClosed()
	switch out.Evidence {
	case push.EvidenceNone:
		if d.breaker.IsHalfOpen() {
			d.probing = false // the next push finds out
		}
	case push.EvidenceWorks, push.EvidenceThrottled, push.EvidenceQuota:
		d.success(now)
	case push.EvidenceRefused:
		d.failure(by.Device, push.ReasonBreaker, now)
	case push.EvidenceUnreachable:
		d.failure(by.Device, push.ReasonOutage, now)
	}
	switch after := d.breaker.IsClosed(); {
	case before && !after:
		return push.HealthOpened
	case !before && after:
		return push.HealthClosed
	}
	return push.HealthSame
}

func (d *destination) success(now time.Time) {
	switch d.breaker.State() {
	case circuitbreaker.HalfOpenState:
		d.breaker.Close()
	case circuitbreaker.OpenState: // an answer to a push of before says nothing about now
		return
	case circuitbreaker.ClosedState:
		if now.Sub(d.lastSuccess) < slot {
			return
		}
		d.breaker.RecordSuccess()
	}
	clear(d.failed)
	d.lastSuccess, d.probing = now, false
}

func (d *destination) failure(device push.Key, reason push.Reason, now time.Time) {
	switch d.breaker.State() {
	case circuitbreaker.OpenState:
		return
	case circuitbreaker.HalfOpenState:
		d.breaker.Open()
	case circuitbreaker.ClosedState:
		if _, again := d.failed[device]; again || now.Sub(d.lastFailure) < slot {
			return
		}
		d.failed[device] = struct{}{}
		d.breaker.RecordFailure()
	}
	d.lastFailure, d.reason, d.probing = now, reason, false
}

// pause notes an answer and returns how long all are to leave the destination
// alone from now on, 0 if that one answer does not say so.
func (h *Health) pause(d *destination, by push.Witness, out push.Outcome) time.Duration {
	if out.Evidence == push.EvidenceNone || out.Evidence == push.EvidenceUnreachable {
		return 0
	}
	a := answer{by, out.Evidence == push.EvidenceThrottled}
	known := slices.IndexFunc(d.answers, func(other answer) bool { return other.by.Device == by.Device })
	switch {
	case known >= 0:
		d.answers[known] = a
	case len(d.answers) < pauseOfLast:
		d.answers = append(d.answers, a)
	default:
		d.answers[d.next] = a
		d.next = (d.next + 1) % pauseOfLast
	}
	if out.RetryAfter <= 0 || out.Evidence != push.EvidenceQuota && !(a.throttled && d.throttlesAll()) {
		return 0
	}
	d.answers, d.next = d.answers[:0], 0
	length := min(out.RetryAfter, h.maxPause)
	return length + rand.N(length/10+1) //nolint:gosec // so that replicas do not come back together
}

// throttlesAll reports whether so many of the last answers are 429 that it is not
// about some devices alone.
func (d *destination) throttlesAll() bool {
	throttled, counted, sources := 0, 0, make(map[string]int)
	for _, a := range d.answers {
		if !a.throttled {
			continue
		}
		throttled++
		if sources[a.by.Source]++; sources[a.by.Source] <= perSource {
			counted++
		}
	}
	return counted >= pauseDevices && 2*throttled >= len(d.answers)
}

// State implements push.Health.
func (h *Health) State(destination string) push.HealthState {
	h.mu.Lock()
	defer h.mu.Unlock()
	d := h.destinations[destination]
	switch {
	case d == nil:
		return push.HealthState{}
	case time.Until(d.paused) > 0:
		return push.HealthState{Reason: push.ReasonPaused, Until: d.paused}
	case d.breaker.IsClosed():
		return push.HealthState{}
	}
	return push.HealthState{Reason: d.reason, Until: time.Now().Add(d.breaker.RemainingDelay()), Probing: d.breaker.IsHalfOpen()}
}
