package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/internal/cmdline"
	"github.com/matrix-herald/herald/internal/redisconn"
	"github.com/matrix-herald/herald/internal/serve"
	"github.com/matrix-herald/herald/internal/telemetry"
	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/health"
	"github.com/matrix-herald/herald/push/sygnal"
)

// program is one run of the command, with what it takes from the outside.
type program struct {
	stdout, stderr io.Writer
	environ        []string
	abort          <-chan struct{}  // ends the drain delay
	reload         <-chan os.Signal // asks for the configuration to be read again
	// listening, unless nil, is told the addresses once they answer.
	listening func(api []net.Addr, admin net.Addr)
	// registered, unless nil, is given the registry of the metrics at the start.
	registered func(*prometheus.Registry)
}

const usage = `pushgw is a Matrix Push Gateway for APNs, FCM, Web Push and UnifiedPush.

  pushgw -config pushgw.yaml            serve
  pushgw -dev                           serve any app and print what a phone would show
  pushgw -config pushgw.yaml -check     check the configuration
  pushgw -config pushgw.yaml test-push -app APP_ID -pushkey PUSHKEY [-data JSON]
  pushgw -config pushgw.yaml doctor [URL]
                                        ask Redis, the push services and pushgw's own URL, and say what they answer
  pushgw vapid new                      print a new key for Web Push
  pushgw vapid show FILE                print the keys that web pages subscribe with (applicationServerKey)
  pushgw import-sygnal sygnal.yaml      print the configuration that replaces a Sygnal
  pushgw -config pushgw.yaml health     exit with 0 if the running service is healthy

`

// run carries out the command line and returns the exit status.
func (p *program) run(ctx context.Context, args []string) int {
	c := cmdline.Program{Name: "pushgw", Usage: usage, Stderr: p.stderr, Dev: "development: accept every app_id and print instead of pushing"}
	return c.Run(args, func(f cmdline.Line) error { return p.dispatch(ctx, f) })
}

func (p *program) dispatch(ctx context.Context, f cmdline.Line) error {
	if f.Version {
		_, err := fmt.Fprintln(p.stdout, "pushgw", version)
		return err
	}
	if len(f.Args) == 0 {
		return p.serve(ctx, f)
	}
	switch name, args := f.Args[0], f.Args[1:]; name {
	case "import-sygnal":
		return p.importSygnal(args)
	case "vapid":
		return p.vapid(args)
	case "test-push":
		return p.testPush(ctx, f, args)
	case "doctor":
		return p.doctor(ctx, f, args)
	case "health":
		return p.health(ctx, f, args)
	default:
		return cmdline.ErrUnknown
	}
}

var errNoApps = errors.New("no apps are configured, and answering for none would make homeservers hold back or delete real pushers: " +
	"name a configuration with -config (pushgw.example.yaml shows all options), or try pushgw without any by -dev")

// servedConfig reads the configuration of a server.
func (p *program) servedConfig(f cmdline.Line) (*Config, error) {
	if !f.Dev {
		return p.checkedConfig(f)
	}
	cfg, err := loadConfig(f.Config, p.environ)
	if err != nil {
		return nil, err
	}
	cfg.dev()
	return cfg, nil
}

func (p *program) serve(ctx context.Context, f cmdline.Line) error {
	if f.Check {
		return p.check(f)
	}
	cfg, err := p.servedConfig(f)
	if err != nil {
		return err
	}
	log, flush, err := telemetry.NewBufferedLogger(p.stderr, cfg.Log)
	if err != nil {
		return err
	}
	defer flush()
	for _, w := range cfg.Warnings {
		log.WarnContext(ctx, "something is missing or risky", "what", w)
	}
	registry := telemetry.NewRegistry("pushgw", version)
	if p.registered != nil {
		p.registered(registry)
	}
	tracer, stopTracing, err := telemetry.Tracing(ctx, cfg.Tracing, "pushgw", version, log)
	if err != nil {
		return err
	}
	shared := newConnections(cfg, log, tracer.Transport)
	defer shared.close()
	registry.MustRegister(shared)
	apps, err := p.firstApps(cfg, f.Dev, shared)
	if err != nil {
		return err
	}
	conn, err := openRedis(ctx, cfg, log, registry)
	if err != nil {
		return err
	}
	if conn != nil {
		defer func() { _ = conn.Close() }()
	}
	gateway, err := newGateway(cfg, apps.apps, conn, log, registry)
	if err != nil {
		return err
	}
	handler, err := newHandler(cfg, gateway, conn, log, registry)
	if err != nil {
		return err
	}
	r := &reloader{file: f.Config, environ: p.environ, log: log, shared: shared, gateway: gateway, good: newReloadGauge(registry), cfg: cfg, apps: apps}
	gatherer := prometheus.Gatherer(registry)
	if cfg.Metrics.SygnalNames {
		gatherer = sygnal.WithMetricNames(registry)
	}
	err = serve.Run(ctx, serve.Options{
		Name: "pushgw", Version: version, Config: cfg.HTTP, Logger: log, Handler: tracer.Handler(handler), Gatherer: gatherer, Registerer: registry,
		Workers: r.workers(f.Dev, p.reload), Abort: p.abort,
		OnListen: func(api []net.Addr, admin net.Addr) { p.announce(f, api, admin) },
	})
	telemetry.End(ctx, stopTracing, log)
	return err
}

// newGateway makes what delivers to apps. conn is where it remembers; nil is the
// process's own memory.
func newGateway(cfg *Config, apps *push.Apps, conn *redisconn.Conn, log *slog.Logger, reg prometheus.Registerer) (*push.Gateway, error) {
	remembered, err := newDedup(cfg, conn)
	if err != nil {
		return nil, err
	}
	return push.NewGateway(apps, push.Options{
		Log: log, Metrics: push.NewMetrics(reg), UnknownApp: cfg.UnknownApp, Dedup: remembered, Health: health.New(health.Options{}),
		AttemptTimeout: cfg.Delivery.AttemptTimeout.Std(), RetryWait: cfg.Delivery.RetryWait.Std(),
	})
}

// announce says on standard output what a developer can do now.
func (p *program) announce(f cmdline.Line, api []net.Addr, admin net.Addr) {
	if f.Dev {
		p.printExample(api)
	}
	if p.listening != nil {
		p.listening(api, admin)
	}
}
