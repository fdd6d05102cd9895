package push_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/matrix-herald/herald/push"
)

func TestARefusedAppIsAskedOnlyNowAndThen(t *testing.T) {
	t.Parallel()
	for _, reason := range []push.Reason{push.ReasonCredentials, push.ReasonConfig} {
		synctest.Test(t, func(t *testing.T) {
			refused := push.Outcome{Kind: push.Temporary, Reason: reason, Status: 403, Detail: "InvalidProviderToken"}
			s := &service{script: map[string][]push.Outcome{"k": {refused, refused, refused, refused, refused, refused}}}
			reg := prometheus.NewRegistry()
			g := newGateway(t, reg, s, nil)
			deliver := func() push.Outcome { return g.Deliver(t.Context(), &push.Notification{}, devices("k"))[0] }
			isOpen := func(want string) {
				t.Helper()
				text := "# HELP herald_push_breaker_open 1 while the push service refuses the app and is asked only now and then.\n" +
					"# TYPE herald_push_breaker_open gauge\nherald_push_breaker_open{app=\"app\",provider=\"apns\"} " + want + "\n"
				if err := testutil.GatherAndCompare(reg, strings.NewReader(text), "herald_push_breaker_open"); err != nil {
					t.Error(err)
				}
			}
			isOpen("0")
			for range 5 {
				if out := deliver(); out != refused {
					t.Fatalf("%+v", out)
				}
			}
			isOpen("1")
			for range 3 {
				out := deliver()
				if out.Kind != push.Temporary || out.Reason != push.ReasonBreaker || out.RetryAfter <= 0 {
					t.Fatalf("with an open breaker: %+v", out)
				}
			}
			if n := len(s.attempts("k")); n != 5 {
				t.Errorf("%d attempts, want 5", n)
			}
			// One push finds out, and is refused; the next one is taken.
			<-time.After(13 * time.Second)
			if out := deliver(); out != refused {
				t.Errorf("the probe: %+v", out)
			}
			if out := deliver(); out.Reason != push.ReasonBreaker {
				t.Errorf("after a refused probe: %+v", out)
			}
			<-time.After(13 * time.Second)
			if out := deliver(); out != sent {
				t.Errorf("the second probe: %+v", out)
			}
			isOpen("0")
			if out := deliver(); out != sent {
				t.Errorf("afterwards: %+v", out)
			}
		})
	}
}

func TestOtherFailuresDoNotOpenTheBreaker(t *testing.T) {
	t.Parallel()
	s := &service{script: map[string][]push.Outcome{"k": {tooMany, unavailable, tooMany, gone, tooMany, unavailable, tooMany, tooMany}}}
	g := newGateway(t, prometheus.NewRegistry(), s, nil)
	for range 8 {
		if out := g.Deliver(t.Context(), &push.Notification{}, devices("k"))[0]; out.Reason == push.ReasonBreaker {
			t.Fatalf("%+v", out)
		}
	}
}

func TestNewSettingsCloseTheBreaker(t *testing.T) {
	t.Parallel()
	refused := push.Outcome{Kind: push.Temporary, Reason: push.ReasonCredentials, Status: 403}
	s := &service{script: map[string][]push.Outcome{"k": {refused, refused, refused, refused, refused}}}
	g := newGateway(t, prometheus.NewRegistry(), s, nil)
	for range 5 {
		g.Deliver(t.Context(), &push.Notification{}, devices("k"))
	}
	apps, err := push.NewApps([]push.App{{Name: "app", ProviderName: "apns", Provider: s, MaxInFlight: 10}})
	if err != nil {
		t.Fatal(err)
	}
	g.SetApps(apps)
	if out := g.Deliver(t.Context(), &push.Notification{}, devices("k"))[0]; out != sent {
		t.Errorf("%+v", out)
	}
}
