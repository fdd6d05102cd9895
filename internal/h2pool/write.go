package h2pool

import (
	"io"
	"runtime"
	"sync"
	"time"

	"golang.org/x/net/http2"
)

const (
	// maxPending bounds what waits to be written; a larger frame waits alone.
	maxPending = 64 << 10
	// maxHold is how long the beginning of a request waits for its body, which
	// comes at once unless flow control or its reader holds it up.
	maxHold = time.Millisecond
)

// writer gathers what the streams of a connection write: frames that are ready
// at the same moment leave in one TLS record and one system call. net/http
// flushes after each frame and lets no other stream write meanwhile, so a
// goroutine writes in its place. A peer that takes nothing fills pending; from
// then on net/http waits in Write, as it would for the connection itself.
type writer struct {
	mu      sync.Mutex
	changed sync.Cond // due, room in pending, or err
	pending []byte
	due     bool        // pending is to be written now
	hold    *time.Timer // makes it due
	err     error       // why nothing is written any more
}

func newWriter() *writer {
	w := new(writer)
	w.changed.L = &w.mu
	w.mu.Lock() // the timer's function looks at the timer
	defer w.mu.Unlock()
	w.hold = time.AfterFunc(maxHold, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.setDue()
	})
	return w
}

// Write takes frames for the next write to the connection.
func (w *writer) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.err == nil && len(w.pending) > 0 && len(w.pending)+len(b) > maxPending {
		w.setDue()
		w.changed.Wait()
	}
	if w.err != nil {
		return 0, w.err
	}
	w.pending = append(w.pending, b...)
	switch first := len(w.pending) == len(b); {
	case !beginsRequest(b):
		w.setDue()
	case first: // else what is there sees to it
		w.hold.Reset(maxHold)
	}
	return len(b), nil
}

// beginsRequest reports whether b is the HEADERS frame of a request whose body
// follows. Where net/http cuts its writes elsewhere than between frames, a wrong
// answer costs maxHold or a system call.
func beginsRequest(b []byte) bool {
	return len(b) >= frameHeaderLen && http2.FrameType(b[3]) == http2.FrameHeaders && !http2.Flags(b[4]).Has(http2.FlagHeadersEndStream)
}

// setDue has pending written. The mutex is held.
func (w *writer) setDue() {
	w.hold.Stop()
	w.due = len(w.pending) > 0
	w.changed.Broadcast()
}

// fail ends the writing and returns the first reason it was given for that.
func (w *writer) fail(err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
	w.hold.Stop()
	w.changed.Broadcast()
	return w.err
}

// run writes to the connection what is due, until that or something else fails.
// It returns why.
func (w *writer) run(to io.Writer) error {
	var batch []byte
	for {
		w.mu.Lock()
		for !w.due && w.err == nil {
			w.changed.Wait()
		}
		w.mu.Unlock()
		runtime.Gosched() // streams that are ready to run add their frames
		w.mu.Lock()
		if w.err != nil {
			w.mu.Unlock()
			return w.err
		}
		batch, w.pending = w.pending, batch[:0]
		w.due = false
		w.changed.Broadcast()
		w.mu.Unlock()
		if _, err := to.Write(batch); err != nil {
			return w.fail(err)
		}
	}
}
