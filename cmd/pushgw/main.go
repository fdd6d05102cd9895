// Command pushgw is a Matrix Push Gateway: it takes notifications from
// homeservers and delivers them to phones through APNs and FCM.
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
// fifth of the CPU time. The environment variable GOGC overrides it.
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
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)

	p := program{stdout: os.Stdout, stderr: os.Stderr, environ: os.Environ(), abort: abort, reload: reload}
	os.Exit(p.run(ctx, os.Args[1:]))
}
