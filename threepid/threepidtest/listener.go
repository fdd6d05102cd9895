package threepidtest

import (
	"net"
	"sync"
)

// tracked is a listener that can close the connections it has accepted: closing
// a server's listener alone leaves it waiting for idle clients.
type tracked struct {
	net.Listener

	closed *journal[struct{}] // one for each connection that was closed

	mu    sync.Mutex
	conns []net.Conn
}

func (l *tracked) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns = append(l.conns, &trackedConn{Conn: c, closed: l.closed})
	return l.conns[len(l.conns)-1], nil
}

func (l *tracked) accepted() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.conns)
}

func (l *tracked) closeConns() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.conns {
		_ = c.Close()
	}
}

// trackedConn reports when it is closed.
type trackedConn struct {
	net.Conn

	once   sync.Once
	closed *journal[struct{}]
}

func (c *trackedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { c.closed.add(struct{}{}) })
	return err
}
