// Command identity is a Matrix Identity Service: it proves that people own an
// email address or telephone number, binds it to their Matrix ID and answers
// lookups.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
)

// version is set by the linker.
var version = "devel"

// gcPercent lets the heap grow to five times what is alive before it is
// collected. What is alive is a few MB, so this costs little memory and saves a
// lookup of a thousand hashes a tenth of its time. The environment variable GOGC
// overrides it.
const gcPercent = 400

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
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
