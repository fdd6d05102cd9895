package push

import "time"

// Health says whether a destination may be asked now. Its implementation is in
// package health. Of the destination "" nothing is known, and it may always be
// asked. It is safe for concurrent use.
type Health interface {
	// Wait returns how long the destination is to be left alone and why, or 0 if
	// it may be asked now; then Record must be told what came of it.
	Wait(destination string) (time.Duration, Reason)
	// Record is told what came of asking, and returns what that changed.
	Record(destination string, by Witness, out Outcome) HealthChange
	// State returns what is known of the destination.
	State(destination string) HealthState
}

// Witness is for whom a destination was asked: a device, and the source that
// wanted it. Anybody can have many devices, or post often for one.
type Witness struct {
	Device Key
	Source string
}

// HealthState is what is known of a destination.
type HealthState struct {
	// Reason is why the destination is left alone, "" when it is not:
	// ReasonBreaker, ReasonOutage or ReasonPaused.
	Reason Reason
	// Until is when it may be asked again.
	Until time.Time
	// Probing: one push finds out whether it works again.
	Probing bool
}

// HealthChange is what an answer changed about a destination's health.
type HealthChange uint8

// The changes there are.
const (
	HealthSame HealthChange = iota
	HealthOpened
	HealthClosed
	HealthPaused
)
