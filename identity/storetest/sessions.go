package storetest

import (
	"bytes"
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/threepid"
	"github.com/matrix-herald/herald/threepid/validation"
)

// Sessions is the contract of a validation.Store: the state machine of
// validation sessions, its races included, as validation.Sessions drive it.
// open returns an empty store that other tests do not see.
func Sessions(t *testing.T, open func(t *testing.T) validation.Store) {
	t.Helper()
	for _, group := range []map[string]func(*testing.T, *Validation){
		requestCases(), submitCases(), lifeCases(), sendingCases(), raceCases(),
	} {
		for _, name := range slices.Sorted(maps.Keys(group)) {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				group[name](t, NewValidation(t, open(t)))
			})
		}
	}
}

// Validation is what a test of validation sessions works with: Sessions over a
// Store, a clock that stands still until it is told to go on, and an outbox.
type Validation struct {
	*validation.Sessions
	Store    validation.Store
	Clock    *Clock
	Outbox   *Outbox
	Registry *prometheus.Registry
}

// NewValidation returns Sessions over store whose messages of both media end in
// one outbox.
func NewValidation(t *testing.T, store validation.Store) *Validation {
	t.Helper()
	return (&Validation{Clock: NewClock(), Outbox: &Outbox{}}).Replica(t, store)
}

// Replica returns another process with v's clock, outbox and code key over
// store.
func (v *Validation) Replica(t *testing.T, store validation.Store) *Validation {
	t.Helper()
	r := &Validation{Store: store, Clock: v.Clock, Outbox: v.Outbox, Registry: prometheus.NewRegistry()}
	var err error
	r.Sessions, err = validation.New(validation.Options{
		Store: store,
		Messengers: map[threepid.Medium]validation.Messenger{
			threepid.MediumEmail: v.Outbox, threepid.MediumMSISDN: v.Outbox,
		},
		CodeKey: bytes.Repeat([]byte{7}, validation.MinCodeKey),
		Now:     v.Clock.Now, Log: slog.New(slog.DiscardHandler), Registerer: r.Registry,
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Count returns the value of the counter named
// herald_identity_validation_<name>_total with the given label values, in the
// order of the labels' names.
func (v *Validation) Count(t *testing.T, name string, labels ...string) int {
	t.Helper()
	families, err := v.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "herald_identity_validation_"+name+"_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			values := make([]string, 0, len(labels))
			for _, l := range m.GetLabel() {
				values = append(values, l.GetValue())
			}
			if slices.Equal(values, labels) {
				return int(m.GetCounter().GetValue())
			}
		}
	}
	t.Fatalf("there is no counter %s%v", name, labels)
	return 0
}

// Owner is who begins all sessions but those that tests are about.
const Owner = "@alice:example.org"

// Email returns a request for a mail to alice@example.org.
func Email(secret string, attempt int64) validation.Request {
	return validation.Request{
		ID: threepid.ID{Medium: threepid.MediumEmail, Address: "alice@example.org"}, To: "alice@example.org",
		Owner: Owner, ClientSecret: secret, SendAttempt: attempt,
	}
}

// SMS returns a request for an SMS to a British number.
func SMS(secret string, attempt int64) validation.Request {
	return validation.Request{
		ID: threepid.ID{Medium: threepid.MediumMSISDN, Address: "447700900001"}, To: "447700900001", Region: "GB",
		Owner: Owner, ClientSecret: secret, SendAttempt: attempt,
	}
}

// Requested makes a request that must succeed and returns its sid.
func (v *Validation) Requested(t *testing.T, r validation.Request) (sid string) {
	t.Helper()
	sid, err := v.Request(t.Context(), r)
	if err != nil {
		t.Errorf("request: %v", err)
	}
	return sid
}

// Sent makes a request that must succeed and send exactly one message, and
// returns that.
func (v *Validation) Sent(t *testing.T, r validation.Request) threepid.Challenge {
	t.Helper()
	before := v.Outbox.Len()
	sid := v.Requested(t, r)
	all := v.Outbox.All()
	if len(all) != before+1 {
		t.Fatalf("%d messages were sent, not one", len(all)-before)
	}
	c := all[before]
	if c.SID != sid {
		t.Fatalf("the message is for session %s, the answer for %s", c.SID, sid)
	}
	return c
}

// Clock is a clock that a test moves.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// NewClock returns a clock that shows a moment in 2026.
func NewClock() *Clock { return &Clock{now: time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)} }

// Now returns the time the clock shows.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance moves the clock on.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// Outbox is a Messenger that keeps what it is given.
type Outbox struct {
	mu   sync.Mutex
	all  []threepid.Challenge
	send func(context.Context, threepid.Challenge) error
}

// Send does what On says and keeps c, whatever became of it.
func (o *Outbox) Send(ctx context.Context, c threepid.Challenge) error {
	o.mu.Lock()
	o.all = append(o.all, c)
	send := o.send
	o.mu.Unlock()
	if send == nil {
		return nil
	}
	return send(ctx, c)
}

// On sets what sending does from now on; nil lets it succeed.
func (o *Outbox) On(send func(context.Context, threepid.Challenge) error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.send = send
}

// All returns the messages there were, those that failed included.
func (o *Outbox) All() []threepid.Challenge {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.all)
}

// Len returns the number of messages.
func (o *Outbox) Len() int { return len(o.All()) }
