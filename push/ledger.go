package push

import (
	"context"
	"crypto/sha256"
	"errors"
	"time"
)

// Ledger is what a Gateway remembers: which notifications are on their way or
// delivered, which pushkeys are dead, and how an app's pushes have fared. It
// always has an answer; *Memory and *Shared are Ledgers. It is safe for
// concurrent use.
type Ledger interface {
	// Begin answers for each device of a request, in their order, before the
	// push services are asked. It claims each notification that is neither
	// delivered nor under way.
	Begin(ctx context.Context, queries []Query) []Finding
	// End records what became of devices that Begin answered for, and returns
	// how each one's app fares now, in their order.
	End(ctx context.Context, results []Result) []Guard
}

// Store is a Ledger that several processes share and that can be away. Begin
// and End are one round trip each, they may be repeated, and when they return
// an error, any part of them may have been done.
type Store interface {
	Begin(ctx context.Context, queries []Query) ([]Finding, error)
	End(ctx context.Context, results []Result) ([]Guard, error)
}

// Key stands for something in a Ledger without telling what it is: the first
// 16 bytes of a SHA-256.
type Key [16]byte

// keyOf returns the key of parts. Different lists of parts have different keys.
func keyOf(parts ...string) Key {
	size := 0
	for _, p := range parts {
		size += 4 + len(p)
	}
	text := make([]byte, 0, size)
	for _, p := range parts {
		n := len(p)
		text = append(text, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
		text = append(text, p...)
	}
	sum := sha256.Sum256(text)
	return Key(sum[:16])
}

// Query is what a Ledger is asked about one device.
type Query struct {
	// Event stands for the notification at this device. The zero Key is one
	// that is never suppressed.
	Event Key
	// Owner names the request that asks. It is not zero.
	Owner uint64
	// Awaited is the request whose end the asking one waits for, 0 for none.
	Awaited uint64
	// Lease is how long the claim holds if its end is never recorded.
	Lease time.Duration
	// PushKey stands for the pushkey at its app with its provider's settings.
	PushKey Key
	// App stands for the app with its provider's settings.
	App Key
	// Quota stands for what the push service counts the app's pushes under.
	Quota Key
}

// State is how far a notification has come at a device.
type State uint8

const (
	// Claimed: nobody has it; it is the asking request's now.
	Claimed State = iota
	// InFlight: another request has it.
	InFlight
	// Delivered: the push service has taken it, or nobody can deliver it.
	Delivered
	// Ended: the awaited request has ended without delivering it.
	Ended
)

// Finding is what a Ledger knows about one device.
type Finding struct {
	State State
	// Owner is the request that has the notification, if it is InFlight.
	Owner uint64
	// Counts are the Counts of the Result, if it is Delivered.
	Counts uint32
	// Outcome has kind, reason and RetryAfter of the Result, if it is Ended.
	Outcome   Outcome
	Rejection Rejection
	Guard     Guard
	// Pause is how long the push service is still to be left alone by all that
	// share the quota, 0 when it is not.
	Pause time.Duration

	own  bool // only the process's own memory knows of it
	kept bool // that memory holds a claim which the store did not grant
}

// Rejection is a pushkey that the push service gave up; the zero Rejection is
// one that it did not.
type Rejection struct {
	Known bool
	// PushKeyTS is the pushkey_ts that the pushkey had, in seconds.
	PushKeyTS int64
	// Trips is the Guard's at the time.
	Trips uint32
}

// Guard says how far an app's push service is believed when it calls pushkeys
// dead.
type Guard struct {
	// Proven: it has accepted a push with the current settings.
	Proven bool
	// Tripped: it calls more pushkeys dead than can be.
	Tripped bool
	// Trips counts how often it was tripped. Rejections of before are forgotten.
	Trips uint32
}

// Verdict is what a push service said about a pushkey.
type Verdict uint8

const (
	// NoVerdict: nothing, or it was not asked.
	NoVerdict Verdict = iota
	// Alive: it accepted a push.
	Alive
	// Dead: it said that the pushkey is no longer, or not, one of the app's.
	Dead
)

// Result is what became of one device of a request.
type Result struct {
	Query
	// Held says that the request has claimed the notification.
	Held bool
	// Done says that the notification must not be sent to the device again.
	Done bool
	// Counts stand for the counts that the device was last sent.
	Counts uint32
	// Outcome is for requests that wait for this one, where it is not Done.
	Outcome Outcome
	// Rejection is remembered if it is Known.
	Rejection Rejection
	Verdict   Verdict
	// Pause, unless 0, is how long all that share the quota are to leave the push
	// service alone from now on. Resume ends such a pause.
	Pause  time.Duration
	Resume bool

	own, kept bool // as in the Finding
}

// Terms are how long a Ledger remembers and when it stops believing.
type Terms struct {
	// Lifetime is how long a delivered notification is remembered after it was
	// last asked about. Synapse tries again at least once an hour.
	Lifetime time.Duration
	// RejectionLifetime is how long a dead pushkey is remembered.
	RejectionLifetime time.Duration
	// GuardWindow is the time of which an app's verdicts are counted.
	GuardWindow time.Duration
	// GuardPushes is how many verdicts it takes to trip the guard, and to let
	// it recover.
	GuardPushes int
	// GuardShare is the share of dead ones, in percent, above which the guard
	// trips; with 100 it never does.
	GuardShare int
}

// DefaultTerms returns the terms that suit the known homeservers.
func DefaultTerms() Terms {
	return Terms{
		Lifetime: 2 * time.Hour, RejectionLifetime: 24 * time.Hour,
		GuardWindow: 10 * time.Minute, GuardPushes: 100, GuardShare: 50,
	}
}

// Check returns an error if the terms cannot work. Times are kept in seconds.
func (t Terms) Check() error {
	switch {
	case t.Lifetime < time.Second, t.RejectionLifetime < time.Second, t.GuardWindow < time.Second:
		return errors.New("lifetimes and the guard's window: at least a second")
	case t.GuardPushes < 1, t.GuardShare < 1, t.GuardShare > 100:
		return errors.New("the guard's pushes: at least 1; its share: 1 to 100 percent")
	}
	return nil
}

// EndedLifetime is how long a Ledger keeps an end for the requests that wait
// for it: some of their PollInterval.
const EndedLifetime = 2 * time.Second

// PollInterval is how often a request looks whether the one it waits for has
// ended.
const PollInterval = 250 * time.Millisecond
