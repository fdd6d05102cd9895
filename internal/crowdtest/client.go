package crowdtest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// life is the longest that a crowd stays.
	life = 5 * time.Minute
	// dialers bounds the connections being opened at once, below the backlog of
	// a listener.
	dialers = 100
	// deafPauses is how many pauses lie between two requests of a deaf client.
	deafPauses = 20
	// bodyLength is what a slow body promises.
	bodyLength = 512 << 10
)

// crowd is the process.
type crowd struct {
	o       Options
	dialing chan struct{}
	open    atomic.Int64
	ended   atomic.Int64
}

// run lets the clients loose until standard input ends.
func run(o Options) error {
	ctx, cancel := context.WithTimeout(context.Background(), life)
	defer cancel()
	c := &crowd{o: o, dialing: make(chan struct{}, dialers)}
	var together, clients sync.WaitGroup
	together.Add(o.Count)
	for range o.Count {
		clients.Go(func() {
			var once sync.Once
			arrived := func() { once.Do(together.Done) }
			defer arrived()
			for ctx.Err() == nil {
				c.visit(ctx, arrived)
				c.pause(ctx)
			}
		})
	}
	together.Wait()
	fmt.Println("ready")
	left := make(chan struct{})
	go func() { // ends with the process at the latest
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(left)
	}()
	select {
	case <-left:
	case <-ctx.Done():
	}
	report := Report{Open: int(c.open.Load()), Ended: int(c.ended.Load())}
	cancel()
	clients.Wait()
	return json.NewEncoder(os.Stdout).Encode(report)
}

// pause waits for the next byte's turn and reports whether it has come.
func (c *crowd) pause(ctx context.Context) bool {
	timer := time.NewTimer(time.Duration(c.o.EveryMillis) * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// visit is one connection, from its beginning to the end that the service puts
// to it, or to that of ctx.
func (c *crowd) visit(ctx context.Context, arrived func()) {
	conn, err := c.dial(ctx)
	if err != nil {
		return
	}
	c.open.Add(1)
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer func() {
		stop()
		_ = conn.Close()
		c.open.Add(-1)
		if ctx.Err() == nil {
			c.ended.Add(1)
		}
	}()
	c.behave(ctx, conn, arrived)
}

// dial connects, with little room for what nobody reads.
func (c *crowd) dial(ctx context.Context) (net.Conn, error) {
	select {
	case c.dialing <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-c.dialing }()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", c.o.Addr)
	if err != nil {
		return nil, err
	}
	if tcp, ok := conn.(*net.TCPConn); ok && c.o.Manners == Deaf {
		err = tcp.SetReadBuffer(1)
	}
	return conn, err
}

// behave does what the manners say until the connection ends.
func (c *crowd) behave(ctx context.Context, conn net.Conn, arrived func()) {
	head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: ", c.o.Path, c.o.Addr)
	switch c.o.Manners {
	case Silent:
		arrived()
		untilTheEnd(conn)
	case Idle:
		if _, err := io.WriteString(conn, head+"2\r\n\r\n{}"); err != nil {
			return
		}
		if _, err := conn.Read(make([]byte, 1)); err != nil { // the answer begins
			return
		}
		arrived()
		untilTheEnd(conn)
	case SlowHeaders:
		c.drip(ctx, conn, head+"2\r\nX-Slow: "+strings.Repeat("x", bodyLength), arrived)
	case SlowBody:
		if _, err := fmt.Fprintf(conn, "%s%d\r\n\r\n", head, bodyLength); err != nil {
			return
		}
		c.drip(ctx, conn, `{"a":"`+strings.Repeat("x", bodyLength), arrived)
	case Deaf:
		request := head + "2\r\n\r\n{}"
		for {
			if _, err := io.WriteString(conn, request); err != nil {
				return
			}
			arrived()
			for range deafPauses { // many requests would be another attack
				if !c.pause(ctx) {
					return
				}
			}
		}
	}
}

// drip sends text a byte at a time.
func (c *crowd) drip(ctx context.Context, conn net.Conn, text string, arrived func()) {
	for i := range len(text) {
		if _, err := io.WriteString(conn, text[i:i+1]); err != nil {
			return
		}
		arrived()
		if !c.pause(ctx) {
			return
		}
	}
}

// untilTheEnd waits until the service ends the connection.
func untilTheEnd(conn net.Conn) {
	_, _ = io.Copy(io.Discard, conn)
}
