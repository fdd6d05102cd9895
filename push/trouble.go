package push

import (
	"errors"
	"time"
)

// Trouble says what a Gateway does when a push service asks for patience or does
// not work.
type Trouble struct {
	// MaxPause bounds how long all that share a quota leave the push service
	// alone when it asks for patience.
	MaxPause time.Duration
	// Window is the time of which an app's pushes are counted to find out whether
	// the push service works.
	Window time.Duration
	// Pushes is how many have to be counted to judge. Of each hundredth of the
	// window one failure and one success counts, and of a device one failure in
	// the window.
	Pushes int
	// Share is the share of failures among them, in percent, from which on the
	// push service is left alone.
	Share int
	// Wait is how long it is then left alone before a few pushes find out whether
	// it works again.
	Wait time.Duration
}

// DefaultTrouble returns what suits APNs and FCM.
func DefaultTrouble() Trouble {
	return Trouble{MaxPause: 5 * time.Minute, Window: 10 * time.Second, Pushes: 10, Share: 80, Wait: 5 * time.Second}
}

// Check returns an error if it cannot work.
func (t Trouble) Check() error {
	switch {
	case t.MaxPause < time.Second, t.Window < time.Second, t.Wait < time.Millisecond:
		return errors.New("the longest pause and the window of an outage: at least a second; the wait: at least a millisecond")
	case t.Pushes < 1, t.Pushes > outageSlots, t.Share < 1, t.Share > 100:
		return errors.New("an outage's pushes: 1 to 100; its share: 1 to 100 percent")
	}
	return nil
}
