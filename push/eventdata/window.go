package eventdata

import (
	"math/bits"
	"sync"
)

// Window remembers which of an app's last messages the push service called wrong.
// The zero value is empty. It is safe for concurrent use.
type Window struct {
	mu    sync.Mutex
	wrong uint32 // a bit for each, the latest is the lowest
	count int    // at most as many as bits
}

// enough is from how many messages on a window tells something.
const enough = 10

// Add adds a message, and reports whether most of the last ones were wrong.
func (w *Window) Add(wrong bool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wrong <<= 1
	if wrong {
		w.wrong |= 1
	}
	w.count = min(w.count+1, 32)
	return w.count >= enough && 2*bits.OnesCount32(w.wrong) > w.count
}
