package h2pool

import (
	"io"
	"runtime"
	"sync"
)

// maxPending bounds what waits to be written; a larger frame waits alone.
const maxPending = 64 << 10

// writer gathers what the streams of a connection write: frames that are ready
// at the same moment leave in one TLS record and one system call. net/http
// flushes after each frame and lets no other stream write meanwhile, so a
// goroutine writes in its place. A peer that takes nothing fills pending; from
// then on net/http waits in Write, as it would for the connection itself.
type writer struct {
	mu      sync.Mutex
	changed sync.Cond // pending or err
	pending []byte
	err     error // why nothing is written any more
}

func newWriter() *writer {
	w := new(writer)
	w.changed.L = &w.mu
	return w
}

// Write takes frames for the next write to the connection.
func (w *writer) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.err == nil && len(w.pending) > 0 && len(w.pending)+len(b) > maxPending {
		w.changed.Wait()
	}
	if w.err != nil {
		return 0, w.err
	}
	w.pending = append(w.pending, b...)
	w.changed.Broadcast()
	return len(b), nil
}

// fail ends the writing and returns the first reason it was given for that.
func (w *writer) fail(err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
		w.changed.Broadcast()
	}
	return w.err
}

// run writes to the connection what is pending, until that or something else
// fails. It returns why.
func (w *writer) run(to io.Writer) error {
	var batch []byte
	for {
		if err := w.wait(); err != nil {
			return err
		}
		// The stream that woke this goroutine is about to write its body, and
		// others that are ready to run are about to write as well.
		runtime.Gosched()
		w.mu.Lock()
		batch, w.pending = w.pending, batch[:0]
		w.changed.Broadcast()
		w.mu.Unlock()
		if _, err := to.Write(batch); err != nil {
			return w.fail(err)
		}
	}
}

// wait returns when there is something to write, or with the reason why nothing is
// written any more.
func (w *writer) wait() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.pending) == 0 && w.err == nil {
		w.changed.Wait()
	}
	return w.err
}
