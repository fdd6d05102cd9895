package main

import (
	"context"
	"io"
	"net"
	"testing"

	"github.com/matrix-herald/herald/internal/cmdtest"
)

func TestARequestThatStallsIsAnsweredWith408(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	listening, code := make(chan string, 1), make(chan int, 1)
	p := program{
		stdout: io.Discard, stderr: io.Discard,
		environ:   []string{"PUSHGW_HTTP_LISTEN=127.0.0.1:0", "PUSHGW_HTTP_ADMIN_LISTEN=", "PUSHGW_HTTP_DRAIN_DELAY=0s", "PUSHGW_HTTP_READ_TIMEOUT=300ms"},
		listening: func(api []net.Addr, _ net.Addr) { listening <- api[0].String() },
	}
	go func() { code <- p.run(ctx, []string{"-dev"}) }()
	t.Cleanup(func() { stop(); <-code })
	cmdtest.TestStall(t, <-listening, "/_matrix/push/v1/notify")
}

// Conformance (pushgw): whoever reads the log may end: the service does not
func TestADeadLogReaderStopsNothing(t *testing.T) {
	t.Parallel()
	cmdtest.TestDeadLogReader(t, envPrefix)
}
