package push

import (
	"strconv"
	"testing"
	"time"
)

func TestRefusedDevicesOfAPauseAreBounded(t *testing.T) {
	t.Parallel()
	q, now := new(quota), time.Unix(1_800_000_000, 0)
	out := Outcome{Kind: Temporary, Reason: ReasonRateLimited, Status: 429, RetryAfter: time.Minute, Reach: ReachQuota}
	for i := range 3 * maxRefused { // all were on their way when the first was refused
		q.answer(strconv.Itoa(i), out, false, time.Hour, now)
	}
	if n := len(q.refused); n != maxRefused {
		t.Errorf("%d refused devices are remembered", n)
	}
	// The next pause begins anew.
	q.admit("0", 0, now.Add(2*time.Minute))
	q.answer("0", out, false, time.Hour, now.Add(3*time.Minute))
	if n := len(q.refused); n > 2 {
		t.Errorf("%d refused devices are remembered in the next pause", n)
	}
}

func TestFailedDevicesAreBounded(t *testing.T) {
	t.Parallel()
	o, now := newOutage(DefaultTrouble()), time.Unix(1_800_000_000, 0)
	for i := range 20 * outageSlots { // half of them fail, which is no outage
		now = now.Add(o.slot / 2)
		device := keyOf(strconv.Itoa(i))
		o.answer(device, good, false, now)
		o.answer(device, bad, false, now)
	}
	if n := len(o.failed); n > outageSlots || n < outageSlots/2 {
		t.Errorf("%d failed devices are remembered", n)
	}
	r := newRefusal()
	for i := range 100 {
		r.answer(keyOf(strconv.Itoa(i)), bad, false, now)
	}
	if n := len(r.failed); n > refusalThreshold {
		t.Errorf("%d refused devices are remembered", n)
	}
}
