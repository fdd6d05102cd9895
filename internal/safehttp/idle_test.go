package safehttp_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/matrix-herald/herald/internal/safehttp"
)

// TestIdleConnectionsAreBounded asks more hosts than connections are kept for,
// one after the other, and waits for the first ones to be closed.
func TestIdleConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	const hosts, bound = 70, 64
	closed := make(chan struct{}, hosts)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	srv.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateClosed {
			closed <- struct{}{}
		}
	}
	srv.Start()
	t.Cleanup(srv.Close)
	c := newClient(t, safehttp.Options{AllowNets: loopback()})
	for i := range hosts {
		r := request(t, http.MethodGet, fmt.Sprintf("http://host%d.example/", i), nil)
		if _, _, err := exchange(c.DoAt(r, srv.Listener.Addr().String())); err != nil {
			t.Fatal(err)
		}
	}
	for range hosts - bound {
		<-closed
	}
}
