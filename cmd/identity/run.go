package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/matrix-herald/herald/identity/homeserver"
	"github.com/matrix-herald/herald/internal/cmdline"
	"github.com/matrix-herald/herald/internal/serve"
	"github.com/matrix-herald/herald/internal/telemetry"
)

// program is one run of the command, with what it takes from the outside.
type program struct {
	stdout, stderr io.Writer
	environ        []string
	abort          <-chan struct{} // ends the drain delay
	hangup         <-chan os.Signal
	// listening, unless nil, is told the addresses once they answer.
	listening func(api []net.Addr, admin net.Addr)
	// registered, unless nil, is given the registry of the metrics at the start.
	registered func(*prometheus.Registry)
}

const usage = `identity is a Matrix Identity Service.

  identity                                  serve on 127.0.0.1:8090 with a database in ./identity-data
  identity -config identity.yaml            serve
  identity -dev                             try it: mails and text messages are shown, nothing is kept
  identity -config identity.yaml -check     check the configuration
  identity -config identity.yaml rotate-key [-compromised ID]
                                            sign with a new key, and declare another one compromised
  identity -config identity.yaml rotate-pepper
                                            replace the pepper of lookups now
  identity -config identity.yaml invites list [-addresses]
                                            show the invites that are kept, with addresses if need be
  identity -config identity.yaml invites cancel ID|TOKEN...
                                            take invites back
  identity -config identity.yaml why EMAIL|NUMBER|USER_ID [-unbind | -erase]
                                            tell what is kept of somebody, and remove it
  identity -config identity.yaml erase USER_ID
                                            remove everything of a person
  identity -config identity.yaml backup FILE, restore FILE
                                            copy a SQLite database with its keys, and put it back
  identity -config identity.yaml import-sydent -db sydent.db -conf sydent.conf
                                            bring over what a Sydent knows
  identity import-sydent -conf sydent.conf  print the configuration that takes the place of a Sydent's
  identity -config identity.yaml test-mail -to ADDRESS
  identity -config identity.yaml test-sms -to NUMBER
                                            send one message and show what the relay or the provider says
  identity -config identity.yaml doctor     ask database, Redis, mail relay, homeservers and the service's own URL
  identity -config identity.yaml health     exit with 0 if the running service is healthy

`

// run carries out the command line and returns the exit status.
func (p *program) run(ctx context.Context, args []string) int {
	c := cmdline.Program{Name: "identity", Usage: usage, Stderr: p.stderr, Dev: "development: show messages instead of sending them, and keep nothing"}
	return c.Run(args, func(f cmdline.Line) error { return p.dispatch(ctx, f) })
}

func (p *program) dispatch(ctx context.Context, f cmdline.Line) error {
	if f.Version {
		_, err := fmt.Fprintln(p.stdout, "identity", version)
		return err
	}
	if len(f.Args) == 0 {
		return p.serve(ctx, f)
	}
	switch name, args := f.Args[0], f.Args[1:]; name {
	case "rotate-key":
		return p.rotateKey(ctx, f, args)
	case "rotate-pepper":
		return p.rotatePepper(ctx, f, args)
	case "invites":
		return p.invites(ctx, f, args)
	case "why":
		return p.why(ctx, f, args)
	case "backup":
		return p.backup(ctx, f, args)
	case "restore":
		return p.restore(ctx, f, args)
	case "erase":
		return p.erase(ctx, f, args)
	case "import-sydent":
		return p.importSydent(ctx, f, args)
	case "test-mail":
		return p.testMail(ctx, f, args)
	case "test-sms":
		return p.testSMS(ctx, f, args)
	case "doctor":
		return p.doctor(ctx, f, args)
	case "health":
		return p.health(ctx, f, args)
	default:
		return cmdline.ErrUnknown
	}
}

func (p *program) serve(ctx context.Context, f cmdline.Line) error {
	if f.Check {
		return p.check(f)
	}
	cfg, err := loadConfig(f.Config, p.environ, f.Dev)
	if err != nil {
		return err
	}
	log, err := telemetry.NewLogger(p.stderr, cfg.Log)
	if err != nil {
		return err
	}
	registry := telemetry.NewRegistry("identity", version)
	if p.registered != nil {
		p.registered(registry)
	}
	tracer, stopTracing, err := telemetry.Tracing(ctx, cfg.Tracing, "identity", version, log)
	if err != nil {
		return err
	}
	defer telemetry.End(ctx, stopTracing, log)
	env := environment{log: log, reg: registry, tracer: tracer}
	if f.Dev {
		return p.serveDev(ctx, cfg, env)
	}
	made, err := newParts(cfg, env, newMessengers)
	if err != nil {
		return err
	}
	for _, w := range slices.Concat(cfg.warnings(), made.messengers.warnings) {
		log.WarnContext(ctx, "something is missing or risky", "what", w)
	}
	return p.serveWith(ctx, cfg, env, made, surroundings{
		prepare:  func(context.Context, *store) error { return nil },
		wrap:     func(api http.Handler) http.Handler { return api },
		workers:  []func(context.Context) error{watchFiles(cfg, f.Config, log, lookInterval)},
		announce: func() {},
	})
}

// serveWith serves until ctx ends.
func (p *program) serveWith(ctx context.Context, cfg *Config, env environment, made parts, around surroundings) (err error) {
	var provider trace.TracerProvider
	if cfg.Tracing.Endpoint != "" {
		provider = env.tracer.Provider()
	}
	db, err := openStore(ctx, cfg, provider)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	db.RegisterMetrics(env.reg)
	if err := around.prepare(ctx, db); err != nil {
		return err
	}
	servers, err := homeserver.New(made.homeservers)
	if err != nil {
		return err
	}
	defer servers.CloseIdleConnections()
	s, err := newService(ctx, cfg, db, made.messengers, servers, env)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.closeRedis()) }()
	announceLimits(ctx, cfg, env.log)
	handler, err := newHandler(cfg, s, made.pages, env)
	if err != nil {
		return err
	}
	return serve.Run(ctx, serve.Options{
		Name: "identity", Version: version, Config: cfg.HTTP, Logger: env.log,
		Handler: env.tracer.Handler(around.wrap(handler)), Gatherer: env.reg, Registerer: env.reg,
		Ready:   []serve.Check{{Name: "database", Probe: db.Try}},
		Workers: append(around.workers, s.sessions.Run, s.accounts.Run, s.peppers.Run, s.invites.Run, s.told.Run, p.answerHangups(env.log)),
		Abort:   p.abort,
		OnListen: func(api []net.Addr, admin net.Addr) {
			around.announce()
			if p.listening != nil {
				p.listening(api, admin)
			}
		},
	})
}
