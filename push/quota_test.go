package push_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/push"
)

var (
	overloaded = push.Outcome{Kind: push.Temporary, Reason: push.ReasonUnavailable, Status: 503, RetryAfter: time.Minute, Reach: push.ReachQuota}
	overQuota  = push.Outcome{Kind: push.Temporary, Reason: push.ReasonRateLimited, Status: 429, RetryAfter: time.Minute, Reach: push.ReachUnclear}
)

func always(out push.Outcome) []push.Outcome {
	script := make([]push.Outcome, 1000)
	for i := range script {
		script[i] = out
	}
	return script
}

func (s *service) asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sent)
}

// expectPaused checks that a device was answered for without its push service.
func expectPaused(t *testing.T, what string, out push.Outcome, longest time.Duration) {
	t.Helper()
	if out.Kind != push.Temporary || out.Reason != push.ReasonPaused || out.RetryAfter <= 0 || out.RetryAfter > longest+longest/5+time.Second {
		t.Errorf("%s: %+v, want a pause", what, out)
	}
}

func TestAPauseIsForAllThatShareAQuota(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &service{script: map[string][]push.Outcome{"first": {overloaded}, "later": {sent}}}
		reg := prometheus.NewRegistry()
		var logged bytes.Buffer
		g := newGateway(t, reg, s, func(o *push.Options) { o.Log = slog.New(slog.NewTextHandler(&logged, nil)) })
		set := func() {
			apps, err := push.NewApps([]push.App{
				{Name: "app", ProviderName: "fcm", Provider: s, MaxInFlight: 10, Quota: "project"},
				{Name: "sister", ProviderName: "fcm", Provider: s, MaxInFlight: 10, Quota: "project"},
				{Name: "stranger", ProviderName: "fcm", Provider: s, MaxInFlight: 10, Quota: "another"},
			})
			if err != nil {
				t.Fatal(err)
			}
			g.SetApps(apps)
		}
		set()
		deliver := func(app, pushKey string) push.Outcome {
			return g.Deliver(t.Context(), event("$1"), []push.Device{{AppID: app, PushKey: pushKey}})[0]
		}
		paused := func(app string) bool {
			return count(t, reg, "herald_push_paused_until_timestamp_seconds", "app", app) > float64(time.Now().Unix())
		}
		expect(t, "the device that was refused", deliver("app", "first"), overloaded)
		expectPaused(t, "another device", deliver("app", "second"), time.Minute)
		expectPaused(t, "the sister's device", deliver("sister", "third"), time.Minute)
		expect(t, "a stranger's device", deliver("stranger", "fourth"), sent)
		if n := s.asked(); n != 2 {
			t.Errorf("%d pushes, want 2", n)
		}
		if !paused("app") || !paused("sister") || paused("stranger") {
			t.Error("the gauge does not show who is paused")
		}
		set() // a reload forgets nothing
		expectPaused(t, "after a reload", deliver("app", "fifth"), time.Minute)

		// The first push after a while finds out that it is over.
		<-time.After(2 * time.Second)
		expect(t, "the probe", deliver("sister", "later"), sent)
		expect(t, "after the probe", deliver("app", "second"), sent)
		if paused("sister") {
			t.Error("the gauge shows a pause that is over")
		}
		if log := logged.String(); strings.Count(log, "asks for patience") != 1 || strings.Count(log, "asked again") != 1 {
			t.Errorf("the log says\n%s", log)
		}
	})
}

func TestTheFleetKeepsAPauseTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := &store{Memory: newMemory(t, push.DefaultTerms())}
		a, b := newReplica(t, st), newReplica(t, st)
		a.script["first"] = []push.Outcome{overloaded}
		expect(t, "the device that was refused", a.deliver(t, "$1", "first"), overloaded)
		expectPaused(t, "at the other process", b.deliver(t, "$1", "second"), time.Minute)
		if n := st.called(); n != 4 {
			t.Errorf("two requests took %d calls of the store, want 4", n)
		}
		<-time.After(2 * time.Second)
		expect(t, "the other process's probe", b.deliver(t, "$1", "third"), sent)
		expect(t, "here afterwards", a.deliver(t, "$1", "second"), sent)

		// Without the store each keeps its own.
		st.set(refuse)
		a.script["first"] = []push.Outcome{overloaded}
		expect(t, "refused again", a.deliver(t, "$2", "first"), overloaded)
		<-time.After(1100 * time.Millisecond)
		expectPaused(t, "with the store away", a.deliver(t, "$2", "first"), time.Minute)
		expect(t, "at the other process", b.deliver(t, "$2", "second"), sent)
	})
}

func TestOneDevicesQuotaPausesNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &service{script: map[string][]push.Outcome{"loud": always(overQuota), "shrill": always(overQuota)}}
		g := newGateway(t, prometheus.NewRegistry(), s, nil)
		deliver := func(pushKey string) push.Outcome {
			return g.Deliver(t.Context(), &push.Notification{}, devices(pushKey))[0]
		}
		for i := range 50 {
			expect(t, "the device over its quota", deliver("loud"), overQuota)
			if i%5 == 4 {
				expect(t, "another", deliver(fmt.Sprint("device ", i)), sent)
			}
		}

		// Nor are two when the time is over that the first was to wait.
		expect(t, "the device over its quota", deliver("loud"), overQuota)
		<-time.After(61 * time.Second)
		expect(t, "another over its quota", deliver("shrill"), overQuota)
		expect(t, "a third", deliver("calm"), sent)

		// It is one device for each app of the project.
		two, err := push.NewApps([]push.App{
			{Name: "app", ProviderName: "fcm", Provider: s, MaxInFlight: 10, Quota: "project"},
			{Name: "sister", ProviderName: "fcm", Provider: s, MaxInFlight: 10, Quota: "project"},
		})
		if err != nil {
			t.Fatal(err)
		}
		g.SetApps(two)
		for _, app := range []string{"app", "sister", "app"} {
			expect(t, "the device at "+app, g.Deliver(t.Context(), &push.Notification{}, []push.Device{{AppID: app, PushKey: "loud"}})[0], overQuota)
		}
		expect(t, "another", deliver("calm"), sent)

		// Two devices in a row look like the whole project. The next other one
		// finds out, and they cannot keep it from that.
		for i := range 50 {
			expect(t, "one", deliver("loud"), overQuota)
			expect(t, "two", deliver("shrill"), overQuota)
			for range 5 {
				expectPaused(t, "one", deliver("loud"), time.Minute)
				expectPaused(t, "two", deliver("shrill"), time.Minute)
			}
			expect(t, "three", deliver(fmt.Sprint("probe ", i)), sent)
		}
	})
}

func TestAProjectThatIsOverItsQuotaIsProbedNowAndThen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &service{delay: time.Second, script: make(map[string][]push.Outcome)}
		g := newGateway(t, prometheus.NewRegistry(), s, nil)
		wish := overQuota
		wish.RetryAfter = time.Hour // more than anybody waits
		start, n := time.Now(), 0
		for time.Since(start) < 5*time.Minute {
			var wg sync.WaitGroup
			for range 5 {
				n++
				key := fmt.Sprint("device ", n)
				s.mu.Lock()
				s.script[key] = []push.Outcome{wish}
				s.mu.Unlock()
				wg.Go(func() {
					out := g.Deliver(t.Context(), &push.Notification{}, devices(key))[0]
					if out.Reason != push.ReasonPaused && out != wish {
						t.Errorf("%+v", out)
					}
				})
			}
			wg.Wait()
			<-time.After(time.Second)
		}
		// Five before anything is known, then one at a time in doubling waits.
		if asked := s.asked(); asked > 5+4+5*2*2 || asked < 5+4 {
			t.Errorf("%d of %d pushes asked a project that is over its quota", asked, n)
		}
		// It was to leave it alone for an hour; nobody does for more than MaxPause
		// after the last word.
		<-time.After(push.DefaultTrouble().MaxPause + time.Minute)
		var wg sync.WaitGroup
		for i := range 5 {
			wg.Go(func() {
				expect(t, "after the longest pause", g.Deliver(t.Context(), &push.Notification{}, devices(fmt.Sprint("late ", i)))[0], sent)
			})
		}
		wg.Wait()
	})
}

func TestAnAnswerToAnEarlierPushDoesNotEndAPause(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &service{delay: 10 * time.Second, script: map[string][]push.Outcome{"quick": {overloaded}}}
		g := newGateway(t, prometheus.NewRegistry(), s, func(o *push.Options) { o.AttemptTimeout = time.Minute })
		var wg sync.WaitGroup
		wg.Go(func() { g.Deliver(t.Context(), &push.Notification{}, devices("quick")) })
		<-time.After(9 * time.Second)
		wg.Go(func() {
			expect(t, "the earlier push", g.Deliver(t.Context(), &push.Notification{}, devices("slow"))[0], sent)
		})
		<-time.After(4 * time.Second)
		var probe sync.WaitGroup
		probe.Go(func() {
			expect(t, "the probe", g.Deliver(t.Context(), &push.Notification{}, devices("probe"))[0], sent)
		})
		wg.Wait()
		expectPaused(t, "while the probe is on its way", g.Deliver(t.Context(), &push.Notification{}, devices("other"))[0], time.Minute)
		probe.Wait()
		expect(t, "after the probe", g.Deliver(t.Context(), &push.Notification{}, devices("other"))[0], sent)
	})
}

func TestNewGatewayRefusesNoPause(t *testing.T) {
	t.Parallel()
	apps, err := push.NewApps(nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = push.NewGateway(apps, push.Options{
		Log: slog.New(slog.DiscardHandler), Metrics: push.NewMetrics(prometheus.NewRegistry(), false), UnknownApp: push.UnknownAppFail,
		AttemptTimeout: time.Second, RetryWait: time.Second, Trouble: push.Trouble{MaxPause: -1},
	})
	if err == nil {
		t.Error("no error")
	}
}
