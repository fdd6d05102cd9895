package harness

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Profile is what each client of a load does with its connection.
type Profile string

// The profiles.
const (
	// Silent clients say nothing.
	Silent Profile = "silent"
	// Idle clients make one request and keep the connection.
	Idle Profile = "idle"
	// SlowHeaders clients send a request that never gets to its body, a byte at a
	// time.
	SlowHeaders Profile = "slow headers"
	// SlowBody clients send the headers at once and the body a byte at a time.
	SlowBody Profile = "slow body"
)

// Profiles are all of them.
var Profiles = []Profile{Silent, Idle, SlowHeaders, SlowBody}

// Load describes clients that hold connections.
type Load struct {
	// URL is what they POST to.
	URL string
	Profile
	// Count is how many they are; fewer if there is no room for so many files.
	Count int
	// Every is the time between two bytes, and before a client whose connection
	// has ended comes back.
	Every time.Duration
}

// Clients are the clients of a load.
type Clients struct {
	Count int
	// Open is how many are connected.
	Open  atomic.Int64
	load  Load
	host  string
	leave context.CancelFunc
	all   sync.WaitGroup
}

// StartLoad returns when all clients have said their first words. They leave with the
// test at the latest. They have two hundred addresses of the loopback interface.
func StartLoad(t testing.TB, l Load) *Clients {
	t.Helper()
	const reserve = 1000 // files for everything else
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	host, _, _ := strings.Cut(strings.TrimPrefix(l.URL, "http://"), "/")
	ctx, leave := context.WithCancel(context.WithoutCancel(t.Context()))
	c := &Clients{Count: min(l.Count, int(min(files.Max, 1<<20))-reserve), load: l, host: host, leave: leave}
	t.Cleanup(c.Leave)
	dialing, begun := make(chan struct{}, 100), make(chan struct{}, c.Count)
	for i := range c.Count {
		dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 2, byte(1+i%200))}}
		c.all.Go(func() {
			first := sync.OnceFunc(func() { begun <- struct{}{} })
			for next := true; next; next = wait(ctx, l.Every) {
				dialing <- struct{}{} // no more at once than a listener has room for
				conn, err := dialer.DialContext(ctx, "tcp", host)
				<-dialing
				if err == nil {
					c.hold(ctx, conn, first)
				}
			}
		})
	}
	for range c.Count {
		<-begun
	}
	return c
}

// Leave ends the load.
func (c *Clients) Leave() {
	c.leave()
	c.all.Wait()
}

// hold speaks as the profile has it, and waits until the service ends the
// connection.
func (c *Clients) hold(ctx context.Context, conn net.Conn, begun func()) {
	c.Open.Add(1)
	defer c.Open.Add(-1)
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	defer conn.Close()
	const long = 512 << 10 // it takes days to send so much
	_, path, _ := strings.Cut(c.load.URL, c.host)
	head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: ", path, c.host)
	once, slowly := "", ""
	switch c.load.Profile {
	case Idle:
		once = head + "2\r\n\r\n{}"
	case SlowHeaders:
		slowly = head + "2\r\nX-Slow: " + strings.Repeat("x", long)
	case SlowBody:
		once, slowly = fmt.Sprintf("%s%d\r\n\r\n", head, long), `{"a":"`+strings.Repeat("x", long)
	}
	_, err := io.WriteString(conn, once)
	begun()
	for i := 0; err == nil && i < len(slowly) && (i == 0 || wait(ctx, c.load.Every)); i++ {
		_, err = io.WriteString(conn, slowly[i:i+1])
	}
	if err == nil {
		_, _ = io.Copy(io.Discard, conn)
	}
}

// wait waits for d and reports whether ctx goes on.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
