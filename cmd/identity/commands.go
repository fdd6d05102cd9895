package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/identity/sqlstore"
	"github.com/matrix-herald/herald/internal/cmdline"
	"github.com/matrix-herald/herald/internal/serve"
	"github.com/matrix-herald/herald/internal/telemetry"
)

// health exits with 0 if the running service is healthy.
func (p *program) health(ctx context.Context, f cmdline.Line, args []string) error {
	if len(args) > 0 {
		fmt.Fprintln(p.stderr, "usage: identity -config FILE health")
		return cmdline.ErrUsage
	}
	cfg, err := readConfig(f.Config, p.environ, false)
	if cfg == nil {
		return err
	}
	return serve.CheckHealth(ctx, cfg.HTTP.HealthTarget())
}

// rotateKey makes a new signing key, and declares another one compromised if it
// is asked to. It works beside running servers.
func (p *program) rotateKey(ctx context.Context, f cmdline.Line, args []string) error {
	set := flag.NewFlagSet("rotate-key", flag.ContinueOnError)
	set.SetOutput(p.stderr)
	compromised := set.String("compromised", "", "`ID` of a key, such as ed25519:1: nothing it signed is valid any more")
	switch err := set.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return err
	case err != nil || set.NArg() > 0:
		fmt.Fprintln(p.stderr, "usage: identity -config FILE rotate-key [-compromised ID]")
		return cmdline.ErrUsage
	}
	return p.withStore(ctx, f, func(_ *Config, db *store, env environment) (err error) {
		lost := false
		if file, ok := db.keys.(*sqlstore.KeyFile); ok && *compromised == "" {
			if lost, err = file.ForgetLost(ctx); err != nil {
				return err
			}
		}
		keys, err := openKeyring(ctx, db, env.log)
		switch {
		case err != nil:
			return err
		case *compromised != "":
			err = keys.Compromise(ctx, *compromised)
		case !lost: // else this one is new
			_, err = keys.Rotate(ctx)
		}
		if errors.Is(err, identity.ErrNoKey) {
			return fmt.Errorf("the service has no signing key %q", *compromised)
		}
		if err != nil {
			return err
		}
		active, err := keys.Active(ctx)
		if err != nil {
			return err
		}
		if *compromised != "" {
			fmt.Fprintf(p.stdout, "Nothing signed with %s is valid any more.\n", *compromised)
		}
		_, err = fmt.Fprintf(p.stdout, "Signing with %s; running servers follow within a minute.\n", active.ID())
		return err
	})
}

// rotatePepper replaces the lookup pepper now. It works beside running servers.
func (p *program) rotatePepper(ctx context.Context, f cmdline.Line, args []string) error {
	if len(args) > 0 {
		fmt.Fprintln(p.stderr, "usage: identity -config FILE rotate-pepper")
		return cmdline.ErrUsage
	}
	return p.withStore(ctx, f, func(_ *Config, db *store, env environment) error {
		peppers, err := openPeppers(ctx, db, env.log, identity.NewMetrics(env.reg))
		if err != nil {
			return err
		}
		if err := peppers.Rotate(ctx, newProgress(p.stderr, env.log)); err != nil {
			return stopped(ctx, err)
		}
		_, err = fmt.Fprintf(p.stdout, "The lookup pepper is a new one; the old one is honoured for another %s.\n", identity.DefaultPepperGrace)
		return err
	})
}

// withStore runs do with the database of the configuration. It makes none: a
// command that is run in the wrong folder must not seem to succeed.
func (p *program) withStore(ctx context.Context, f cmdline.Line, do func(*Config, *store, environment) error) (err error) {
	cfg, err := loadConfig(f.Config, p.environ, false)
	if err != nil {
		return err
	}
	if !cfg.usesPostgres() {
		if _, err := os.Stat(cfg.Database.Path); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("there is no database %s: name the service's configuration with -config", cfg.Database.Path)
		}
	}
	log, err := telemetry.NewLogger(p.stderr, cfg.Log)
	if err != nil {
		return err
	}
	db, err := openStore(ctx, cfg, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return do(cfg, db, environment{log: log, reg: prometheus.NewRegistry()})
}
