package push

import (
	"sync"
	"time"
)

// tally counts one app's verdicts for a Memory. redisstore does the same in
// Lua, and one test suite runs over both.
type tally struct {
	mu    sync.Mutex
	guard Guard
	// The counts are of the window that began at start and of the one before.
	// While the guard is tripped there is no window: counting goes on, however
	// long it takes, until enough verdicts say whether it recovers.
	start           time.Time
	all, dead       int
	oldAll, oldDead int
}

func (c *tally) read() Guard {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.guard
}

// add counts a verdict and returns what follows from it.
func (c *tally) add(v Verdict, now time.Time, terms *Terms) Guard {
	c.mu.Lock()
	defer c.mu.Unlock()
	if v == NoVerdict {
		return c.guard
	}
	if !c.guard.Tripped {
		c.roll(now, terms.GuardWindow)
	}
	c.all++
	if v == Dead {
		c.dead++
	} else {
		c.guard.Proven = true
	}
	all, dead := c.all+c.oldAll, c.dead+c.oldDead
	many := dead*100 > all*terms.GuardShare
	switch {
	case all < terms.GuardPushes:
	case c.guard.Tripped:
		// A whole round of verdicts decides, so that one good push in an
		// outage does not.
		c.guard.Tripped = many
		c.restart(now)
	case many:
		c.guard.Tripped = true
		c.guard.Trips++
		c.restart(now)
	}
	return c.guard
}

func (c *tally) roll(now time.Time, window time.Duration) {
	switch age := now.Sub(c.start); {
	case age >= 2*window:
		c.restart(now)
	case age >= window:
		c.oldAll, c.oldDead, c.all, c.dead = c.all, c.dead, 0, 0
		c.start = c.start.Add(window)
	}
}

func (c *tally) restart(now time.Time) {
	c.start = now
	c.all, c.dead, c.oldAll, c.oldDead = 0, 0, 0, 0
}
