package pushtest

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/matrix-herald/herald/push"
)

// Behaviour is how the push service behind a provider under test treats every
// push.
type Behaviour int

// The behaviours of a push service.
const (
	Accept  Behaviour = iota // it takes the push
	Refuse                   // nothing listens at its address
	Hang                     // it reads the push and never answers
	Cut                      // it reads the push and closes the connection
	Garbage                  // it answers 502 with a page of HTML
)

// Peer is the push service behind a provider under test, as APNs and the other
// fakes of this package are.
type Peer interface {
	// Count is how many pushes have arrived.
	Count() int
	// Wait returns when at least n pushes have arrived, or with ctx's error.
	Wait(ctx context.Context, n int) error
}

// patience is how long the contract waits for what must happen: only a broken
// provider reaches it.
const patience = 20 * time.Second

// TestProvider runs the contract of push.Provider. open starts a push service
// that behaves as told and returns it with a provider that talks to it, both
// closed by t.Cleanup; the peer of a Behaviour of Refuse may be nil. device is
// one whose pushkey the push service takes.
func TestProvider(t *testing.T, device push.Device, open func(*testing.T, Behaviour) (push.Provider, Peer)) {
	c := contract{device: device, open: open}
	t.Run("an accepted push is sent once", c.accepted)
	t.Run("a refused connection is temporary and repeats nothing", c.refused)
	t.Run("a hung push that is given up is uncertain", c.hung)
	t.Run("the deadline of the context ends a hung push", c.deadline)
	t.Run("an ended context sends nothing", c.ended)
	t.Run("a connection cut after the push was written is uncertain", c.cut)
	t.Run("an answer that makes no sense is temporary", c.garbage)
	t.Run("pushes at the same time do not disturb each other", c.concurrent)
	t.Run("odd notifications get an outcome", c.odd)
	t.Run("a pushkey has one address, however it is written", c.address)
}

type contract struct {
	device push.Device
	open   func(*testing.T, Behaviour) (push.Provider, Peer)
}

// delivery is a message to the contract's device; n makes it unlike others.
func (c contract) delivery(n int) push.Delivery {
	device, unread := c.device, int64(n)
	return push.Delivery{
		ID:     fmt.Sprintf("3f2a6c1e-0000-4000-8000-%012x", n),
		Device: &device,
		Notification: &push.Notification{
			EventID: push.NewMember(fmt.Sprintf("$event%d:example.org", n)),
			RoomID:  push.NewMember("!room:example.org"),
			Type:    push.NewMember("m.room.message"),
			Sender:  push.NewMember("@alice:example.org"),
			Content: map[string]any{"msgtype": "m.text", "body": "hello"},
			Counts:  push.Counts{Unread: &unread},
		},
	}
}

func (c contract) accepted(t *testing.T) {
	t.Parallel()
	provider, peer := c.open(t, Accept)
	expect(t, provider.Send(t.Context(), c.delivery(1)), push.Accepted, push.ReasonSent, push.EvidenceWorks)
	if got := peer.Count(); got != 1 {
		t.Errorf("the push service got %d pushes, want 1", got)
	}
}

func (c contract) refused(t *testing.T) {
	t.Parallel()
	provider, _ := c.open(t, Refuse)
	outcome := provider.Send(t.Context(), c.delivery(1))
	expect(t, outcome, push.Temporary, push.ReasonConnection, push.EvidenceUnreachable)
	if !outcome.Unprocessed {
		t.Error("the outcome does not say that nothing was processed")
	}
	c.discreet(t, outcome)
}

func (c contract) hung(t *testing.T) {
	t.Parallel()
	provider, peer := c.open(t, Hang)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got := make(chan push.Outcome, 1)
	go func() { got <- provider.Send(ctx, c.delivery(1)) }()
	wait(t, peer, 1)
	cancel()
	select {
	case outcome := <-got:
		expect(t, outcome, push.Temporary, push.ReasonUncertain, push.EvidenceNone)
		if outcome.Unprocessed {
			t.Error("the outcome says that nothing was processed; the push service had read the push")
		}
		c.discreet(t, outcome)
	case <-time.After(patience):
		t.Fatal("Send outlives its context")
	}
}

func (c contract) deadline(t *testing.T) {
	t.Parallel()
	provider, _ := c.open(t, Hang)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	got := make(chan push.Outcome, 1)
	go func() { got <- provider.Send(ctx, c.delivery(1)) }()
	select {
	case outcome := <-got:
		// On a slow machine the deadline may pass before the push is written.
		if outcome.Kind != push.Temporary || outcome.Unprocessed != (outcome.Reason == push.ReasonTimeout) {
			t.Errorf("got %s (%s), unprocessed %t", outcome.Kind, outcome.Reason, outcome.Unprocessed)
		}
		if outcome.Evidence != push.EvidenceUnreachable {
			t.Errorf("the evidence is %d, want that the push service is unreachable", outcome.Evidence)
		}
		if outcome.Reason != push.ReasonUncertain && outcome.Reason != push.ReasonTimeout {
			t.Errorf("the reason is %s, want uncertain or timeout", outcome.Reason)
		}
	case <-time.After(patience):
		t.Fatal("Send outlives its deadline")
	}
}

func (c contract) ended(t *testing.T) {
	t.Parallel()
	provider, peer := c.open(t, Accept)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	outcome := provider.Send(ctx, c.delivery(1))
	expect(t, outcome, push.Temporary, push.ReasonTimeout, push.EvidenceNone)
	if !outcome.Unprocessed {
		t.Error("the outcome does not say that nothing was processed")
	}
	if got := peer.Count(); got != 0 {
		t.Errorf("the push service got %d pushes, want none", got)
	}
}

func (c contract) cut(t *testing.T) {
	t.Parallel()
	provider, peer := c.open(t, Cut)
	outcome := provider.Send(t.Context(), c.delivery(1))
	expect(t, outcome, push.Temporary, push.ReasonUncertain, push.EvidenceUnreachable)
	if outcome.Unprocessed {
		t.Error("the outcome says that nothing was processed; the push service had read the push")
	}
	if got := peer.Count(); got != 1 {
		t.Errorf("the push service got %d pushes, want 1: a provider never repeats by itself", got)
	}
	c.discreet(t, outcome)
}

func (c contract) garbage(t *testing.T) {
	t.Parallel()
	provider, peer := c.open(t, Garbage)
	outcome := provider.Send(t.Context(), c.delivery(1))
	expect(t, outcome, push.Temporary, push.ReasonUnavailable, push.EvidenceUnreachable)
	if outcome.Status != 502 {
		t.Errorf("the status is %d, want 502", outcome.Status)
	}
	if got := peer.Count(); got != 1 {
		t.Errorf("the push service got %d pushes, want 1: a provider never repeats by itself", got)
	}
	c.discreet(t, outcome)
}

func (c contract) concurrent(t *testing.T) {
	t.Parallel()
	const senders, each = 8, 10
	provider, peer := c.open(t, Accept)
	var wg sync.WaitGroup
	for s := range senders {
		wg.Go(func() {
			for n := range each {
				expect(t, provider.Send(t.Context(), c.delivery(s*each+n+1)), push.Accepted, push.ReasonSent, push.EvidenceWorks)
			}
		})
	}
	wg.Wait()
	if got := peer.Count(); got != senders*each {
		t.Errorf("the push service got %d pushes, want %d", got, senders*each)
	}
}

// odd sends what no sane homeserver or app sends. What comes of it is the
// provider's own affair, but something must, and it is never an internal
// fault; and an event, which strangers write, is always accepted.
func (c contract) odd(t *testing.T) {
	t.Parallel()
	provider, _ := c.open(t, Accept)
	for name, change := range oddities() {
		d := c.delivery(1)
		change(d.Notification, d.Device)
		outcome := provider.Send(t.Context(), d)
		switch {
		case outcome.Kind > push.Dropped || outcome.Reason == "" || outcome.Reason == push.ReasonInternal:
			t.Errorf("%s: got %s (%s) %v", name, outcome.Kind, outcome.Reason, outcome.Err)
		case outcome.Kind != push.Accepted && !strings.HasPrefix(name, "device: "):
			t.Errorf("%s: %s (%s) because of an event", name, outcome.Kind, outcome.Reason)
		}
	}
}

func (c contract) address(t *testing.T) {
	t.Parallel()
	provider, _ := c.open(t, Accept)
	written := push.Device{PushKey: " " + c.device.PushKey[:5] + "\r\n" + c.device.PushKey[5:], Data: c.device.Data}
	if got, want := provider.Address(&written), provider.Address(&c.device); got != want || want == "" {
		t.Errorf("the address is %q and with white space %q", want, got)
	}
	if got := provider.Address(&push.Device{PushKey: "é"}); got != "" {
		t.Errorf("what cannot be a pushkey has the address %q", got)
	}
}

func oddities() map[string]func(*push.Notification, *push.Device) {
	nested := any("core")
	for range 60 {
		nested = map[string]any{"x": []any{nested}}
	}
	number := json.Number(strings.Repeat("9", 5000))
	long := strings.Repeat("<\u2028\U0001F468\u200D\U0001F469", 4000)
	return map[string]func(*push.Notification, *push.Device){
		"nothing at all":       func(n *push.Notification, _ *push.Device) { *n = push.Notification{} },
		"no type":              func(n *push.Notification, _ *push.Device) { n.Type = push.Member{} },
		"content is a string":  func(n *push.Notification, _ *push.Device) { n.Content = "hello" },
		"content is a list":    func(n *push.Notification, _ *push.Device) { n.Content = []any{nil, true} },
		"content is nested":    func(n *push.Notification, _ *push.Device) { n.Content = nested },
		"body is nested":       func(n *push.Notification, _ *push.Device) { n.Content.(map[string]any)["body"] = nested },
		"body is a number":     func(n *push.Notification, _ *push.Device) { n.Content.(map[string]any)["body"] = number },
		"body is endless":      func(n *push.Notification, _ *push.Device) { n.Content.(map[string]any)["body"] = long },
		"body is not UTF-8":    func(n *push.Notification, _ *push.Device) { n.Content.(map[string]any)["body"] = "\xff\xfe" },
		"msgtype is a list":    func(n *push.Notification, _ *push.Device) { n.Content.(map[string]any)["msgtype"] = []any{} },
		"sender is endless":    func(n *push.Notification, _ *push.Device) { n.Sender = push.NewMember(long) },
		"room name is endless": func(n *push.Notification, _ *push.Device) { n.RoomName = push.NewMember(long) },
		"room id is endless":   func(n *push.Notification, _ *push.Device) { n.RoomID = push.NewMember(long) },
		"event id is endless":  func(n *push.Notification, _ *push.Device) { n.EventID = push.NewMember(long) },
		"members are objects": func(n *push.Notification, _ *push.Device) {
			odd := push.NewMember(map[string]any{"a": json.Number("1")})
			*n = push.Notification{EventID: odd, Type: odd, RoomID: odd, RoomName: odd, RoomAlias: odd,
				Sender: odd, SenderDisplayName: odd, Membership: odd, UserIsTarget: true}
		},
		"a call without an offer": func(n *push.Notification, _ *push.Device) {
			n.Type, n.Content = push.NewMember("m.call.invite"), map[string]any{"offer": "none"}
		},
		"device: default_payload is null": func(_ *push.Notification, d *push.Device) {
			d.Data = map[string]any{"default_payload": nil}
		},
		"device: default_payload is nested": func(_ *push.Notification, d *push.Device) {
			d.Data = map[string]any{"default_payload": map[string]any{"aps": nested, "data": nested}}
		},
		"device: default_payload is endless": func(_ *push.Notification, d *push.Device) {
			d.Data = map[string]any{"default_payload": map[string]any{"x": long, long: "x"}}
		},
		"device: no pushkey":          func(_ *push.Notification, d *push.Device) { d.PushKey = "" },
		"device: pushkey is a path":   func(_ *push.Notification, d *push.Device) { d.PushKey = "../../x?y#z" },
		"device: pushkey is no UTF-8": func(_ *push.Notification, d *push.Device) { d.PushKey = "\x00\xff\r\n" },
	}
}

func expect(t *testing.T, got push.Outcome, kind push.Kind, reason push.Reason, evidence push.Evidence) {
	t.Helper()
	if got.Kind != kind || got.Reason != reason || got.Evidence != evidence {
		t.Errorf("got %s (%s), evidence %d, status %d, error %v; want %s (%s), evidence %d",
			got.Kind, got.Reason, got.Evidence, got.Status, got.Err, kind, reason, evidence)
	}
}

// discreet checks that an outcome that will be logged does not hold the
// pushkey.
func (c contract) discreet(t *testing.T, outcome push.Outcome) {
	t.Helper()
	if text := fmt.Sprint(outcome.Detail, " ", outcome.Err); strings.Contains(text, c.device.PushKey) {
		t.Error("the outcome shows the pushkey")
	}
}

func wait(t *testing.T, peer Peer, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := peer.Wait(ctx, n); err != nil {
		t.Fatalf("waiting for %d pushes: %v", n, err)
	}
}
