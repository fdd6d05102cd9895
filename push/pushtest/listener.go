package pushtest

import (
	"net"
	"sync"
)

// trackingListener remembers its connections, so that they can be cut.
type trackingListener struct {
	net.Listener
	mu    sync.Mutex
	conns map[net.Conn]struct{}
	total int
}

// Accept implements net.Listener.
func (l *trackingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	tracked := &trackedConn{Conn: conn, listener: l}
	l.conns[tracked] = struct{}{}
	l.total++
	return tracked, nil
}

func (l *trackingListener) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total
}

func (l *trackingListener) closeConns() { l.closeConn("") }

// closeConn closes the connection of the client at addr, "" for all.
func (l *trackingListener) closeConn(addr string) {
	l.mu.Lock()
	var doomed []net.Conn
	for conn := range l.conns {
		if addr == "" || conn.RemoteAddr().String() == addr {
			doomed = append(doomed, conn)
		}
	}
	l.mu.Unlock()
	for _, conn := range doomed {
		_ = conn.Close() // closed twice is closed
	}
}

type trackedConn struct {
	net.Conn
	listener *trackingListener
}

// Close implements net.Conn.
func (c *trackedConn) Close() error {
	c.listener.mu.Lock()
	delete(c.listener.conns, c)
	c.listener.mu.Unlock()
	return c.Conn.Close()
}
