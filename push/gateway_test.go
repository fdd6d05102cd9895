package push_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
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
	"github.com/matrix-herald/herald/push/health"
)

// service is a push service in the test's own memory: it answers with the next
// scripted outcome for a pushkey, accepted when there is none left.
type service struct {
	delay time.Duration
	// hold, when set, keeps each attempt until it is closed.
	hold    chan struct{}
	started chan struct{}
	// addresses is how often an address was asked for, which may cost something.
	addresses atomic.Int64

	mu     sync.Mutex
	script map[string][]push.Outcome
	sent   []push.Delivery
}

func (s *service) Destination(*push.Device) string { return "service" }

// Address passes over how often a pushkey is written with a "+", and takes none
// with a "?".
func (s *service) Address(d *push.Device) string {
	s.addresses.Add(1)
	if strings.Contains(d.PushKey, "?") {
		return ""
	}
	return strings.ReplaceAll(d.PushKey, "+", "")
}

func (s *service) Send(ctx context.Context, d push.Delivery) push.Outcome {
	s.mu.Lock()
	s.sent = append(s.sent, d)
	out := push.Outcome{Reason: push.ReasonSent, Status: 200}
	if next := s.script[d.Device.PushKey]; len(next) > 0 {
		out, s.script[d.Device.PushKey] = next[0], next[1:]
	}
	s.mu.Unlock()
	if s.started != nil {
		s.started <- struct{}{}
	}
	if s.hold != nil {
		<-s.hold
	}
	if s.delay > 0 {
		t := time.NewTimer(s.delay)
		defer t.Stop()
		select {
		case <-ctx.Done():
			return push.Outcome{Kind: push.Temporary, Reason: push.ReasonUncertain, Err: context.Cause(ctx)}
		case <-t.C:
		}
	}
	return out
}

func (s *service) attempts(pushKey string) (ids []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.sent {
		if d.Device.PushKey == pushKey {
			ids = append(ids, d.ID)
		}
	}
	return ids
}

func newGateway(t *testing.T, reg prometheus.Registerer, s *service, change func(*push.Options)) *push.Gateway {
	t.Helper()
	apps, err := push.NewApps([]push.App{{Name: "app", ProviderName: "apns", Provider: s, MaxInFlight: 20}})
	if err != nil {
		t.Fatal(err)
	}
	opts := push.Options{
		Log: slog.New(slog.DiscardHandler), Metrics: push.NewMetrics(reg), UnknownApp: push.UnknownAppKeep,
		AttemptTimeout: 10 * time.Second, RetryWait: 100 * time.Millisecond,
		Dedup: newMemory(t, dedup.Options{}), Health: health.New(health.Options{}),
	}
	if change != nil {
		change(&opts)
	}
	g, err := push.NewGateway(apps, opts)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func devices(pushKeys ...string) []push.Device {
	var out []push.Device
	for _, k := range pushKeys {
		out = append(out, push.Device{AppID: "app", PushKey: k})
	}
	return out
}

var (
	sent        = push.Outcome{Reason: push.ReasonSent, Status: 200}
	gone        = push.Outcome{Kind: push.Rejected, Reason: push.ReasonUnregistered, Status: 410, Detail: "Unregistered"}
	refused     = push.Outcome{Kind: push.Temporary, Reason: push.ReasonConnection, Unprocessed: true}
	cut         = push.Outcome{Kind: push.Temporary, Reason: push.ReasonUncertain}
	unavailable = push.Outcome{Kind: push.Temporary, Reason: push.ReasonUnavailable, Status: 503, RetryAfter: time.Minute}
	idle        = push.Outcome{Kind: push.Temporary, Reason: push.ReasonConnection, Status: 400, Detail: "IdleTimeout", Unprocessed: true}
	tooMany     = push.Outcome{Kind: push.Temporary, Reason: push.ReasonRateLimited, Status: 429}
)

// Conformance (attempts): the push service cannot have taken it: refused connection, GOAWAY, REFUSED_STREAM, APNs 400 IdleTimeout, 500 or 503 without Retry-After | up to three attempts, short and jittered (also TestARequestTheServerHasNotProcessedIsSentAgain)
// Conformance (attempts): cut after the request was written (`uncertain`) | once more, with the same apns-id; counted (also TestDeliverBoundsAHangingService)
// Conformance (attempts): FCM 429 and 5xx, anything with Retry-After | straight back to the homeserver (also TestResponses)
func TestDeliverRetries(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		script   []push.Outcome
		want     push.Outcome
		attempts int
	}{
		"an accepted push is sent once":                            {nil, sent, 1},
		"an idle connection's answer is asked for once more":       {[]push.Outcome{idle, idle, sent}, idle, 2},
		"a rejection is final":                                     {[]push.Outcome{gone}, gone, 1},
		"a refused connection is tried again":                      {[]push.Outcome{refused}, sent, 2},
		"three refused connections are enough":                     {[]push.Outcome{refused, refused, refused}, refused, 3},
		"a cut is sent again once":                                 {[]push.Outcome{cut}, sent, 2},
		"a second cut goes back to the homeserver":                 {[]push.Outcome{cut, cut}, cut, 2},
		"a cut after a refusal is sent again once":                 {[]push.Outcome{refused, cut}, sent, 3},
		"what the service may have processed is not tried again":   {[]push.Outcome{tooMany}, tooMany, 1},
		"a service that sends Retry-After is not asked again":      {[]push.Outcome{unavailable}, unavailable, 1},
		"Retry-After counts even where the push was not processed": {[]push.Outcome{{Kind: push.Temporary, Unprocessed: true, RetryAfter: time.Second}}, push.Outcome{Kind: push.Temporary, Unprocessed: true, RetryAfter: time.Second}, 1},
		"a rejection after a refused connection is a rejection":    {[]push.Outcome{refused, gone}, gone, 2},
		"a dropped message is final":                               {[]push.Outcome{{Kind: push.Dropped, Reason: push.ReasonTooLarge}}, push.Outcome{Kind: push.Dropped, Reason: push.ReasonTooLarge}, 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &service{script: map[string][]push.Outcome{"k": tt.script}}
				g := newGateway(t, prometheus.NewRegistry(), s, nil)
				ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second)
				defer cancel()
				got := g.Deliver(ctx, &push.Notification{}, devices("k"))
				if diff := cmp.Diff([]push.Outcome{tt.want}, got); diff != "" {
					t.Errorf("outcomes (-want +got):\n%s", diff)
				}
				ids := s.attempts("k")
				if len(ids) != tt.attempts {
					t.Errorf("%d attempts, want %d", len(ids), tt.attempts)
				}
				for _, id := range ids {
					if id != ids[0] || id == "" {
						t.Errorf("attempts with different IDs: %q", ids)
					}
				}
			})
		})
	}
}

// Conformance (answers): all devices are attempted, in parallel (≠ Sygnal: stops at the first fault)
func TestDeliverInParallelAndInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &service{delay: time.Second, script: map[string][]push.Outcome{"b": {gone}, "c": {unavailable}}}
		g := newGateway(t, prometheus.NewRegistry(), s, nil)
		start := time.Now()
		got := g.Deliver(t.Context(), &push.Notification{}, devices("a", "b", "c"))
		if diff := cmp.Diff([]push.Outcome{sent, gone, unavailable}, got); diff != "" {
			t.Errorf("outcomes (-want +got):\n%s", diff)
		}
		if took := time.Since(start); took != time.Second {
			t.Errorf("three devices took %s, want the one second of the slowest", took)
		}
	})
}

// Conformance (attacks): push services that hang, cut, answer garbage, quote what they were sent | bounded times and bodies; their words are not repeated (also TestReasonsFromElsewhereAreNotRepeated, TestNothingTellsSecrets)
func TestDeliverBoundsAHangingService(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &service{delay: time.Hour}
		g := newGateway(t, prometheus.NewRegistry(), s, nil)
		ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second)
		defer cancel()
		start := time.Now()
		got := g.Deliver(ctx, &push.Notification{}, devices("a"))
		if diff := cmp.Diff(cut, got[0], cmpopts.IgnoreFields(push.Outcome{}, "Err")); diff != "" {
			t.Errorf("outcome (-want +got):\n%s", diff)
		}
		if n := len(s.attempts("a")); n != 2 {
			t.Errorf("%d attempts, want 2: an uncertain one is sent again once", n)
		}
		if took := time.Since(start); took > 25*time.Second {
			t.Errorf("took %s, longer than the deadline", took)
		}
	})
}

// Conformance (attempts): no attempt or wait beyond the deadline
func TestDeliverDoesNotWaitPastTheDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &service{script: map[string][]push.Outcome{"a": {refused, refused, refused}}}
		g := newGateway(t, prometheus.NewRegistry(), s, func(o *push.Options) { o.RetryWait = time.Minute })
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		start := time.Now()
		got := g.Deliver(ctx, &push.Notification{}, devices("a"))
		if diff := cmp.Diff([]push.Outcome{refused}, got); diff != "" {
			t.Errorf("outcomes (-want +got):\n%s", diff)
		}
		if time.Since(start) != 0 {
			t.Error("waited for an attempt that the deadline leaves no room for")
		}
	})
}

// Conformance (attempts): a request's time is over while pushes still have to be made | no further payload is built; 502
func TestTheEndOfARequestEndsOurOwnWorkToo(t *testing.T) {
	t.Parallel()
	s := &service{}
	g := newGateway(t, prometheus.NewRegistry(), s, nil)
	var phones [100]string
	for i := range phones {
		phones[i] = fmt.Sprint("phone ", i)
	}
	ctx, end := context.WithCancelCause(t.Context())
	end(context.DeadlineExceeded)
	for _, out := range g.Deliver(ctx, &push.Notification{}, devices(phones[:]...)) {
		if out.Kind != push.Temporary || out.Reason != push.ReasonTimeout && out.Reason != push.ReasonBusy {
			t.Fatalf("%+v", out)
		}
	}
	if len(s.sent) != 0 {
		t.Errorf("%d pushes were made", len(s.sent))
	}
}

// Conformance (requests): one device listed twice (≠ Sygnal: pushed twice); two accounts on one phone, told apart by `data` | once; each gets its own
func TestDeliverOncePerDevice(t *testing.T) {
	t.Parallel()
	s := &service{script: map[string][]push.Outcome{"a": {gone, sent}}}
	g := newGateway(t, prometheus.NewRegistry(), s, nil)
	ds := devices("a", "a", "b", "a")
	ds[3].Data = map[string]any{"default_payload": map[string]any{"cs": "other account"}}
	got := g.Deliver(t.Context(), &push.Notification{}, ds)
	if n := len(s.attempts("a")); n != 2 {
		t.Errorf("%d pushes to a, want 2: one for each data", n)
	}
	if n := s.addresses.Load(); n != 3 {
		t.Errorf("%d addresses for three devices", n)
	}
	if diff := cmp.Diff(got[0], got[1]); diff != "" {
		t.Errorf("the same device twice has two outcomes:\n%s", diff)
	}
	if got[2] != sent {
		t.Errorf("b: %+v", got[2])
	}
	if got[0] == got[3] {
		t.Errorf("two accounts on one phone got one outcome: %+v", got)
	}
}

// Conformance (answers): unknown app_id (≠ Sygnal: rejected) | 502 by default, rejected where `unknown_app: delete_pusher`
func TestUnknownApp(t *testing.T) {
	t.Parallel()
	for policy, want := range map[push.UnknownApp]push.Kind{push.UnknownAppKeep: push.Temporary, push.UnknownAppDelete: push.Rejected} {
		s := &service{}
		g := newGateway(t, prometheus.NewRegistry(), s, func(o *push.Options) { o.UnknownApp = policy })
		got := g.Deliver(t.Context(), &push.Notification{}, []push.Device{{AppID: "other", PushKey: "k"}, {AppID: "app", PushKey: "k"}})
		if got[0].Kind != want || got[0].Reason != push.ReasonUnknownApp {
			t.Errorf("%s: %+v", policy, got[0])
		}
		if got[1] != sent {
			t.Errorf("%s: the known app's device: %+v", policy, got[1])
		}
	}
}

// Conformance (requests): app_id over 64 characters, pushkey over 512 bytes | the pushkey is rejected
func TestDevicesThatCannotBeRegisteredAreRejected(t *testing.T) {
	t.Parallel()
	s := &service{}
	g := newGateway(t, prometheus.NewRegistry(), s, nil)
	got := g.Deliver(t.Context(), &push.Notification{}, []push.Device{
		{AppID: "app", PushKey: strings.Repeat("k", 512)},
		{AppID: "app", PushKey: strings.Repeat("k", 513)},
		{AppID: strings.Repeat("ä", 64), PushKey: "k"},
		{AppID: strings.Repeat("a", 65), PushKey: "k"},
	})
	malformed := push.Outcome{Kind: push.Rejected, Reason: push.ReasonMalformedPushKey}
	unknown := push.Outcome{Kind: push.Temporary, Reason: push.ReasonUnknownApp}
	if diff := cmp.Diff([]push.Outcome{sent, malformed, unknown, malformed}, got); diff != "" {
		t.Errorf("outcomes (-want +got):\n%s", diff)
	}
	if len(s.sent) != 1 {
		t.Errorf("%d pushes, want 1", len(s.sent))
	}
}

// faulty is a provider with a bug.
type faulty struct{}

func (faulty) Destination(*push.Device) string { return "" }

func (faulty) Address(d *push.Device) string { return d.PushKey }

func (faulty) Send(context.Context, push.Delivery) push.Outcome { panic("secret-text") }

// Conformance (attempts): a provider with a bug | costs one delivery, answered 500 or 502
func TestAPanicCostsOneDelivery(t *testing.T) {
	t.Parallel()
	var logged bytes.Buffer
	apps, err := push.NewApps([]push.App{
		{Name: "app", ProviderName: "apns", Provider: &service{}, MaxInFlight: 10},
		{Name: "faulty", ProviderName: "apns", Provider: faulty{}, MaxInFlight: 10},
	})
	if err != nil {
		t.Fatal(err)
	}
	g := newGateway(t, prometheus.NewRegistry(), &service{}, func(o *push.Options) { o.Log = slog.New(slog.NewTextHandler(&logged, nil)) })
	g.SetApps(apps)
	got := g.Deliver(t.Context(), &push.Notification{}, []push.Device{
		{AppID: "faulty", PushKey: "a"}, {AppID: "app", PushKey: "b"}, {AppID: "faulty", PushKey: "c"},
	})
	if got[0].Reason != push.ReasonInternal || got[1] != sent || got[2].Reason != push.ReasonInternal {
		t.Errorf("outcomes: %+v", got)
	}
	if text := logged.String(); !strings.Contains(text, "provider panicked") || strings.Contains(text, "secret-text") {
		t.Errorf("log:\n%s", text)
	}
}

// An app whose refusals come in turns with good pushes does not fill the log.
func TestARefusalIsToldOnceInAWhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var logged bytes.Buffer
		reg := prometheus.NewRegistry()
		wrong := push.Outcome{Kind: push.Temporary, Reason: push.ReasonConfig, Status: 400, Detail: "BadTopic"}
		s := &service{script: map[string][]push.Outcome{"k": {wrong, sent, wrong, sent, wrong, sent, wrong, sent, wrong}}}
		g := newGateway(t, reg, s, func(o *push.Options) { o.Log = slog.New(slog.NewTextHandler(&logged, nil)) })
		for i := range 9 {
			g.Deliver(t.Context(), &push.Notification{}, devices("k"))
			if got := count(t, reg, "herald_push_app_refused", "app", "app"); got != float64(1-i%2) {
				t.Errorf("after %d pushes the metric is %v", i+1, got)
			}
			if i < 8 {
				<-time.After(2 * time.Minute)
			}
		}
		if got := strings.Count(logged.String(), "refuses the app's credentials or settings"); got != 2 {
			t.Errorf("told %d times in 16 minutes:\n%s", got, &logged)
		}
	})
}

// A stranger whose token or data the push service refuses wakes nobody.
//
// Conformance (attempts): settings or credentials that the push service refuses for a pushkey that never had an accepted push, of an app that works | 502, no warning and no metric, unless it is the credentials beyond doubt
func TestARefusalThatAStrangerMayHaveCausedIsNotTold(t *testing.T) {
	t.Parallel()
	doubtful := func(reason push.Reason, evidence push.Evidence) push.Outcome {
		return push.Outcome{Kind: push.Temporary, Reason: reason, Status: 400, Evidence: evidence}
	}
	for name, tt := range map[string]struct {
		pushKey string
		out     push.Outcome
		told    float64
	}{
		"a payload that Apple calls a fault of settings":  {"made up", doubtful(push.ReasonConfig, push.EvidenceNone), 0},
		"messages of which most are wrong":                {"made up", doubtful(push.ReasonConfig, push.EvidenceWorks), 0},
		"a token for which Huawei doubts the credentials": {"made up", doubtful(push.ReasonCredentials, push.EvidenceNone), 0},
		"credentials that nobody can spoil":               {"made up", doubtful(push.ReasonCredentials, push.EvidenceRefused), 1},
		"a phone that had a push":                         {"phone", doubtful(push.ReasonConfig, push.EvidenceNone), 1},
	} {
		var logged bytes.Buffer
		reg := prometheus.NewRegistry()
		s := &service{script: map[string][]push.Outcome{"phone": {sent, tt.out}, "made up": {tt.out}}}
		g := newGateway(t, reg, s, func(o *push.Options) { o.Log = slog.New(slog.NewTextHandler(&logged, nil)) })
		for _, pushKey := range []string{"phone", tt.pushKey} {
			g.Deliver(t.Context(), &push.Notification{}, devices(pushKey))
		}
		if got := count(t, reg, "herald_push_app_refused", "app", "app"); got != tt.told || (logged.Len() > 0) != (tt.told == 1) {
			t.Errorf("%s: the metric is %v, the log:\n%s", name, got, &logged)
		}
	}
}

func TestDevicesInTheLogAreShort(t *testing.T) {
	t.Parallel()
	var logged bytes.Buffer
	log := slog.New(slog.NewTextHandler(&logged, nil))
	log.Info("device", "device", push.Device{AppID: strings.Repeat("x", 1<<20), PushKey: strings.Repeat("k", 1<<20)})
	if logged.Len() > 300 {
		t.Errorf("%d bytes", logged.Len())
	}
}

// Conformance (answers): an app at `concurrency` (≠ Sygnal: 502) | 503 with Retry-After at once (also TestAnswers, TestBeyondItsLimitAnAppIsRefused)
// Conformance (attacks): a flood of notifications, of one app or one device | 503 at the bound of an app; limits by app and address where switched on (also TestBeyondItsLimitAnAppIsRefused, TestLimits)
func TestMaxInFlight(t *testing.T) {
	t.Parallel()
	s := &service{hold: make(chan struct{}), started: make(chan struct{}, 20)}
	reg := prometheus.NewRegistry()
	g := newGateway(t, reg, s, nil)
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() { g.Deliver(t.Context(), &push.Notification{}, devices("a")) })
	}
	for range 10 {
		<-s.started
	}
	got := g.Deliver(t.Context(), &push.Notification{}, devices("b"))
	if got[0].Kind != push.Temporary || got[0].Reason != push.ReasonBusy || got[0].RetryAfter <= 0 {
		t.Errorf("the eleventh delivery: %+v", got[0])
	}

	// A reload must not forget what is in flight.
	apps, err := push.NewApps([]push.App{{Name: "app", ProviderName: "apns", Provider: s, MaxInFlight: 22}})
	if err != nil {
		t.Fatal(err)
	}
	g.SetApps(apps)
	wg.Go(func() { g.Deliver(t.Context(), &push.Notification{}, devices("c")) })
	<-s.started
	if got := g.Deliver(t.Context(), &push.Notification{}, devices("d")); got[0].Reason != push.ReasonBusy {
		t.Errorf("the twelfth delivery after a reload: %+v", got[0])
	}
	close(s.hold)
	wg.Wait()
	s.started = nil
	if got := g.Deliver(t.Context(), &push.Notification{}, devices("e")); got[0].Kind != push.Accepted {
		t.Errorf("after the others ended: %+v", got[0])
	}
	const rest = `
# HELP herald_push_in_flight Deliveries that have one of the app's places.
# TYPE herald_push_in_flight gauge
herald_push_in_flight{app="app",provider="apns"} 0
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(rest), "herald_push_in_flight"); err != nil {
		t.Error(err)
	}
}

func TestNewGatewayRefusesOptionsThatCannotWork(t *testing.T) {
	t.Parallel()
	apps, err := push.NewApps(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, opts := range map[string]push.Options{
		"no policy": {Dedup: newMemory(t, dedup.Options{}), Health: health.New(health.Options{})},
		"no memory": {UnknownApp: push.UnknownAppKeep, Health: health.New(health.Options{})},
	} {
		if _, err := push.NewGateway(apps, opts); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// Conformance (pushgw): metrics, with Sygnal's names where wanted; labels are configured names and closed sets (also TestMetricsUnderSygnalsNames, TestVerdictsReachTheHomeserver, TestTheExpiryOfACertificateIsShown)
func TestMetricsAndLogs(t *testing.T) {
	t.Parallel()
	var logged bytes.Buffer
	reg := prometheus.NewRegistry()
	s := &service{script: map[string][]push.Outcome{
		"secret-1": {gone}, "secret-2": {cut, {Kind: push.Temporary, Reason: push.ReasonUnavailable, Status: 599, Err: errors.New("why")}},
	}}
	g := newGateway(t, reg, s, func(o *push.Options) {
		o.Log = slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
		o.RetryWait = time.Millisecond
	})
	g.Deliver(t.Context(), &push.Notification{}, append(devices("secret-0", "secret-1", "secret-2"), push.Device{AppID: "strange\napp", PushKey: "secret-3"}))
	want := `
# HELP herald_push_devices_total Devices that notifications were for.
# TYPE herald_push_devices_total counter
herald_push_devices_total{app="(unknown)",provider=""} 1
herald_push_devices_total{app="app",provider="apns"} 3
# HELP herald_push_notifications_total Notifications received that could be understood.
# TYPE herald_push_notifications_total counter
herald_push_notifications_total 1
# HELP herald_push_provider_responses_total Answers of the push service by HTTP status.
# TYPE herald_push_provider_responses_total counter
herald_push_provider_responses_total{app="app",code="200",provider="apns"} 1
herald_push_provider_responses_total{app="app",code="410",provider="apns"} 1
herald_push_provider_responses_total{app="app",code="other",provider="apns"} 1
# HELP herald_push_retries_total Further attempts within one request by what made them necessary.
# TYPE herald_push_retries_total counter
herald_push_retries_total{app="app",provider="apns",reason="uncertain"} 1
# HELP herald_push_uncertain_total Attempts cut after the request was written: the push service may have accepted them.
# TYPE herald_push_uncertain_total counter
herald_push_uncertain_total{app="app",provider="apns"} 1
`
	err := testutil.GatherAndCompare(reg, strings.NewReader(want), "herald_push_devices_total", "herald_push_notifications_total",
		"herald_push_provider_responses_total", "herald_push_retries_total", "herald_push_uncertain_total")
	if err != nil {
		t.Error(err)
	}
	if strings.Contains(logged.String(), "secret-") {
		t.Errorf("a pushkey in the log:\n%s", &logged)
	}
	if !strings.Contains(logged.String(), push.Fingerprint("secret-2")) {
		t.Errorf("no fingerprint in the log:\n%s", &logged)
	}
}

func TestMemberTruthy(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		v    any
		want bool
	}{
		{nil, false}, {"", false}, {"x", true}, {false, false}, {true, true}, {map[string]any{}, false},
		{map[string]any{"a": 1}, true}, {[]any{}, false}, {[]any{nil}, true},
	} {
		if got := push.NewMember(tt.v).Truthy(); got != tt.want {
			t.Errorf("%#v: %v", tt.v, got)
		}
	}
}

func expect(t *testing.T, what string, got, want push.Outcome) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// The operator is told of the first refusal of an app, once, until it has a push.
//
// Conformance (attempts): credentials or settings that the push service refuses (401, 403, 404, 405, other 400s) | 502; a warning and a metric at the first one; one warning in ten minutes (also TestARefusalIsToldOnceInAWhile)
func TestTheFirstRefusalIsTold(t *testing.T) {
	t.Parallel()
	for reason, level := range map[push.Reason]string{push.ReasonCredentials: "level=WARN", push.ReasonConfig: "level=ERROR"} {
		var logged bytes.Buffer
		reg := prometheus.NewRegistry()
		refused := push.Outcome{Kind: push.Temporary, Reason: reason, Status: 403, Detail: "InvalidProviderToken"}
		s := &service{script: map[string][]push.Outcome{"a": {refused}, "b": {refused}}}
		g := newGateway(t, reg, s, func(o *push.Options) { o.Log = slog.New(slog.NewTextHandler(&logged, nil)) })
		for i, step := range []struct {
			pushKey string
			metric  float64
			lines   int
		}{{"a", 1, 1}, {"b", 1, 1}, {"a", 0, 1}} {
			g.Deliver(t.Context(), &push.Notification{}, devices(step.pushKey))
			if got := count(t, reg, "herald_push_app_refused", "app", "app"); got != step.metric {
				t.Errorf("%s, push %d: the metric is %v", reason, i, got)
			}
			if n := strings.Count(logged.String(), level); n != step.lines {
				t.Errorf("%s, push %d: %d lines of %s\n%s", reason, i, n, level, &logged)
			}
		}
	}
}

// ailing is what is known of several destinations.
type ailing map[string]push.HealthState

func (ailing) Wait(string) (time.Duration, push.Reason) { return 0, "" }

func (ailing) Record(string, push.Witness, push.Outcome) push.HealthChange { return push.HealthSame }

func (a ailing) State(destination string) push.HealthState { return a[destination] }

// hosts is a provider of several destinations.
type hosts struct{ *service }

func (hosts) Destination(*push.Device) string { return "" }

func (hosts) Destinations() []string {
	return []string{"works", "refuses", "probing", "down", "probing", "late", "soon"}
}

// Conformance (pushgw): metrics of the breaker, outages and pauses of an app of several hosts | the worst of them
func TestMetricsShowTheWorstOfSeveralHosts(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	known := ailing{
		"refuses": {Reason: push.ReasonBreaker}, "probing": {Reason: push.ReasonOutage, Probing: true}, "down": {Reason: push.ReasonOutage},
		"soon": {Reason: push.ReasonPaused, Until: time.Unix(100, 0)}, "late": {Reason: push.ReasonPaused, Until: time.Unix(200, 0)},
	}
	g := newGateway(t, reg, nil, func(o *push.Options) { o.Health = known })
	apps, err := push.NewApps([]push.App{{Name: "app", ProviderName: "webpush", Provider: hosts{new(service)}, MaxInFlight: 1}})
	if err != nil {
		t.Fatal(err)
	}
	g.SetApps(apps)
	for metric, want := range map[string]float64{
		"herald_push_breaker_open": 1, "herald_push_outage_state": 1, "herald_push_paused_until_timestamp_seconds": 200,
	} {
		if got := count(t, reg, metric, "app", "app"); got != want {
			t.Errorf("%s is %v, want %v", metric, got, want)
		}
	}
	delete(known, "down")
	if got := count(t, reg, "herald_push_outage_state", "app", "app"); got != 2 {
		t.Errorf("while a push finds out it is %v", got)
	}
}
