package pushtest

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/dedup"
	"github.com/matrix-herald/herald/push/health"
)

// Trouble is what can happen to connections to a push service.
type Trouble int

// The troubles that TestTrouble goes through.
const (
	GoAway  Trouble = iota // the push service answers and leaves the connection
	Slow                   // connections take their time to be made
	Drops                  // pushes are read and their connections closed
	Hanging                // pushes are read and not answered
)

// doubtful reports whether a push that meets the trouble may or may not have been
// accepted.
func (t Trouble) doubtful() bool { return t == Drops || t == Hanging }

// TroubledPeer is a push service whose connections can be held up.
type TroubledPeer interface {
	// HoldHandshakes leaves new connections without an answer until release.
	HoldHandshakes() (release func())
	// Connections is how many connections have been made.
	Connections() int
}

// Troubled says which pushes meet the trouble, and counts those that do not.
type Troubled struct {
	trouble Trouble

	mu                sync.Mutex
	arrived, accepted map[string]int // by pushkey
}

// Meets is told of each push for pushKey that arrives, and reports whether it
// meets the trouble: every third device's first push does.
func (d *Troubled) Meets(pushKey string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.arrived[pushKey]++
	met := d.trouble != Slow && d.arrived[pushKey] == 1 && len(d.arrived)%3 == 0
	if !met || !d.trouble.doubtful() {
		d.accepted[pushKey]++
	}
	return met
}

// troubledDevices is for how many devices TestTrouble delivers at once.
const troubledDevices = 30

// TestTrouble has a gateway deliver to many devices at once through each trouble
// that connections have, and posts again what failed, as a homeserver does.
// Nothing is lost, and nothing doubled but where an attempt was uncertain. open
// starts a push service that asks a Troubled about each push, and returns it with
// a provider that talks to it. check is called at the end, with how often the
// notification for each pushkey was posted; it may be nil.
func TestTrouble(t *testing.T, open func(*testing.T, Trouble, *Troubled) (push.Provider, TroubledPeer), check func(*testing.T, TroubledPeer, map[string]int)) {
	for name, trouble := range map[string]Trouble{
		"GOAWAY": GoAway, "a handshake that is slow": Slow, "dropped connections": Drops, "hung streams": Hanging,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := &Troubled{trouble: trouble, arrived: make(map[string]int), accepted: make(map[string]int)}
			provider, peer := open(t, trouble, d)
			reg := prometheus.NewRegistry()
			posts := deliverAll(t, gatewayFor(t, provider, trouble, reg), trouble, peer)
			d.judge(t, posts, counter(t, reg, "herald_push_uncertain_total"))
			if check != nil {
				check(t, peer, posts)
			}
		})
	}
}

func gatewayFor(t *testing.T, provider push.Provider, trouble Trouble, reg *prometheus.Registry) *push.Gateway {
	t.Helper()
	apps, err := push.NewApps([]push.App{{Name: "app", ProviderName: "fake", Provider: provider, MaxInFlight: 2 * troubledDevices}})
	if err != nil {
		t.Fatal(err)
	}
	timeout := patience
	if trouble == Hanging {
		timeout = 2 * time.Second
	}
	memory, err := dedup.NewMemory(dedup.Options{Events: dedup.MinEvents})
	if err != nil {
		t.Fatal(err)
	}
	gateway, err := push.NewGateway(apps, push.Options{
		Dedup: memory, Health: health.New(health.Options{}),
		Log: slog.New(slog.DiscardHandler), Metrics: push.NewMetrics(reg), UnknownApp: push.UnknownAppKeep,
		AttemptTimeout: timeout, RetryWait: 10 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	return gateway
}

// deliverAll posts a notification for each device until it is delivered, and
// returns how often that was, by pushkey.
func deliverAll(t *testing.T, gateway *push.Gateway, trouble Trouble, peer TroubledPeer) map[string]int {
	t.Helper()
	release, before := func() {}, peer.Connections()
	if trouble == Slow {
		release = peer.HoldHandshakes()
	}
	var posts [troubledDevices]int
	var wg sync.WaitGroup
	for i := range posts {
		wg.Go(func() { posts[i] = deliverTo(t, gateway, pushKey(i)) })
	}
	for trouble == Slow && peer.Connections() == before && t.Context().Err() == nil {
		<-time.After(time.Millisecond)
	}
	release()
	wg.Wait()
	byPushKey := make(map[string]int)
	for i, n := range posts {
		byPushKey[pushKey(i)] = n
	}
	return byPushKey
}

func pushKey(i int) string { return fmt.Sprintf("%064x", i) }

// deliverTo returns how often it had to post.
func deliverTo(t *testing.T, gateway *push.Gateway, pushKey string) (posts int) {
	n := &push.Notification{EventID: push.NewText("$e:x"), RoomID: push.NewText("!r:x"), Type: push.NewText("m.room.message")}
	for t.Context().Err() == nil {
		posts++
		ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
		out := gateway.Deliver(ctx, n, []push.Device{{AppID: "app", PushKey: pushKey}})[0]
		cancel()
		if out.Kind == push.Temporary {
			continue
		}
		if out.Reason != push.ReasonSent && out.Reason != push.ReasonDuplicate {
			t.Errorf("%s: %+v", pushKey, out)
		}
		break
	}
	return posts
}

func (d *Troubled) judge(t *testing.T, posts map[string]int, uncertain int) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	total := 0
	for pushKey := range posts {
		if d.accepted[pushKey] == 0 {
			t.Errorf("%s got nothing", pushKey)
		}
		total += d.accepted[pushKey]
	}
	if total > len(posts)+uncertain {
		t.Errorf("%d pushes for %d devices, %d uncertain", total, len(posts), uncertain)
	}
	if d.trouble.doubtful() != (uncertain > 0) {
		t.Errorf("%d attempts were uncertain", uncertain)
	}
}

func counter(t *testing.T, reg *prometheus.Registry, name string) int {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return int(f.GetMetric()[0].GetCounter().GetValue())
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}
