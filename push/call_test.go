package push_test

import (
	"context"
	"encoding/json"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/push"
)

// Homeservers repeat what fails for a day. A call does not ring as if it had just
// begun.
// Conformance (attempts): a call that is repeated, or tried again, after it has rung (≠ Sygnal) | 200, nothing is sent
func TestACallDoesNotRingAfterItsEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &service{script: map[string][]push.Outcome{"k": {sent, unavailable, unavailable}}}
		g := newGateway(t, prometheus.NewRegistry(), s, nil)
		g.Deliver(t.Context(), &push.Notification{}, devices("k"))
		post := func(event string) push.Outcome {
			ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second)
			defer cancel()
			return g.Deliver(ctx, &push.Notification{
				EventID: push.NewText(event), Type: push.NewText("m.call.invite"), Content: map[string]any{"lifetime": json.Number("30000")},
			}, devices("k"))[0]
		}
		for i, want := range []push.Outcome{unavailable, unavailable, {Reason: push.ReasonNothingToSend}} {
			if got := post("$1:x"); got != want {
				t.Errorf("after %d seconds the outcome is %+v, want %+v", 20*i, got, want)
			}
			<-time.After(20 * time.Second)
		}
		if got := s.sent[2].Call(time.Now().Add(-time.Hour)).Left(time.Now()); got != 0 {
			t.Errorf("the second attempt rings for %s more", got)
		}
		if got := post("$2:x"); got != sent {
			t.Errorf("another call: %+v", got)
		}
	})
}

// Conformance (attempts): a call that is over, or nearly, when it first comes | an ordinary notification; nothing on a VoIP topic (also TestVoIPTopicsCarryCallsThatRing, FuzzWhatAnybodyMayWrite)
func TestACallThatIsOverIsAnOrdinaryNotification(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := new(service)
		g := newGateway(t, prometheus.NewRegistry(), s, nil)
		sentAt := json.Number(strconv.FormatInt(time.Now().Add(-15*time.Second).UnixMilli(), 10))
		for name, content := range map[string]map[string]any{
			"no time":         {"lifetime": json.Number("0")},
			"less than none":  {"lifetime": json.Number("-5")},
			"hardly any time": {"lifetime": json.Number("1")},
			"sent before":     {"lifetime": json.Number("15000"), "sender_ts": sentAt},
			"sent long ago":   {"lifetime": json.Number("1000"), "sender_ts": sentAt},
		} {
			got := g.Deliver(t.Context(), &push.Notification{EventID: push.NewText(name), Type: push.NewText("m.call.invite"), Content: content}, devices("k"))
			if got[0] != sent {
				t.Errorf("%s: the outcome is %+v", name, got[0])
			} else if call := s.sent[len(s.sent)-1].Call(time.Now()); call != (push.Call{}) {
				t.Errorf("%s: %+v", name, call)
			}
		}
	})
}

// Conformance (attempts): calls of unknown apps and of pushkeys that never had an accepted push, any number | do not make the gateway forget when an honest call came
func TestStrangersDoNotMakeALateCallRing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &service{script: map[string][]push.Outcome{"phone": {sent, unavailable}}}
		g := newGateway(t, prometheus.NewRegistry(), s, nil)
		call := func(event string, to ...push.Device) push.Outcome {
			return g.Deliver(t.Context(), &push.Notification{
				EventID: push.NewText(event), Type: push.NewText("m.call.invite"), Content: map[string]any{"lifetime": json.Number("30000")},
			}, to)[0]
		}
		g.Deliver(t.Context(), &push.Notification{}, devices("phone"))
		if got := call("$honest:x", devices("phone")...); got != unavailable {
			t.Fatalf("%+v", got)
		}
		for i := range 10_000 {
			made := "made up " + strconv.Itoa(i)
			s.script[made] = []push.Outcome{unavailable}
			call("$"+made[8:]+":x", push.Device{AppID: []string{"app", "unknown"}[i%2], PushKey: made})
		}
		<-time.After(31 * time.Second)
		if got := call("$honest:x", devices("phone")...); got.Reason != push.ReasonNothingToSend {
			t.Errorf("a call that has rung: %+v", got)
		}
	})
}
