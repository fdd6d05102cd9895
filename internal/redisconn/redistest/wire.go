package redistest

import (
	"net"
	"sync"
	"testing"
)

// Wire passes bytes on to Redis and counts the round trips.
type Wire struct {
	// Address is where it listens.
	Address string

	mu    sync.Mutex
	asked bool // the last bytes were the client's
	trips int
}

// StartWire starts a Wire to the Redis at address, until the test ends.
func StartWire(t testing.TB, address string) *Wire {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &Wire{Address: listener.Addr().String()}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", address)
			if err != nil {
				_ = client.Close()
				continue
			}
			wg.Go(func() { w.pass(server, client, true) })
			wg.Go(func() { w.pass(client, server, false) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		wg.Wait()
	})
	return w
}

func (w *Wire) pass(to, from net.Conn, asks bool) {
	defer to.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		w.mu.Lock()
		if asks && !w.asked {
			w.trips++
		}
		w.asked = asks
		w.mu.Unlock()
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// RoundTrips returns how often the client has sent something since Redis last
// answered.
func (w *Wire) RoundTrips() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.trips
}
