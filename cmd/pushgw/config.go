package main

import (
	"crypto/x509"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/matrix-herald/herald/internal/cmdline"
	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/internal/redisconn"
	"github.com/matrix-herald/herald/internal/safehttp"
	"github.com/matrix-herald/herald/internal/serve"
	"github.com/matrix-herald/herald/internal/telemetry"
	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/apns"
	"github.com/matrix-herald/herald/push/dedup"
	"github.com/matrix-herald/herald/push/eventdata"
	"github.com/matrix-herald/herald/push/fcm"
	"github.com/matrix-herald/herald/push/hms"
	"github.com/matrix-herald/herald/push/webpush"
)

// envPrefix begins the environment variables that override options.
const envPrefix = "PUSHGW_"

// Config is the configuration of pushgw, as pushgw.example.yaml shows it.
type Config struct {
	HTTP serve.Config `yaml:"http"`
	// UnknownApp is what happens to devices whose app_id has no app: "keep_pusher"
	// (502; the homeserver tries again) or "delete_pusher".
	UnknownApp push.UnknownApp `yaml:"unknown_app"`
	// Delivery says how long attempts may take.
	Delivery DeliveryConfig `yaml:",inline"`
	// RememberEvents is how many delivered events the process remembers, so that a
	// device gets each once; a million take 60 MB.
	RememberEvents int              `yaml:"remember_events"`
	Rejections     RejectionsConfig `yaml:"rejections"`
	// Redis is what several processes share.
	Redis redisconn.Config `yaml:"redis"`
	// Limits bound how many requests are taken.
	Limits LimitsConfig `yaml:"limits"`
	// Proxy is the http or https URL of a CONNECT proxy to the push services, with
	// user and password.
	Proxy     conf.Secret `yaml:"proxy"`
	ProxyFile string      `yaml:"proxy_file"`
	// CAFile is a file of further certificate authorities (PEM) for push services.
	CAFile  string                `yaml:"ca_file"`
	Log     telemetry.LogConfig   `yaml:"log"`
	Tracing telemetry.TraceConfig `yaml:"tracing"`
	Metrics MetricsConfig         `yaml:"metrics"`
	// ReloadInterval is how often the apps' key files are looked at. It is no option.
	ReloadInterval conf.Duration `yaml:"test_reload_interval" conf:"hidden"`
	// Apps are the apps by app_id or glob.
	Apps map[string]App `yaml:"apps" conf:"expand"`
	// Warnings are what was suspicious about the options, and no fault.
	Warnings []string `yaml:"-"`
	// Dev is set in development.
	Dev bool `yaml:"-"`
	// RootCAs are the authorities of CAFile and the system's; nil is the system's alone.
	RootCAs *x509.CertPool `yaml:"-"`
}

// gone says what became of options of former versions, and of other programs'.
var gone = map[string]string{
	"trouble":                        "is gone: pushgw finds out by itself how long to leave a push service alone; remove it",
	"delivery":                       "is gone: an attempt at a device takes 10 s at most and is repeated soon, and homeservers always have their shares of an app; remove it",
	"discovery":                      "is gone: UnifiedPush's discovery is answered while there is an app of type unifiedpush; remove it",
	"reload_interval":                "is gone: the apps' key files are looked at every 10 s; remove it",
	"duplicates":                     "is gone: events are remembered for as long as homeservers repeat them; remember_events at the top is how many",
	"rejections.lifetime":            "is gone: dead pushkeys are remembered for as long as homeservers keep them; remove it",
	"rejections.guard.*":             "is one switch now: write guard: true or guard: false, and nothing below it",
	"apps.*.max_connections":         "is gone: there are as many connections as the app's pushes in flight need, and concurrency bounds those; remove it",
	"apps.*.max_in_flight":           "is concurrency now",
	"apps.*.tweaks":                  "is sound_and_highlight now",
	"apps.*.expiration":              "is keep_for now",
	"apps.*.ttl":                     "is keep_for now",
	"apps.*.send_badge_counts":       "is badge now: write badge: off for false, and nothing for true",
	"apps.*.send_badge_alone":        "is badge now: write badge: with_events for false, and nothing for true",
	"apps.*.send_badge_zero":         "is badge now: write badge: all for true, and nothing for false",
	"apps.*.key":                     "is gone: name the .p8 file in key_file",
	"apps.*.service_account":         "is gone: name the JSON key's file in service_account_file",
	"apps.*.client_secret":           "is gone: name a file that holds it in client_secret_file",
	"apps.*.vapid_key":               "is gone: name a file that holds it in vapid_key_file",
	"apps.*.cert_key_file":           "is gone: append the key to the PEM file that cert_file names",
	"apps.*.pushkey_format":          "is gone: device tokens are read in every form; remove it",
	"apps.*.priority":                "is gone: it follows from the notification; remove it",
	"apps.*.urgency":                 "is gone: it follows from the notification; remove it",
	"apps.*.reject_topic_disallowed": "is gone: it is a fault of the settings, for which no pusher is given up; remove it",
	"apps.*.reject_sender_mismatch":  "is gone: such pushkeys are given up, unless most are; remove it",
	"apps.*.reject_key_mismatch":     "is gone: add the key to those in vapid_key_file; remove it",
	"apps.*.type=unsupported":        "is type: hold now",
	"limits.trusted_sources":         "is limits.exempt now",
	"apps.*.type=gcm": "Google has switched GCM off: write type: fcm, and name the JSON key of a service account of the app's Firebase project " +
		"in service_account_file (Firebase console, Project settings, Service accounts)",
}

// DeliveryConfig bounds the attempts at one device within a request. It has no
// options: tests set it.
type DeliveryConfig struct {
	// AttemptTimeout bounds one attempt.
	AttemptTimeout conf.Duration `yaml:"test_attempt_timeout" conf:"hidden"`
	// RetryWait is the mean wait before a second attempt; a third waits twice
	// as long.
	RetryWait conf.Duration `yaml:"test_retry_wait" conf:"hidden"`
}

// MetricsConfig says what /metrics shows.
type MetricsConfig struct {
	// SygnalNames also counts under the names of Sygnal's metrics.
	SygnalNames bool `yaml:"sygnal_names"`
}

// defaultConfig returns the defaults of every option.
func defaultConfig() *Config {
	c := &Config{
		HTTP:       serve.DefaultConfig(), // a request ends after 25 s, before the 30 s after which Dendrite gives a notification up for good
		UnknownApp: push.UnknownAppKeep,
		Delivery: DeliveryConfig{
			AttemptTimeout: conf.Duration(10 * time.Second), RetryWait: conf.Duration(250 * time.Millisecond),
		},
		RememberEvents: dedup.DefaultEvents,
		Rejections:     RejectionsConfig{Guard: true},
		Limits:         LimitsConfig{BytesInFlight: 64 << 20},
		Redis:          redisconn.DefaultConfig("herald:push:"),

		Log: telemetry.LogConfig{Level: "info", Format: "text"},

		ReloadInterval: conf.Duration(10 * time.Second),
	}
	c.HTTP.Listen = []string{"127.0.0.1:5000"}
	c.HTTP.AdminListen = "127.0.0.1:9500"
	return c
}

// loadConfig reads the file name, if it is not empty, and the environment over
// the defaults. It reports all faults at once.
func loadConfig(name string, environ []string) (*Config, error) {
	c, err := readConfig(name, environ)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// readConfig does the same, but returns also a configuration with faults, nil
// only without a file to read. Its options are those of the file as far as they
// could be read, and defaults.
func readConfig(name string, environ []string) (*Config, error) {
	c := defaultConfig()
	opts := conf.LoadOptions{EnvPrefix: envPrefix, Environ: environ, Gone: cmdline.GoneOptions(gone), Warn: func(w string) { c.Warnings = append(c.Warnings, w) }}
	if name != "" {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("configuration: %w", err)
		}
		opts.Name, opts.Data, opts.Dir = filepath.Base(name), data, filepath.Dir(name)
	}
	// What could not be read has its default by now, so that the checks find
	// only further faults.
	var p conf.Problems
	p.Load(opts, c)
	c.validate(&p)
	return c, p.Err()
}

func (c *Config) validate(p *conf.Problems) {
	c.HTTP.Validate("http", p)
	p.OneOf("unknown_app", c.UnknownApp, "use keep_pusher (which was fail) or delete_pusher (which was reject)", push.UnknownAppKeep, push.UnknownAppDelete)
	c.validateDedup(p)
	c.Limits.validate("limits", p)
	if c.CAFile != "" {
		roots, err := safehttp.LoadRootCAs(c.CAFile)
		if err != nil {
			p.Add("ca_file", nil, err.Error()+": name a file with certificates in PEM form")
		}
		c.RootCAs, c.Redis.RootCAs = roots, roots
	}
	if _, err := c.proxyURL(); err != nil {
		p.Add("proxy", nil, "use a URL such as http://user:password@proxy.example.com:3128")
	}
	c.Log.Validate("log", p)
	c.Tracing.Validate("tracing", p)
	c.validateApps(p)
}

func (c *Config) validateApps(p *conf.Problems) {
	var apps []push.App
	for _, name := range c.appNames() {
		path := fmt.Sprintf("apps[%q]", name)
		app := c.Apps[name]
		if name == "" || utf8.RuneCountInString(name) > 64 {
			p.Add(path, nil, "an app_id has 1 to 64 characters")
		}
		app.validate(path, p)
		apps = append(apps, push.App{Name: name})
	}
	if _, err := push.NewApps(apps); err != nil {
		p.Add("apps", nil, err.Error())
	}
}

// appNames returns the apps' names in a fixed order.
func (c *Config) appNames() []string {
	names := make([]string, 0, len(c.Apps))
	for name := range c.Apps {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// proxyURL returns the proxy, nil when there is none. The error does not quote
// the URL, which may hold a password.
func (c *Config) proxyURL() (*url.URL, error) {
	if c.Proxy == "" {
		return nil, nil
	}
	u, err := url.Parse(c.Proxy.Reveal())
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return nil, fmt.Errorf("proxy: not an http or https URL")
	}
	return u, nil
}

// App is one app. Its type decides which further options it has.
type App struct {
	// Type is apns, fcm, hms, webpush, unifiedpush, or hold: answer 502, so that the
	// pushers live on.
	Type string `yaml:"type"`
	// Concurrency is how many pushes may be under way at once; more are answered
	// 503. Default 1000.
	Concurrency *int `yaml:"concurrency"`
	// PassOn names further members of notifications to send on, such as ciphertext,
	// ephemeral and mac (MSC3013).
	PassOn      []string             `yaml:"pass_on"`
	APNs        *apns.Config         `yaml:",inline" conf:"type=apns"`
	FCM         *fcm.Config          `yaml:",inline" conf:"type=fcm"`
	HMS         *hms.Config          `yaml:",inline" conf:"type=hms"`
	WebPush     *webpush.Config      `yaml:",inline" conf:"type=webpush"`
	UnifiedPush *webpush.UnifiedPush `yaml:",inline" conf:"type=unifiedpush"`
	// Hold stands for an app that Herald cannot deliver for (yet). Its
	// devices are answered 502, so that their pushers live on.
	Hold *Hold `yaml:",inline" conf:"type=hold"`
}

// Hold has no options.
type Hold struct{}

const defaultConcurrency = 1000

func (a App) concurrency() int {
	if a.Concurrency == nil {
		return defaultConcurrency
	}
	return *a.Concurrency
}

func (a App) validate(path string, p *conf.Problems) {
	if n := a.concurrency(); n < 1 {
		p.Add(path+".concurrency", n, "use a number of at least 1")
	}
	for i, name := range a.PassOn {
		if !eventdata.Passable(name) {
			p.Add(fmt.Sprintf("%s.pass_on[%d]", path, i), name, "use the name of a member that pushes do not have anyway, such as ciphertext, ephemeral or mac")
		}
	}
	switch {
	case a.APNs != nil:
		a.APNs.Validate(path, p)
	case a.FCM != nil:
		a.FCM.Validate(path, p)
		a.unifiedPush().Validate(path, p)
	case a.HMS != nil:
		a.HMS.Validate(path, p)
	case a.WebPush != nil:
		a.WebPush.Validate(path, p)
	case a.UnifiedPush != nil:
		a.UnifiedPush.Validate(path, p)
	}
}

// unifiedPush returns how pushkeys of an app of FCM's are served that are
// endpoints of UnifiedPush.
func (a App) unifiedPush() webpush.UnifiedPush {
	return webpush.UnifiedPush{Common: webpush.Common{Endpoints: webpush.Endpoints{
		AllowedEndpoints: a.FCM.AllowedEndpoints, DeniedEndpoints: a.FCM.DeniedEndpoints, AllowNetworks: a.FCM.AllowNetworks,
	}}}
}
