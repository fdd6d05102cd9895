// Command identity is a Matrix Identity Service: it proves that people own an
// email address or telephone number, binds it to their Matrix ID and answers
// lookups.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// version is set by the linker.
var version = "devel"

func main() {
	ctx, cancel := context.WithCancel(context.Background())
	stop := make(chan os.Signal, 2)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	abort := make(chan struct{})
	go func() { // until the process ends
		<-stop
		cancel()
		<-stop
		close(abort) // the second signal of an impatient operator
	}()
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP) // or the signal would end the service

	p := program{stdout: os.Stdout, stderr: os.Stderr, environ: os.Environ(), abort: abort, hangup: hangup}
	os.Exit(p.run(ctx, os.Args[1:]))
}
