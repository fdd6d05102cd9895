package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/matrix-herald/herald/push/pushtest"
)

// manners are what a client does with a connection before it waits for its end.
// begun tells that it is there.
type manners func(ctx context.Context, conn net.Conn, begun func()) error

// drip sends a text, a byte every so often.
func drip(text string, every time.Duration) manners {
	return func(ctx context.Context, conn net.Conn, begun func()) error {
		turns := time.NewTicker(every)
		defer turns.Stop()
		for i := range len(text) {
			if _, err := io.WriteString(conn, text[i:i+1]); err != nil {
				return err
			}
			begun()
			select {
			case <-turns.C:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	}
}

// bad returns the manners of clients that hold connections to notify at host.
func bad(host string, every time.Duration) map[string]manners {
	head := fmt.Sprintf("POST /_matrix/push/v1/notify HTTP/1.1\r\nHost: %s\r\nContent-Length: ", host)
	say := func(text string) manners {
		return func(_ context.Context, conn net.Conn, begun func()) error {
			defer begun()
			_, err := io.WriteString(conn, text)
			return err
		}
	}
	slow := drip(`{"a":"`+strings.Repeat("x", 512<<10), every)
	return map[string]manners{
		"silent":       say(""),
		"idle":         say(head + "2\r\n\r\n{}"),
		"slow headers": drip(head+"2\r\nX-Slow: "+strings.Repeat("x", 512<<10), every),
		"slow body": func(ctx context.Context, conn net.Conn, begun func()) error {
			if _, err := fmt.Fprintf(conn, "%s%d\r\n\r\n", head, 512<<10); err != nil {
				return err
			}
			return slow(ctx, conn, begun)
		},
	}
}

// crowd is many clients that hold connections, and come back when those end.
type crowd struct {
	Count int // of clients
	open  atomic.Int64
	leave context.CancelFunc
	all   sync.WaitGroup
}

// startCrowd returns when all clients have begun, or as many as there is room for
// files. They leave with the test at the latest.
func startCrowd(tb testing.TB, host string, count int, again time.Duration, behave manners) *crowd {
	tb.Helper()
	const reserve = 1000 // files for everything else
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		tb.Fatal(err)
	}
	ctx, leave := context.WithCancel(context.WithoutCancel(tb.Context()))
	c := &crowd{Count: min(count, int(min(files.Max, 1<<20))-reserve), leave: leave}
	dialing, begun := make(chan struct{}, 100), make(chan struct{}, c.Count)
	for i := range c.Count {
		from := &net.TCPAddr{IP: net.IPv4(127, 0, 2, byte(1+i%200))}
		c.all.Go(func() {
			first := sync.OnceFunc(func() { begun <- struct{}{} })
			for ctx.Err() == nil {
				dialing <- struct{}{} // no more at once than a listener has room for
				conn, err := (&net.Dialer{LocalAddr: from}).DialContext(ctx, "tcp", host)
				<-dialing
				if err == nil {
					c.hold(ctx, conn, behave, first)
				}
				select {
				case <-ctx.Done():
				case <-time.After(again):
				}
			}
		})
	}
	tb.Cleanup(c.stop)
	for range c.Count {
		<-begun
	}
	return c
}

func (c *crowd) hold(ctx context.Context, conn net.Conn, behave manners, begun func()) {
	c.open.Add(1)
	defer c.open.Add(-1)
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	defer conn.Close()
	if behave(ctx, conn, begun) == nil {
		_, _ = io.Copy(io.Discard, conn)
	}
}

func (c *crowd) stop() {
	c.leave()
	c.all.Wait()
}

// TestTenThousandIdleConnections has nothing to say about time: every request
// that is made beside them, on connections old and new, is answered.
func TestTenThousandIdleConnections(t *testing.T) { // not parallel: others would wait for the machine
	s := startServices(t, pushtest.APNsOptions{}, pushtest.FCMOptions{})
	s.speakPlainHTTP(t)
	g := startGateway(t, s.client, "-config", s.config)
	host := strings.TrimPrefix(g.API, "http://")
	silent := startCrowd(t, host, 8000, time.Second, bad(host, time.Second)["silent"])
	idle := startCrowd(t, host, 2000, time.Second, bad(host, time.Second)["idle"])
	g.deliverSome(t, "beside the crowd", 0)
	if silent.open.Load() == 0 || idle.open.Load() == 0 {
		t.Error("nobody was there")
	}
	silent.stop()
	idle.stop()
	g.deliverSome(t, "after the crowd has gone", 0)
}

// TestMoreConnectionsThanFilesAreNoTrouble gives the gateway room for 256 files
// and lets more clients than that hold connections in silence. A new connection
// that is closed among theirs is opened again, as a homeserver does.
func TestMoreConnectionsThanFilesAreNoTrouble(t *testing.T) {
	t.Parallel()
	s := startServices(t, pushtest.APNsOptions{}, pushtest.FCMOptions{})
	s.speakPlainHTTP(t)
	g := startGatewayAs(t, s.client, func(name string) *exec.Cmd {
		return exec.Command("sh", "-c", `ulimit -n 256 && exec "$0" -config "$1"`, name, s.config)
	})
	host := strings.TrimPrefix(g.API, "http://")
	startCrowd(t, host, 400, 100*time.Millisecond, bad(host, time.Second)["silent"])
	g.Await(t, "connections are at their bound")
	g.deliverSome(t, "among the silent", 5)
}

// deliverSome has notifications delivered over connections old and new. One that
// meets a connection that ends is sent again, this often at most.
func (g *gateway) deliverSome(t *testing.T, when string, again int) {
	t.Helper()
	fresh := *g
	fresh.client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for i := range 5 {
		for how, through := range map[string]*gateway{"kept": g, "new": &fresh} {
			body := fmt.Sprintf(`{"notification":{"event_id":"$%d %s %s","type":"m.room.message","devices":[{"app_id":%q,"pushkey":%q}]}}`,
				i, how, when, iosApp, iosKey(i))
			status, answer, err := through.notify(t.Context(), body)
			for left := again; err != nil && left > 0; left-- {
				status, answer, err = through.notify(t.Context(), body)
			}
			if err != nil || status != http.StatusOK {
				t.Fatalf("%s, on a %s connection: %d %s %v", when, how, status, answer, err)
			}
		}
	}
}
