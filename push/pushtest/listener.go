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
	held  chan struct{} // closed to let held handshakes go on; nil when none are held
}

// Accept implements net.Listener.
func (l *trackingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	tracked := &trackedConn{Conn: conn, listener: l, held: l.held, closed: make(chan struct{})}
	l.conns[tracked] = struct{}{}
	l.total++
	return tracked, nil
}

func (l *trackingListener) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total
}

// hold makes the connections of from now on silent: not even their TLS
// handshake goes on before the returned function is called.
func (l *trackingListener) hold() (release func()) {
	held := make(chan struct{})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = held
	return sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		close(held)
		if l.held == held {
			l.held = nil
		}
	})
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
	held     chan struct{}
	closing  sync.Once
	closed   chan struct{}
	err      error // of closing
}

// Read implements net.Conn.
func (c *trackedConn) Read(b []byte) (int, error) {
	if c.held != nil {
		select {
		case <-c.held:
		case <-c.closed:
		}
	}
	return c.Conn.Read(b)
}

// Close implements net.Conn. The connection is forgotten when it is closed, and not
// before: of two pushes that cut it neither may go on and be answered.
func (c *trackedConn) Close() error {
	c.closing.Do(func() {
		close(c.closed)
		c.err = c.Conn.Close()
		c.listener.mu.Lock()
		delete(c.listener.conns, c)
		c.listener.mu.Unlock()
	})
	return c.err
}
