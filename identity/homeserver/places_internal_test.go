package homeserver

import (
	"fmt"
	"testing"
	"time"
)

// TestPlaces is about who may have how many of 32 places.
func TestPlaces(t *testing.T) {
	t.Parallel()
	now := time.Unix(0, 0)
	p := newPlaces(32, func() time.Time { return now })
	yes, no := true, false
	take := func(purpose purpose, want int, format string) (held []*place) {
		t.Helper()
		for i := range 40 {
			name, err := ParseServerName(fmt.Sprintf(format, i))
			if err != nil {
				t.Fatal(err)
			}
			if at, err := p.take(purpose, name); err == nil {
				held = append(held, at)
			}
		}
		if len(held) != want {
			t.Errorf("%d places for %s, want %d", len(held), format, want)
		}
		return held
	}
	leave := func(held []*place, answered *bool) {
		for _, at := range held {
			at.leave(answered)
		}
	}
	one := take(forUserInfo, 4, "h%d.one.example")
	others := take(forUserInfo, 12, "other%d.example")
	leave(take(forKeys, 16, "other%d.example"), nil)
	leave(take(forOnBind, 4, "h%d.one.example"), &no)
	leave(one, &yes)
	one = take(forUserInfo, 8, "h%d.one.example:1")
	leave(take(forUserInfo, 4, "more%d.example"), nil)
	leave(others, &yes)
	leave(take(forUserInfo, 24, "other%d.example"), nil) // twelve are known, and twelve is what is left of all
	leave(one[:2], &no)
	leave(one[2:3], &yes)
	leave(one[3:5], &no)
	leave(take(forUserInfo, 5, "h%d.one.example"), nil) // known as before, beside three
	leave(one[5:], &no)
	leave(take(forUserInfo, 4, "h%d.one.example"), nil)
	leave(take(forKeys, 12+16, "other%d.example"), nil)
	now = now.Add(knownFor)
	leave(take(forKeys, 16, "other%d.example"), nil)
	for h, n := range p.held {
		if h.purpose != forUserInfo {
			t.Errorf("%d places of %v are held still", n, h)
		}
	}
}
