package pushtest

import (
	"net"
	"sync/atomic"
	"testing"
	"time"
)

// lingering is a connection that takes its time to close.
type lingering struct {
	net.Conn
	closing chan struct{}
	closed  atomic.Bool
}

func (l *lingering) Close() error {
	close(l.closing)
	<-time.After(10 * time.Millisecond)
	l.closed.Store(true)
	return nil
}

// TestWhoeverCutsAConnectionFindsItClosed has a push cut a connection that another
// one has begun to cut: its answer must not get through.
func TestWhoeverCutsAConnectionFindsItClosed(t *testing.T) {
	t.Parallel()
	slow := &lingering{closing: make(chan struct{})}
	l := &trackingListener{conns: make(map[net.Conn]struct{})}
	l.conns[&trackedConn{Conn: slow, listener: l, closed: make(chan struct{})}] = struct{}{}
	first := make(chan struct{})
	go func() {
		defer close(first)
		l.closeConn("")
	}()
	<-slow.closing
	l.closeConn("")
	if !slow.closed.Load() {
		t.Error("it is still open")
	}
	<-first
}
