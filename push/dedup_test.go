package push_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/dedup"
)

// event is a notification with an id of a form that some room version makes.
func event(id string) *push.Notification {
	return &push.Notification{EventID: push.NewText(id + ":example.org")}
}

func withID(id any) *push.Notification { return &push.Notification{EventID: push.NewMember(id)} }

func withUnread(n *push.Notification, unread int64) *push.Notification {
	n.Counts.Unread = &unread
	return n
}

var (
	duplicate  = push.Outcome{Kind: push.Accepted, Reason: push.ReasonDuplicate}
	remembered = push.Outcome{Kind: push.Rejected, Reason: push.ReasonRemembered}
	tooLarge   = push.Outcome{Kind: push.Dropped, Reason: push.ReasonTooLarge, Status: 413}
	nothing    = push.Outcome{Kind: push.Accepted, Reason: push.ReasonNothingToSend}
	badToken   = push.Outcome{Kind: push.Rejected, Reason: push.ReasonBadToken, Status: 400, Detail: "BadDeviceToken"}
)

// request is a notification for one device.
type request struct {
	n     *push.Notification
	data  map[string]any
	sound string
}

// Conformance (answers): duplicate suppression (≠ Sygnal: none) by app_id, pushkey, `data` and the event without its counts; an event goes to a device once in two hours after it was last posted | 200 (also TestADeliveredEventIsRememberedWhileItIsAskedAbout, TestReplicasPushAnEventOnce)
// Conformance (answers): an event_id that no room version makes, such as the constant ones of apps that test their pushes; what was not sent; the same id with another event | is no duplicate, and is not remembered (also TestKeysExpireAndHoldNoPushkey)
// Conformance (answers): notifications without an event | never suppressed
// Conformance (attacks): each event before its homeserver posts it: as a type that leads to nothing, far too large, without its sound | only what was accepted is remembered, by all that was said of it
func TestADeviceGetsAnEventOnce(t *testing.T) {
	t.Parallel()
	account := func(name string) map[string]any {
		return map[string]any{"default_payload": map[string]any{"cs": name}, "n": 1}
	}
	tests := map[string]struct {
		script   []push.Outcome
		requests []request
		want     []push.Outcome
		attempts int
	}{
		"the same event twice":          {nil, []request{{n: event("$1")}, {n: event("$1")}}, []push.Outcome{sent, duplicate}, 1},
		"two events":                    {nil, []request{{n: event("$1")}, {n: event("$2")}}, []push.Outcome{sent, sent}, 2},
		"two accounts on one phone":     {nil, []request{{n: event("$1"), data: account("a")}, {n: event("$1"), data: account("b")}}, []push.Outcome{sent, sent}, 2},
		"one account twice":             {nil, []request{{n: event("$1"), data: account("a")}, {n: event("$1"), data: account("a")}}, []push.Outcome{sent, duplicate}, 1},
		"empty data is no data":         {nil, []request{{n: event("$1"), data: nil}, {n: event("$1"), data: map[string]any{}}}, []push.Outcome{sent, duplicate}, 1},
		"counts alone may be repeated":  {nil, []request{{n: withUnread(withID(""), 1)}, {n: withUnread(withID(""), 1)}}, []push.Outcome{sent, sent}, 2},
		"an event_id that is no string": {nil, []request{{n: withID(true)}, {n: withID(true)}}, []push.Outcome{sent, sent}, 2},
		// Element, Element X and SchildiChat test pushes with it.
		"an id that no room version makes": {nil, []request{{n: withID("$THIS_IS_A_FAKE_EVENT_ID")}, {n: withID("$THIS_IS_A_FAKE_EVENT_ID")}}, []push.Outcome{sent, sent}, 2},
		"an id that is a hash": {nil, []request{{n: withID("$acR1l0raoZnm60CBwAVgqbZqoO/mYU81xysh1u7XcJk")}, {n: withID("$acR1l0raoZnm60CBwAVgqbZqoO/mYU81xysh1u7XcJk")}},
			[]push.Outcome{sent, duplicate}, 1},
		"the same id with another event": {nil, []request{{n: &push.Notification{EventID: push.NewText("$1:example.org"), Type: push.NewText("m.room.member")}}, {n: event("$1")}},
			[]push.Outcome{sent, sent}, 2},
		"the same event without its sound": {nil, []request{{n: event("$1")}, {n: event("$1"), sound: "default"}, {n: event("$1"), sound: "default"}},
			[]push.Outcome{sent, sent, duplicate}, 2},
		"what was not sent is not remembered": {[]push.Outcome{nothing}, []request{{n: event("$1")}, {n: event("$1")}}, []push.Outcome{nothing, sent}, 2},
		"a failure is tried again":            {[]push.Outcome{unavailable}, []request{{n: event("$1")}, {n: event("$1")}, {n: event("$1")}}, []push.Outcome{unavailable, sent, duplicate}, 2},
		"an uncertain one is tried again":     {[]push.Outcome{cut, cut}, []request{{n: event("$1")}, {n: event("$1")}}, []push.Outcome{cut, sent}, 3},
		"a dropped message is not remembered": {[]push.Outcome{tooLarge}, []request{{n: event("$1")}, {n: event("$1")}}, []push.Outcome{tooLarge, sent}, 2},
		"the same counts":                     {nil, []request{{n: withUnread(event("$1"), 3)}, {n: withUnread(event("$1"), 3)}}, []push.Outcome{sent, duplicate}, 1},
		"counts that were left out":           {nil, []request{{n: withUnread(event("$1"), 3)}, {n: event("$1")}}, []push.Outcome{sent, duplicate}, 1},
		"other counts are sent once": {nil, []request{{n: withUnread(event("$1"), 3)}, {n: withUnread(event("$1"), 4)}, {n: withUnread(event("$1"), 4)}},
			[]push.Outcome{sent, sent, duplicate}, 2},
		"other counts that fail are sent again": {[]push.Outcome{sent, unavailable}, []request{{n: withUnread(event("$1"), 3)}, {n: withUnread(event("$1"), 4)}, {n: withUnread(event("$1"), 4)}},
			[]push.Outcome{sent, unavailable, sent}, 3},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &service{script: map[string][]push.Outcome{"k": tt.script}}
				g := newGateway(t, prometheus.NewRegistry(), s, nil)
				var got []push.Outcome
				for _, r := range tt.requests {
					ds := devices("k")
					ds[0].Data, ds[0].Tweaks.Sound = r.data, r.sound
					got = append(got, g.Deliver(t.Context(), r.n, ds)...)
				}
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("outcomes (-want +got):\n%s", diff)
				}
				if n := len(s.attempts("k")); n != tt.attempts {
					t.Errorf("%d attempts, want %d", n, tt.attempts)
				}
			})
		})
	}
}

// Dendrite posts an invite twice, with different counts.
//
// Conformance (answers): an event posted twice with different counts (Dendrite's invites) | the second goes out as counts alone
func TestADuplicateWithOtherCountsGoesOutAsCountsOnly(t *testing.T) {
	t.Parallel()
	s := &service{}
	reg := prometheus.NewRegistry()
	g := newGateway(t, reg, s, nil)
	invite := push.Notification{
		EventID: push.NewText("$1:example.org"), Type: push.NewMember("m.room.member"), RoomID: push.NewMember("!r"), Sender: push.NewMember("@a:b"),
		Content: map[string]any{"membership": "invite"}, UserIsTarget: true,
	}
	first, second := invite, invite
	g.Deliver(t.Context(), withUnread(&first, 1), devices("k"))
	g.Deliver(t.Context(), withUnread(&second, 2), devices("k"))
	if len(s.sent) != 2 {
		t.Fatalf("%d pushes", len(s.sent))
	}
	if diff := cmp.Diff(*withUnread(&push.Notification{}, 2), *s.sent[1].Notification, cmpopts.EquateComparable(push.Member{})); diff != "" {
		t.Errorf("the second push (-want +got):\n%s", diff)
	}
	if n := count(t, reg, "herald_push_duplicates_total", "result", "counts_update"); n != 1 {
		t.Errorf("%v counts-only updates counted", n)
	}
}

func TestADeliveredEventIsRememberedWhileItIsAskedAbout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &service{}
		g := newGateway(t, prometheus.NewRegistry(), s, nil)
		for i, want := range []struct {
			after time.Duration
			out   push.Outcome
		}{{0, sent}, {119 * time.Minute, duplicate}, {119 * time.Minute, duplicate}, {119 * time.Minute, duplicate}, {121 * time.Minute, sent}} {
			<-time.After(want.after) // on the bubble's clock
			if got := g.Deliver(t.Context(), event("$1"), devices("k")); got[0] != want.out {
				t.Errorf("request %d: %+v", i, got[0])
			}
		}
	})
}

// Conformance (answers): the same event again while it is being delivered | waits, and is sent where the first could not; 503 at its deadline (also TestADuplicateGivesUpWaitingAtItsDeadline, TestRequestsDoNotWaitForEachOther)
func TestAConcurrentDuplicateIsSentOnce(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		first     push.Outcome
		wantOther push.Outcome
		attempts  int
	}{
		"what the first delivered":      {sent, duplicate, 1},
		"what the first found dead":     {gone, remembered, 1},
		"what the first could not send": {unavailable, sent, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &service{delay: time.Second, script: map[string][]push.Outcome{"k": {tt.first}}}
				g := newGateway(t, prometheus.NewRegistry(), s, nil)
				var got [2]push.Outcome
				var wg sync.WaitGroup
				for i := range got {
					wg.Go(func() { got[i] = g.Deliver(t.Context(), event("$1"), devices("k"))[0] })
					synctest.Wait()
				}
				wg.Wait()
				if got[0] != tt.first || got[1] != tt.wantOther {
					t.Errorf("%+v", got)
				}
				if n := len(s.attempts("k")); n != tt.attempts {
					t.Errorf("%d attempts", n)
				}
			})
		})
	}
}

func TestADuplicateGivesUpWaitingAtItsDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &service{delay: 20 * time.Second}
		g := newGateway(t, prometheus.NewRegistry(), s, func(o *push.Options) { o.AttemptTimeout = time.Minute })
		var wg sync.WaitGroup
		wg.Go(func() { g.Deliver(t.Context(), event("$1"), devices("k")) })
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		start := time.Now()
		got := g.Deliver(ctx, event("$1"), devices("k"))[0]
		if got.Kind != push.Temporary || got.Reason != push.ReasonInFlight || got.RetryAfter <= 0 || got.Err == nil {
			t.Errorf("%+v", got)
		}
		if took := time.Since(start); took < 4*time.Second || took > 5*time.Second {
			t.Errorf("took %s", took)
		}
		wg.Wait()
		if n := len(s.attempts("k")); n != 1 {
			t.Errorf("%d attempts", n)
		}
	})
}

// Anybody can post one event for the same hundred devices as often as they like. While
// one request has it, the others cost one call a turn, and a goroutine or two.
//
// Conformance (answers): many posts of what is under way already, for many devices | each post costs as much as for one device
// Conformance (attacks): one event for the same hundred devices, 200 times a second, at 150 ms | a request that waits costs as much for a hundred devices as for one
func TestWaitingForManyDevicesCostsNoMoreThanForOne(t *testing.T) { // not parallel: it counts goroutines
	synctest.Test(t, func(t *testing.T) {
		const requests, turns = 10, 8
		s := &service{delay: turns*250*time.Millisecond + 10*time.Millisecond}
		counted := &counting{Dedup: newMemory(t, dedup.Options{})}
		g := newGateway(t, prometheus.NewRegistry(), s, func(o *push.Options) { o.Dedup = counted })
		var same [10]string
		for i := range same {
			same[i] = fmt.Sprint("device ", i)
		}
		var posting sync.WaitGroup
		post := func() {
			for i, out := range g.Deliver(t.Context(), event("$1"), devices(same[:]...)) {
				if out.Kind != push.Accepted {
					t.Errorf("device %d: %+v", i, out)
				}
			}
		}
		posting.Go(post)
		synctest.Wait()
		before := runtime.NumGoroutine()
		for range requests {
			posting.Go(post)
		}
		synctest.Wait()
		if more := runtime.NumGoroutine() - before; more > 3*requests {
			t.Errorf("%d goroutines wait for %d requests", more, requests)
		}
		posting.Wait()
		if n := counted.claims.Load(); n > 1+requests*(turns+2) {
			t.Errorf("%d calls of Claim", n)
		}
		if n := len(s.sent); n != len(same) {
			t.Errorf("%d pushes to %d devices", n, len(same))
		}
	})
}

// counting counts the calls of Claim.
type counting struct {
	push.Dedup
	claims atomic.Int64
}

func (c *counting) Claim(ctx context.Context, claims []push.Claim) []push.Claimed {
	c.claims.Add(1)
	return c.Dedup.Claim(ctx, claims)
}

// Each of two requests has what the other waits for.
func TestRequestsDoNotWaitForEachOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &service{delay: time.Second}
		memory := newMemory(t, dedup.Options{})
		crossed := &crossing{Dedup: memory, arrived: make(chan struct{}, 2), both: make(chan struct{})}
		g := newGateway(t, prometheus.NewRegistry(), s, func(o *push.Options) { o.Dedup = crossed })
		var wg sync.WaitGroup
		start := time.Now()
		for _, ds := range [][]push.Device{devices("a", "b"), devices("b", "a")} {
			wg.Go(func() {
				for i, out := range g.Deliver(t.Context(), event("$1"), ds) {
					if out.Kind != push.Accepted {
						t.Errorf("device %d: %+v", i, out)
					}
				}
			})
		}
		<-crossed.arrived
		<-crossed.arrived
		close(crossed.both)
		wg.Wait()
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("took %s", took)
		}
		if n := len(s.sent); n != 2 {
			t.Errorf("%d pushes to two devices", n)
		}
	})
}

// crossing lets two requests claim their first devices before either claims
// its second.
type crossing struct {
	push.Dedup
	arrived, both chan struct{}
}

func (c *crossing) Claim(ctx context.Context, claims []push.Claim) []push.Claimed {
	if len(claims) != 2 {
		return c.Dedup.Claim(ctx, claims)
	}
	first := c.Dedup.Claim(ctx, claims[:1])
	c.arrived <- struct{}{}
	<-c.both
	return append(first, c.Dedup.Claim(ctx, claims[1:])...)
}

// Conformance (answers): a retry after a mixed result | goes to the devices that still need it
func TestARetryGoesOnlyToTheDevicesThatNeedIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &service{script: map[string][]push.Outcome{"down": {unavailable}, "dead": {gone}}}
		g := newGateway(t, prometheus.NewRegistry(), s, nil)
		got := g.Deliver(t.Context(), event("$1"), devices("up", "down", "dead"))
		if diff := cmp.Diff([]push.Outcome{sent, unavailable, gone}, got); diff != "" {
			t.Fatalf("outcomes (-want +got):\n%s", diff)
		}
		got = g.Deliver(t.Context(), event("$1"), devices("up", "down", "dead"))
		if diff := cmp.Diff([]push.Outcome{duplicate, sent, remembered}, got); diff != "" {
			t.Errorf("outcomes of the retry (-want +got):\n%s", diff)
		}
		for key, want := range map[string]int{"up": 1, "down": 2, "dead": 1} {
			if n := len(s.attempts(key)); n != want {
				t.Errorf("%d attempts at %s, want %d", n, key, want)
			}
		}
	})
}

// startOfBubble is when a synctest bubble begins, in seconds since the epoch.
const startOfBubble = 946_684_800

// Conformance (answers): a dead pushkey (≠ Sygnal: asked about each time; lost beside a 502) | remembered for a day, until `pushkey_ts` is newer or the app's settings change (also TestAPushkeyOfFormerSettingsIsAskedAboutAgain)
func TestADeadPushkeyIsRemembered(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		firstTS, secondTS int64
		after             time.Duration
		fingerprint       string
		want              push.Outcome
	}{
		"at once":                       {100, 100, 0, "", remembered},
		"for a day":                     {100, 100, 24*time.Hour - time.Second, "", remembered},
		"no longer than a day":          {100, 100, 24*time.Hour + 2*time.Second, "", sent},
		"but not one registered since":  {100, 101, 0, "", sent},
		"an older one":                  {100, 99, 0, "", remembered},
		"without a time":                {0, 0, 0, "", remembered},
		"but not with new settings":     {100, 100, 0, "other", sent},
		"one that has a time only then": {0, 1, 0, "", sent},
		"a time that is still to come":  {1 << 50, startOfBubble + 3601, time.Hour, "", sent},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &service{script: map[string][]push.Outcome{"k": {gone}}}
				g := newGateway(t, prometheus.NewRegistry(), s, nil)
				ds := devices("k")
				ds[0].PushKeyTS = tt.firstTS
				if got := g.Deliver(t.Context(), event("$1"), ds)[0]; got != gone {
					t.Fatalf("%+v", got)
				}
				apps, err := push.NewApps([]push.App{{Name: "app", ProviderName: "apns", Provider: s, MaxInFlight: 1, Fingerprint: tt.fingerprint}})
				if err != nil {
					t.Fatal(err)
				}
				g.SetApps(apps)
				<-time.After(tt.after) // on the bubble's clock
				ds[0].PushKeyTS = tt.secondTS
				if got := g.Deliver(t.Context(), event("$2"), ds)[0]; got != tt.want {
					t.Errorf("%+v, want %+v", got, tt.want)
				}
			})
		})
	}
}

// A request whose end is never recorded, because the process was killed, holds
// its notification for the time of its lease only.
func TestAClaimIsALease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &service{}
		memory := newMemory(t, dedup.Options{})
		g := newGateway(t, prometheus.NewRegistry(), s, func(o *push.Options) { o.Dedup = &forgetful{Dedup: memory, ends: 1} })
		ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second)
		defer cancel()
		g.Deliver(ctx, event("$1"), devices("k"))
		start := time.Now()
		if got := g.Deliver(t.Context(), event("$1"), devices("k"))[0]; got != sent {
			t.Errorf("%+v", got)
		}
		if took := time.Since(start); took < 30*time.Second || took > 31*time.Second {
			t.Errorf("took over after %s, want the first one's 25 s and 5 more", took)
		}
	})
}

// forgetful loses the first ends.
type forgetful struct {
	push.Dedup
	ends int
}

func (f *forgetful) Complete(ctx context.Context, results []push.Result) []push.Guard {
	if f.ends > 0 {
		f.ends--
		return make([]push.Guard, len(results))
	}
	return f.Dedup.Complete(ctx, results)
}

func newMemory(t testing.TB, opts dedup.Options) *dedup.Memory {
	t.Helper()
	if opts.Events == 0 {
		opts.Events = dedup.DefaultEvents
	}
	m, err := dedup.NewMemory(opts)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// count returns the sum of the series of a metric that have this label.
func count(t *testing.T, reg *prometheus.Registry, name, label, value string) (sum float64) {
	t.Helper()
	if _, err := testutil.GatherAndCount(reg, name); err != nil {
		t.Fatal(err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			fits := label == ""
			for _, l := range m.GetLabel() {
				fits = fits || l.GetName() == label && l.GetValue() == value
			}
			if fits {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}
