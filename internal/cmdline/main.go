package cmdline

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// Signals are those that do not end the context.
type Signals struct {
	// Abort is closed by the second signal of an impatient operator.
	Abort <-chan struct{}
	// Hangup gets SIGHUP, which would end the process otherwise.
	Hangup <-chan os.Signal
}

// Main ends the process with the status that run returns. The context of run
// ends with SIGINT or SIGTERM.
func Main(run func(context.Context, Signals) int) {
	SaveMemory()
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
