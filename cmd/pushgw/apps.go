package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/internal/h2pool"
	"github.com/matrix-herald/herald/internal/outbound"
	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/apns"
	"github.com/matrix-herald/herald/push/fcm"
	"github.com/matrix-herald/herald/push/hms"
	"github.com/matrix-herald/herald/push/webpush"
)

// connections are what the apps share and what outlives a reload.
type connections struct {
	apns *apns.Connections
	fcm  *fcm.Connections
	hms  *hms.Connections
	web  *webpush.Connections
}

func newConnections(cfg *Config, log *slog.Logger, wrap func(http.RoundTripper) http.RoundTripper) *connections {
	proxy, _ := cfg.proxyURL() // validated
	opts := outbound.Options{Proxy: proxy, RootCAs: cfg.RootCAs, Log: log, Wrap: wrap}
	return &connections{apns.NewConnections(opts), fcm.NewConnections(opts), hms.NewConnections(opts), webpush.NewConnections(opts)}
}

// Describe implements prometheus.Collector.
func (c *connections) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect implements prometheus.Collector.
func (c *connections) Collect(ch chan<- prometheus.Metric) {
	for provider, s := range map[string]h2pool.Stats{"apns": c.apns.Stats(), "fcm": c.fcm.Stats()} {
		send := func(kind prometheus.ValueType, value float64, name, help string) {
			desc := prometheus.NewDesc("herald_push_"+name, help, []string{"provider"}, nil)
			ch <- prometheus.MustNewConstMetric(desc, kind, value, provider)
		}
		send(prometheus.GaugeValue, float64(s.Open+s.Draining), "connections", "Connections to the push service.")
		send(prometheus.GaugeValue, float64(s.InFlight), "streams", "Pushes on a connection.")
		send(prometheus.GaugeValue, float64(s.Waiting), "waiting", "Pushes that wait for a place on a connection.")
		send(prometheus.CounterValue, float64(s.Dials), "dials_total", "Attempts to connect to the push service.")
		send(prometheus.CounterValue, float64(s.DialFailures), "dial_failures_total", "Attempts to connect that failed.")
	}
}

func (c *connections) close() {
	c.apns.Close()
	c.fcm.Close()
	c.hms.Close()
	c.web.Close()
}

// appSet is one generation of apps, ready to deliver.
type appSet struct {
	apps  *push.Apps
	close []func()
}

// closeAll gives up the providers' shares of the connections.
func (s *appSet) closeAll() {
	for _, f := range s.close {
		f()
	}
}

// firstApps makes the apps of cfg, or the one that prints in development.
func (p *program) firstApps(cfg *Config, dev bool, shared *connections) (*appSet, error) {
	if dev {
		apps, err := push.NewApps([]push.App{{Name: "*", ProviderName: "dev", Provider: newPrinter(p.stdout), MaxInFlight: defaultConcurrency,
			PassOn: []string{"ciphertext", "ephemeral", "mac"}}})
		return &appSet{apps: apps}, err
	}
	return openApps(cfg, shared)
}

// openApps makes the apps of cfg. It reports the faults of all of them.
func openApps(cfg *Config, shared *connections) (*appSet, error) {
	set := new(appSet)
	var apps []push.App
	var errs []error
	for _, name := range cfg.appNames() {
		app, release, err := openApp(name, cfg.Apps[name], shared)
		if err != nil {
			errs = append(errs, fmt.Errorf("apps[%q]: %w", name, err))
			continue
		}
		apps = append(apps, app)
		set.close = append(set.close, release)
	}
	var err error
	if set.apps, err = push.NewApps(apps); err != nil {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		set.closeAll()
		return nil, err
	}
	return set, nil
}

func openApp(name string, a App, shared *connections) (push.App, func(), error) {
	app := push.App{Name: name, ProviderName: a.Type, MaxInFlight: a.concurrency(), PassOn: a.PassOn}
	switch {
	case a.APNs != nil:
		provider, err := shared.apns.Open(name, *a.APNs)
		if err != nil {
			return push.App{}, nil, err
		}
		app.Provider, app.Fingerprint, app.CertificateExpiry = provider, provider.Fingerprint(), provider.NotAfter()
		return app, provider.Close, nil
	case a.FCM != nil:
		provider, err := shared.fcm.Open(name, *a.FCM)
		if err != nil {
			return push.App{}, nil, err
		}
		app.Provider, app.Fingerprint = provider, provider.Fingerprint()
		if a.FCM.UnifiedPush {
			unified, err := shared.web.Open(name, a.unifiedPush(), a.concurrency())
			if err != nil {
				provider.Close()
				return push.App{}, nil, err
			}
			urls := app // Element X has one app_id for both
			urls.ProviderName, urls.Provider, urls.Fingerprint, urls.UnifiedPush = "unifiedpush", unified, unified.Fingerprint(), true
			app.URLs = &urls
		}
		return app, provider.Close, nil
	case a.HMS != nil:
		provider, err := shared.hms.Open(name, *a.HMS)
		if err != nil {
			return push.App{}, nil, err
		}
		app.Provider, app.Fingerprint = provider, provider.Fingerprint()
		return app, provider.Close, nil
	case a.WebPush != nil:
		provider, err := shared.web.Open(name, *a.WebPush, a.concurrency())
		if err != nil {
			return push.App{}, nil, err
		}
		app.Provider, app.Fingerprint = provider, provider.Fingerprint()
		return app, func() {}, nil
	case a.UnifiedPush != nil:
		provider, err := shared.web.Open(name, *a.UnifiedPush, a.concurrency())
		if err != nil {
			return push.App{}, nil, err
		}
		app.Provider, app.Fingerprint, app.UnifiedPush = provider, provider.Fingerprint(), true
		return app, func() {}, nil
	default:
		app.Provider = unsupported{}
		return app, func() {}, nil
	}
}

// unsupported keeps the pushers of an app alive that Herald cannot deliver for.
type unsupported struct{}

// unsupportedRetryAfter is long: only a new configuration helps.
const unsupportedRetryAfter = 10 * time.Minute

func (unsupported) Destination(*push.Device) string { return "" }

func (unsupported) Address(d *push.Device) string { return d.PushKey }

func (unsupported) Send(context.Context, push.Delivery) push.Outcome {
	return push.Outcome{Kind: push.Temporary, Reason: push.ReasonUnsupported, RetryAfter: unsupportedRetryAfter}
}
