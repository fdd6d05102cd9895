package cmdline

import (
	"context"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
)

// GCPercent lets the heap grow to five times what is alive before it is
// collected. What is alive is a few MB, so this costs little memory; it saves a
// fifth of pushgw's CPU time and a tenth of a lookup of a thousand hashes.
const GCPercent = 400

// Signals are those that do not end the context.
type Signals struct {
	// Abort is closed by the second signal of an impatient operator.
	Abort <-chan struct{}
	// Hangup gets SIGHUP, which would end the process otherwise.
	Hangup <-chan os.Signal
}

// Main ends the process with the status that run returns. The context of run
// ends with SIGINT or SIGTERM. The garbage collector runs as GCPercent says
// unless the environment variable GOGC is set.
func Main(run func(context.Context, Signals) int) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(GCPercent)
	}
	ctx, cancel := context.WithCancel(context.Background())
	stop := make(chan os.Signal, 2)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	abort := make(chan struct{})
	go func() { // until the process ends
		<-stop
		cancel()
		<-stop
		close(abort)
	}()
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	os.Exit(run(ctx, Signals{Abort: abort, Hangup: hangup}))
}
