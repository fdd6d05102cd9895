package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/internal/cmdline"
	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/internal/serve"
	"github.com/matrix-herald/herald/push"
)

// check reports every fault of the configuration and of the files it names.
func (p *program) check(f cmdline.Line) error {
	cfg, err := readConfig(f.Config, p.environ)
	if cfg == nil {
		return err
	}
	errs := []error{err}
	if err == nil && len(cfg.Apps) == 0 && !f.Dev {
		errs = append(errs, errNoApps)
	}
	roots, err := loadRoots(cfg.CAFile)
	errs = append(errs, err, cfg.HTTP.TLS.Check("http.tls"))
	log := slog.New(slog.DiscardHandler)
	registry := prometheus.NewRegistry()
	_, closeLedger, err := openLedger(cfg, log, push.NewMetrics(registry, false), registry)
	if err != nil {
		errs = append(errs, err)
	} else {
		closeLedger()
	}
	shared := newConnections(cfg, roots, log, func(next http.RoundTripper) http.RoundTripper { return next })
	defer shared.close()
	for _, name := range cfg.appNames() {
		var faults conf.Problems
		if cfg.Apps[name].validate("", &faults); faults.Len() > 0 {
			continue // they are in the list already
		}
		_, release, err := openApp(name, cfg.Apps[name], shared)
		if err != nil {
			errs = append(errs, fmt.Errorf("apps[%q]: %w", name, err))
			continue
		}
		release()
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.stdout, "The configuration is good: %d apps.\n", len(cfg.Apps))
	return err
}

// health asks the running service how it is. Only where that listens matters:
// whatever else is wrong in the file by now, the service may run on.
func (p *program) health(ctx context.Context, f cmdline.Line) error {
	cfg, err := readConfig(f.Config, p.environ)
	if cfg == nil {
		return err
	}
	return serve.CheckHealth(ctx, cfg.HTTP.HealthTarget())
}

// loadRoots returns the system's certificate authorities and those of file;
// nil, which stands for the system's, when there is no file.
func loadRoots(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("ca_file: name a file with certificates in PEM form: %w", err)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, errors.New("ca_file: name a file with certificates in PEM form: there is none in it")
	}
	return roots, nil
}
