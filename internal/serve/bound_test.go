package serve_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// readAll is a handler that takes the whole body.
func readAll(w http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	_, _ = io.WriteString(w, "done")
}

// TestConnectionsThatWaitMakeRoom has all room taken in the ways that cost their
// holders nothing.
//
// Conformance (hostile input): more connections than there is room for | whoever waits the longest makes room (also TestTenThousandIdleConnections, BenchmarkHostileAttacks)
// Conformance (attacks): more connections than there are files | the connection that has waited the longest makes room; one with a request at work never does (also TestARequestAtWorkKeepsItsConnection, TestMoreConnectionsThanFilesAreNoTrouble)
func TestConnectionsThatWaitMakeRoom(t *testing.T) {
	t.Parallel()
	holders := []string{
		"",                                  // says nothing
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n", // has its answer
		"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ",
		"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nslow",
		"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nslow",
		"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n\r\n",
	}
	o := options(readAll)
	o.Config.MaxConnections = len(holders)
	s := start(t, o)
	var holding sync.WaitGroup
	for _, words := range holders {
		conn := dial(t, s)
		if _, err := io.WriteString(conn, words); err != nil {
			t.Fatal(err)
		}
		holding.Go(func() { _, _ = io.Copy(io.Discard, conn) }) // until it is closed
	}
	gone := make(chan struct{})
	go func() {
		holding.Wait()
		close(gone)
	}()
	for newcomers := 0; ; newcomers++ {
		select {
		case <-gone:
			if newcomers == 0 {
				t.Error("the holders left by themselves")
			}
			return
		default:
			if got := ask(t, dial(t, s)); got != http.StatusOK {
				t.Fatalf("a new connection: %d", got)
			}
		}
	}
}

func TestAHandshakeThatStallsMakesRoom(t *testing.T) {
	t.Parallel()
	o := options(readAll)
	o.Config.MaxConnections = 1
	p := newPair(t)
	p.write(t, "x")
	o.Config.TLS.CertFile, o.Config.TLS.KeyFile = p.cert, p.key
	s := start(t, o)
	holder := dial(t, s)
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: p.clientConfig(), ForceAttemptHTTP2: true}}
	t.Cleanup(c.CloseIdleConnections)
	for range 2 { // the second is another request on one HTTP/2 connection
		res, err := c.Get(strings.Replace(s.url("/"), "http:", "https:", 1))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.ProtoMajor != 2 {
			t.Errorf("HTTP/%d", res.ProtoMajor)
		}
	}
	_, _ = io.Copy(io.Discard, holder) // ends when it is closed

	third := dial(t, s) // the idle HTTP/2 connection makes room for it
	if _, err := io.WriteString(third, "no TLS"); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, third)
}

func TestARequestAtWorkKeepsItsConnection(t *testing.T) {
	t.Parallel()
	const room = 3
	var atWork, most atomic.Int32
	begun, release := make(chan struct{}, 2*room), make(chan struct{})
	o := options(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return // a newcomer that had to wait for too long
		}
		n := atWork.Add(1)
		defer atWork.Add(-1)
		for old := most.Load(); n > old; old = most.Load() {
			most.CompareAndSwap(old, n)
		}
		begun <- struct{}{}
		<-release
		_, _ = io.WriteString(w, "done")
	})
	o.Config.MaxConnections = room
	s := start(t, o)
	var asking sync.WaitGroup
	for i := range room {
		asking.Go(func() {
			res, err := client(t).Post(s.url("/"), "text/plain", strings.NewReader(strings.Repeat("x", i))) // one without a body
			if err != nil {
				t.Errorf("request %d: %v", i, err)
				return
			}
			defer res.Body.Close()
			if text, err := io.ReadAll(res.Body); err != nil || string(text) != "done" {
				t.Errorf("request %d: %q %v", i, text, err)
			}
		})
		<-begun
	}
	newcomers := []net.Conn{dial(t, s), dial(t, s), dial(t, s)}
	for _, conn := range newcomers {
		if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
	}
	close(release)
	asking.Wait()
	for _, conn := range newcomers {
		_, _ = io.Copy(io.Discard, conn)
	}
	if got := most.Load(); got != room {
		t.Errorf("%d requests at work at once, want %d", got, room)
	}
}

// TestConnectionsThatEndGiveBackTheirRoom opens and closes far more connections
// than there is room for, in every way a connection ends.
func TestConnectionsThatEndGiveBackTheirRoom(t *testing.T) {
	t.Parallel()
	const room = 4
	o := options(readAll)
	o.Config.MaxConnections = room
	s := start(t, o)
	for i := range 4 * room {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", s.api[0].String())
		if err != nil {
			t.Fatal(err)
		}
		switch i % 4 {
		case 0: // without a word
		case 1:
			_, _ = io.WriteString(conn, "no HTTP\r\n\r\n")
		case 2:
			_, _ = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf")
		case 3:
			_, _ = fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
			_, _ = io.Copy(io.Discard, conn)
		}
		conn.Close()
	}
	if got := ask(t, dial(t, s)); got != http.StatusOK {
		t.Errorf("after all have gone: %d", got)
	}
}

func TestANewConnectionThatWaitsForRoomDoesNotHoldUpTheEnd(t *testing.T) {
	t.Parallel()
	begun, release := make(chan struct{}), make(chan struct{})
	o := options(func(w http.ResponseWriter, r *http.Request) {
		close(begun)
		<-release
	})
	o.Config.MaxConnections = 1
	s := start(t, o)
	first, second := dial(t, s), dial(t, s)
	if _, err := io.WriteString(first, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-begun
	s.stop()
	close(s.abort)
	_, _ = io.Copy(io.Discard, second) // the listener closes before the request is done
	close(release)
	if err := <-s.ended; err != nil {
		t.Error(err)
	}
}
