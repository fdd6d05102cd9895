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
}

// DefaultTrouble returns what suits APNs and FCM.
func DefaultTrouble() Trouble {
	return Trouble{MaxPause: 5 * time.Minute}
}

// Check returns an error if it cannot work.
func (t Trouble) Check() error {
	if t.MaxPause < time.Second {
		return errors.New("the longest pause: at least a second")
	}
	return nil
}
