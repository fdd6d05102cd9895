package harness

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"time"
)

// Output collects what a program writes and can be waited for. Its methods are
// safe for concurrent use, but for two at a time that wait.
type Output struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{}
}

// NewOutput returns an empty Output.
func NewOutput() *Output { return &Output{changed: make(chan struct{}, 1)} }

// Write implements [io.Writer].
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case o.changed <- struct{}{}:
	default:
	}
	return o.text.Write(p)
}

// String returns all that was written.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// Await waits until the output has all of these texts.
func (o *Output) Await(t testing.TB, texts ...string) {
	t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for _, text := range texts {
		for !strings.Contains(o.String(), text) {
			select {
			case <-o.changed:
			case <-timeout.C:
				t.Fatalf("the output lacks %q:\n%s", text, o)
			}
		}
	}
}
