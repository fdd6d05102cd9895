package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// adminGrace is how long an admin request in flight may take at the very end.
const adminGrace = time.Second

// errBudget is the reason for which a request ends after the shutdown budget.
var errBudget = errors.New("the service stopped before the request was done")

// Options are what a service is made of.
type Options struct {
	// Name and Version are told by /version.
	Name, Version string
	// Config says where to listen. It must pass Validate.
	Config Config
	// Logger receives what happens to the listeners.
	Logger *slog.Logger
	// Handler is the API. It is asked for all paths but /health, /ready and
	// /version.
	Handler http.Handler
	// Gatherer has the metrics for the admin listener.
	Gatherer prometheus.Gatherer
	// Registerer, unless nil, receives the metric of the certificate, if there is one.
	Registerer prometheus.Registerer
	// Ready are the checks behind /ready.
	Ready []Check
	// Workers run in the background from the start until the last request has
	// been answered. Each must return when its context ends; its error before
	// that stops the service.
	Workers []func(context.Context) error
	// Abort, when it is closed or sent on, ends the drain delay: the second
	// signal of an impatient operator. It may be nil.
	Abort <-chan struct{}
	// OnListen, unless nil, is told the addresses when all listeners are open;
	// admin is nil without an admin listener.
	OnListen func(api []net.Addr, admin net.Addr)
}

// Run listens and serves until ctx ends, then drains: /ready says no and
// connections are not kept alive for Config.DrainDelay; then the listeners close
// and requests in flight have what is left of Config.StopWithin to finish; then the workers
// are stopped and waited for.
//
// It returns nil after a complete drain, and an error when it cannot listen
// (naming the address), when a listener or worker fails, or when requests had to
// be cut off: then their contexts end, and their handlers are not waited for.
func Run(ctx context.Context, o Options) error {
	r := &runner{o: o, health: NewHealth(o.Logger, o.Ready...)}
	if err := r.open(ctx); err != nil {
		return errors.Join(err, r.closeListeners())
	}
	r.failed = make(chan error, len(r.listeners)+len(o.Workers))

	// Requests and workers outlive ctx: both go on during the drain.
	base, cut := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cut(nil)
	workers, stopWorkers := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWorkers()

	var serving, working sync.WaitGroup
	for _, l := range r.listeners {
		l.server.BaseContext = func(net.Listener) context.Context { return base }
		serving.Go(func() { r.serve(l) })
	}
	for _, work := range o.Workers {
		working.Go(func() {
			if err := work(workers); err != nil && workers.Err() == nil {
				r.failed <- fmt.Errorf("background worker: %w", err)
			}
		})
	}
	r.announce()

	err := r.wait(ctx)
	err = errors.Join(err, r.shutdown(cut)) // no request is lost to another listener's failure
	serving.Wait()
	stopWorkers()
	working.Wait()
	return err
}

// runner is one run of a service.
type runner struct {
	o         Options
	health    *Health
	listeners []*listener
	failed    chan error // has room for one error of each sender
}

// listener is one open address.
type listener struct {
	net.Listener

	address string
	admin   bool
	tls     bool
	server  *http.Server
}

// announce tells the addresses.
func (r *runner) announce() {
	var api []net.Addr
	var admin net.Addr
	for _, l := range r.listeners {
		r.o.Logger.Info("listening", "address", l.Addr().String(), "admin", l.admin, "tls", l.tls)
		if l.admin {
			admin = l.Addr()
		} else {
			api = append(api, l.Addr())
		}
	}
	if r.o.OnListen != nil {
		r.o.OnListen(api, admin)
	}
}

// serve serves l until it is shut down.
func (r *runner) serve(l *listener) {
	var err error
	if l.tls {
		err = l.server.ServeTLS(l, "", "") // the certificate is in the TLS config
	} else {
		err = l.server.Serve(l)
	}
	if !errors.Is(err, http.ErrServerClosed) {
		r.failed <- fmt.Errorf("serve on %s: %w", l.address, err)
	}
}

// wait returns after the drain delay that follows the end of ctx, or at once
// with the error of a listener or worker that failed.
func (r *runner) wait(ctx context.Context) error {
	select {
	case err := <-r.failed:
		r.health.Drain()
		return err
	case <-ctx.Done():
	}
	r.health.Drain()
	r.o.Logger.InfoContext(ctx, "draining", "delay", r.o.Config.drainDelay())
	delay := time.NewTimer(r.o.Config.drainDelay())
	defer delay.Stop()
	select {
	case <-delay.C:
	case <-r.o.Abort:
	case err := <-r.failed:
		return err
	}
	return nil
}

// shutdown closes the API listeners, waits for their requests within the budget,
// and closes the admin listener last, so that the drain can be watched.
func (r *runner) shutdown(cut context.CancelCauseFunc) error {
	budget := r.o.Config.stopBudget()
	r.o.Logger.Info("shutting down", "budget", budget)
	err := r.shutdownAll(false, budget, cut)
	if err != nil {
		err = fmt.Errorf("requests in flight were cut off after %s: %w", budget, err)
	}
	// An admin request that does not end in time, such as a CPU profile, is no
	// loss worth an error.
	_ = r.shutdownAll(true, adminGrace, cut)
	return err
}

// shutdownAll shuts the API or admin servers down side by side. It cuts off what
// is not done within the budget.
func (r *runner) shutdownAll(admin bool, budget time.Duration, cut context.CancelCauseFunc) error {
	ctx, cancel := context.WithTimeout(context.Background(), budget)
	defer cancel()
	errs := make([]error, len(r.listeners))
	var wg sync.WaitGroup
	for i, l := range r.listeners {
		if l.admin != admin {
			continue
		}
		wg.Go(func() {
			if errs[i] = l.server.Shutdown(ctx); errs[i] != nil {
				cut(errBudget)       // so that requests learn why
				_ = l.server.Close() // closes connections that are to be cut anyway
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
