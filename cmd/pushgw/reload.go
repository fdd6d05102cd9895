package main

import (
	"context"
	"log/slog"
	"os"
	"reflect"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/push"
)

// reloader replaces the apps when their configuration or a key file changes. A
// configuration that is wrong in any way changes nothing.
type reloader struct {
	file    string
	environ []string
	log     *slog.Logger
	shared  *connections
	gateway *push.Gateway
	// good is 1, or 0 after a configuration was refused.
	good prometheus.Gauge

	mu   sync.Mutex
	cfg  *Config
	apps *appSet
}

// workers returns what has to run beside the servers.
func (r *reloader) workers(dev bool, signals <-chan os.Signal) []func(context.Context) error {
	if dev {
		return nil // there are no keys
	}
	return []func(context.Context) error{
		func(ctx context.Context) error {
			conf.Watch(ctx, r.cfg.ReloadInterval.Std(), r.files, func() { r.reload(ctx, "a key file changed") })
			return nil
		},
		func(ctx context.Context) error {
			conf.WatchLoss(ctx, r.cfg.ReloadInterval.Std(), r.allFiles, func(err error) {
				r.log.WarnContext(ctx, "a file that is in use cannot be read any more: the next reload or start will fail", "err", err)
			})
			return nil
		},
		func(ctx context.Context) error {
			for {
				select {
				case <-ctx.Done():
					return nil
				case <-signals:
					r.reload(ctx, "signal")
				}
			}
		},
	}
}

// allFiles lists the files without which the service does not start again.
func (r *reloader) allFiles() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append(conf.Files(r.cfg), r.file)
}

// newReloadGauge tells whether the last configuration that was read is in use.
func newReloadGauge(reg prometheus.Registerer) prometheus.Gauge {
	good := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "herald_push_config_last_reload_successful",
		Help: "1, or 0 after a new configuration was refused and the old one stayed in use.",
	})
	good.Set(1)
	reg.MustRegister(good)
	return good
}

// files lists the files whose change makes a reload necessary.
func (r *reloader) files() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return conf.Files(&struct {
		Apps map[string]App `yaml:"apps"`
	}{r.cfg.Apps})
}

func (r *reloader) reload(ctx context.Context, why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	cfg, err := loadConfig(r.file, r.environ)
	var apps *appSet
	if err == nil && len(cfg.Apps) == 0 {
		err = errNoApps
	}
	if err == nil {
		apps, err = openApps(cfg, r.shared)
	}
	if err != nil {
		r.good.Set(0)
		r.log.ErrorContext(ctx, "new configuration refused, the old one stays in use", "why", why, "err", err)
		return
	}
	r.good.Set(1)
	r.gateway.SetApps(apps.apps)
	// Deliveries under way still use the old providers; none lasts longer than
	// a request.
	time.AfterFunc(r.cfg.HTTP.RequestTimeout.Std()+time.Second, r.apps.closeAll)
	r.cfg.Apps, r.apps = cfg.Apps, apps
	cfg.RootCAs, cfg.Redis.RootCAs = r.cfg.RootCAs, r.cfg.RootCAs // they are not compared by what is in them
	if !reflect.DeepEqual(cfg, r.cfg) {
		r.log.WarnContext(ctx, "options outside apps changed: restart to use them")
	}
	r.log.InfoContext(ctx, "apps reloaded", "why", why, "apps", len(cfg.Apps))
}
