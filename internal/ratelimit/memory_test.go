package ratelimit_test

import (
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/matrix-herald/herald/internal/ratelimit"
)

// A flood of keys pushes out the least indebted ones and no others.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	const maxKeys = 1000
	l, reg := open(t, func(o *ratelimit.Options) { o.MaxKeys = maxKeys })
	victim := ratelimit.Rate("narrow", per(3, month), "victim")
	for range 3 {
		take(t, l, "", victim)
	}
	for i := range 20 * maxKeys {
		take(t, l, "", ratelimit.Rate("wide", per(1, time.Hour), strconv.Itoa(i)))
	}
	if n := metric(t, reg, "herald_test_limit_keys", ""); n > maxKeys || n < maxKeys/2 {
		t.Errorf("%v keys of at most %d", n, maxKeys)
	}
	take(t, l, "narrow", victim)
	take(t, l, "wide", ratelimit.Rate("wide", per(1, time.Hour), strconv.Itoa(20*maxKeys-1)))
}

// A flood of budgets pushes out those with the fewest members.
func TestMembersAreBounded(t *testing.T) {
	t.Parallel()
	const maxMembers = 10_000
	l, reg := open(t, func(o *ratelimit.Options) { o.MaxMembers = maxMembers })
	take(t, l, "", ratelimit.Distinct("members", per(1000, month), "victim", numbers(0, 1000)))
	for i := range 1000 {
		take(t, l, "", ratelimit.Distinct("members", per(1000, month), fmt.Sprint(i), numbers(0, 100)))
	}
	if n := metric(t, reg, "herald_test_limit_keys", ""); n > 1+(maxMembers-1000)/100 || n < 2 {
		t.Errorf("%v budgets with at most %d members", n, maxMembers)
	}
	take(t, l, "members", ratelimit.Distinct("members", per(1000, month), "victim", []string{"x"}))
	// One that is larger than all that fits counts nevertheless.
	list := numbers(0, 2*maxMembers)
	take(t, l, "", ratelimit.Distinct("members", per(2*maxMembers, month), "huge", list))
	take(t, l, "members", ratelimit.Distinct("members", per(2*maxMembers, month), "huge", []string{"x"}))
	if n := metric(t, reg, "herald_test_limit_keys", ""); n != 1 {
		t.Errorf("%v budgets beside the huge one", n-1)
	}
}

// Keys that owe nothing any more go by themselves, as others come.
func TestMemoryIsFreedWithTime(t *testing.T) {
	t.Parallel()
	var passed atomic.Int64
	l, reg := open(t, func(o *ratelimit.Options) {
		o.Now = func() time.Time { return start.Add(time.Duration(passed.Load())) }
	})
	for i := range 10_000 {
		take(t, l, "", ratelimit.Rate("wide", per(1, time.Hour), strconv.Itoa(i)))
	}
	passed.Store(int64(2 * time.Hour))
	for i := range 10_000 {
		take(t, l, "", ratelimit.Rate("wide", per(1, time.Hour), "new"+strconv.Itoa(i)))
	}
	if n := metric(t, reg, "herald_test_limit_keys", ""); n > 10_500 {
		t.Errorf("%v keys, want the old ones gone", n)
	}
}
