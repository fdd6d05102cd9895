package push

import (
	"sync"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"
)

// gateProbes is how many pushes, of as many devices, find out whether a push
// service that was left alone is worth asking again. The first one that is says
// so; so many failures say that it is not.
const gateProbes = 3

// gate keeps an app from asking its push service in vain. What opens it is its
// owner's to say; a gate that is closed lets everything pass.
//
// Anybody can have pushes for a device of their own fail as often as they like,
// if there is a way to make them fail at all. So each device counts once, and is
// one probe at most.
type gate struct {
	wait time.Duration // for which the push service is left alone

	mu      sync.Mutex
	breaker circuitbreaker.CircuitBreaker[any]
	failed  map[Key]time.Time // until when a device's failure does not count, or it is no probe
	probes  int               // on their way
	misses  int               // probes that failed since the push service was last left alone
}

func newGate(wait time.Duration, b circuitbreaker.Builder[any]) gate {
	return gate{wait: wait, breaker: b.WithDelay(wait).WithJitterFactor(0.2).Build(), failed: make(map[Key]time.Time)}
}

// admit reports whether an attempt may be made, and whether as a probe. The
// result of a probe must be told.
func (g *gate) admit(device Key, now time.Time) (ok, probe bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.breaker.IsClosed() {
		return true, false
	}
	if g.breaker.IsOpen() {
		if g.breaker.RemainingDelay() > 0 {
			return false, false
		}
		g.breaker.HalfOpen()
		g.probes, g.misses = 0, 0
		clear(g.failed)
	}
	if g.probes+g.misses >= gateProbes || now.Before(g.failed[device]) {
		return false, false
	}
	g.probes++
	g.failed[device] = now.Add(g.wait)
	return true, true
}

// answer is told what came of an attempt that was admitted, and has count count
// it while the gate is closed. It returns the state before and after.
func (g *gate) answer(device Key, s sign, probe bool, count func()) (was, is circuitbreaker.State) {
	g.mu.Lock()
	defer g.mu.Unlock()
	was = g.breaker.State()
	switch {
	case was == circuitbreaker.ClosedState:
		count()
	case was == circuitbreaker.HalfOpenState && probe:
		g.judge(device, s)
	}
	return was, g.breaker.State()
}

func (g *gate) judge(device Key, s sign) {
	g.probes--
	switch s {
	case good:
		clear(g.failed)
		g.breaker.Close()
	case bad:
		if g.misses++; g.misses == gateProbes {
			g.breaker.Open()
		}
	case none:
		delete(g.failed, device)
	}
}

// left returns how long the push service is still left alone, at least a second.
func (g *gate) left() time.Duration { return max(g.breaker.RemainingDelay(), time.Second) }

// sign is what the outcome of an attempt says about the push service.
type sign uint8

const (
	none sign = iota
	good
	bad
)
