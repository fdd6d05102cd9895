package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/matrix-herald/herald/internal/cmdline"
	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/internal/serve"
)

// check says whether the configuration is good.
func (p *program) check(f cmdline.Line) error {
	cfg, err := p.checkedConfig(f)
	if err != nil {
		return err
	}
	for _, w := range cfg.Warnings {
		fmt.Fprintln(p.stderr, "warning:", w)
	}
	_, err = fmt.Fprintf(p.stdout, "The configuration is good: %d apps.\n", len(cfg.Apps))
	return err
}

// checkedConfig reads the configuration and reports every fault of it and of the
// files it names. It talks to nobody.
func (p *program) checkedConfig(f cmdline.Line) (*Config, error) {
	cfg, err := readConfig(f.Config, p.environ)
	if cfg == nil {
		return nil, err
	}
	errs := []error{err}
	if err == nil && len(cfg.Apps) == 0 && !f.Dev {
		errs = append(errs, errNoApps)
	}
	errs = append(errs, checkCertificates(cfg, slog.New(slog.DiscardHandler)))
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return cfg, nil
}

// checkCertificates opens the apps whose credentials are files that loading does
// not read. Opening one of FCM finds no further faults, and begins to ask for an
// access token.
func checkCertificates(cfg *Config, log *slog.Logger) error {
	shared := newConnections(cfg, log, func(next http.RoundTripper) http.RoundTripper { return next })
	defer shared.close()
	var errs []error
	for _, name := range cfg.appNames() {
		app := cfg.Apps[name]
		if app.APNs == nil || app.APNs.CertFile == "" {
			continue
		}
		var faults conf.Problems
		app.validate("", &faults)
		if unread := app.APNs.CertPasswordFile != "" && app.APNs.CertPassword == ""; unread || faults.Len() > 0 {
			continue // the faults are in the list already
		}
		_, release, err := openApp(name, app, shared)
		if err != nil {
			errs = append(errs, fmt.Errorf("apps[%q]: %w", name, err))
			continue
		}
		release()
	}
	return errors.Join(errs...)
}

// health asks the running service how it is. Only where that listens matters:
// whatever else is wrong in the file by now, the service may run on.
func (p *program) health(ctx context.Context, f cmdline.Line, args []string) error {
	if len(args) > 0 {
		fmt.Fprintln(p.stderr, "usage: pushgw -config FILE health")
		return cmdline.ErrUsage
	}
	cfg, err := readConfig(f.Config, p.environ)
	if cfg == nil {
		return err
	}
	return serve.CheckHealth(ctx, cfg.HTTP.HealthTarget())
}
