package main

import (
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/internal/redisconn"
	"github.com/matrix-herald/herald/internal/serve"
	"github.com/matrix-herald/herald/internal/telemetry"
	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/apns"
	"github.com/matrix-herald/herald/push/dedup"
	"github.com/matrix-herald/herald/push/fcm"
	"github.com/matrix-herald/herald/push/hms"
	"github.com/matrix-herald/herald/push/webpush"
)

// envPrefix begins the environment variables that override options.
const envPrefix = "PUSHGW_"

// maxRequestTimeout is below the 30 s after which Dendrite gives a notification
// up for good.
const maxRequestTimeout = 29 * time.Second

// Config is the configuration of pushgw, as pushgw.example.yaml shows it.
type Config struct {
	HTTP HTTPConfig `yaml:"http"`
	// UnknownApp is what becomes of devices whose app_id has no app: "fail"
	// (502, the homeserver keeps the pusher) or "reject" (it deletes it).
	UnknownApp push.UnknownApp `yaml:"unknown_app"`
	// Discovery answers UnifiedPush's discovery request also without an app for it.
	Discovery bool           `yaml:"discovery"`
	Delivery  DeliveryConfig `yaml:"delivery"`
	// Duplicates, Rejections and Redis say what is remembered, and where.
	Duplicates DuplicatesConfig `yaml:"duplicates"`
	Rejections RejectionsConfig `yaml:"rejections"`
	Redis      redisconn.Config `yaml:"redis"`
	// Limits bound how many requests are taken.
	Limits LimitsConfig `yaml:"limits"`
	// Proxy is the http or https URL of a CONNECT proxy to the push services,
	// with user and password in it if it asks for them.
	Proxy     conf.Secret `yaml:"proxy"`
	ProxyFile string      `yaml:"proxy_file"`
	// CAFile holds further certificate authorities (PEM) for push services.
	CAFile  string                `yaml:"ca_file"`
	Log     telemetry.LogConfig   `yaml:"log"`
	Tracing telemetry.TraceConfig `yaml:"tracing"`
	Metrics MetricsConfig         `yaml:"metrics"`
	// ReloadInterval is how often the apps' key files are looked at.
	ReloadInterval conf.Duration `yaml:"reload_interval"`
	// Apps are the apps by app_id or glob.
	Apps map[string]App `yaml:"apps" conf:"expand"`
	// Warnings are what was suspicious about the options, and no fault.
	Warnings []string `yaml:"-"`
}

// gone says what became of options of former versions, and of other programs'.
var gone = map[string]string{
	"trouble":                "is gone: pushgw finds out by itself how long to leave a push service alone; remove it",
	"delivery.fair_share":    "is gone: homeservers always have their shares of an app's max_in_flight; remove it",
	"duplicates.lifetime":    "is gone: events are remembered for as long as homeservers repeat them; remove it",
	"rejections.lifetime":    "is gone: dead pushkeys are remembered for as long as homeservers keep them; remove it",
	"rejections.guard.*":     "is one switch now: write guard: true or guard: false, and nothing below it",
	"apps.*.max_connections": "is gone: there are as many connections as the app's pushes in flight need, and max_in_flight bounds those; remove it",
	"apps.*.type=gcm": "Google has switched GCM off: write type: fcm, and name the JSON key of a service account of the app's Firebase project " +
		"in service_account_file (Firebase console, Project settings, Service accounts)",
}

// HTTPConfig is how pushgw is reached.
type HTTPConfig struct {
	serve.Config `yaml:",inline"`
	// RequestTimeout bounds a whole request, below 30 s.
	RequestTimeout conf.Duration `yaml:"request_timeout"`
	// TrustedProxies are addresses and ranges whose X-Forwarded-For is believed.
	TrustedProxies []string `yaml:"trusted_proxies"`
}

// DeliveryConfig bounds the attempts at one device within a request.
type DeliveryConfig struct {
	// AttemptTimeout bounds one attempt.
	AttemptTimeout conf.Duration `yaml:"attempt_timeout"`
	// RetryWait is the mean wait before a second attempt; a third waits twice
	// as long.
	RetryWait conf.Duration `yaml:"retry_wait"`
}

// MetricsConfig says what /metrics shows.
type MetricsConfig struct {
	// SygnalNames also counts under the names of Sygnal's metrics.
	SygnalNames bool `yaml:"sygnal_names"`
}

// defaultConfig returns the defaults of every option.
func defaultConfig() *Config {
	c := &Config{
		HTTP:       HTTPConfig{Config: serve.DefaultConfig(), RequestTimeout: conf.Duration(25 * time.Second)},
		UnknownApp: push.UnknownAppFail,
		Delivery: DeliveryConfig{
			AttemptTimeout: conf.Duration(10 * time.Second), RetryWait: conf.Duration(250 * time.Millisecond),
		},
		Duplicates: DuplicatesConfig{MemoryEvents: dedup.DefaultEvents},
		Rejections: RejectionsConfig{Guard: true},
		Limits:     LimitsConfig{BytesInFlight: 64 << 20},
		Redis:      redisconn.DefaultConfig("herald:push:"),

		Log:     telemetry.LogConfig{Level: "info", Format: "text"},
		Tracing: telemetry.TraceConfig{SampleRatio: 1},

		ReloadInterval: conf.Duration(10 * time.Second),
	}
	c.HTTP.ReadTimeout = conf.Duration(15 * time.Second)
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
	opts := conf.LoadOptions{EnvPrefix: envPrefix, Environ: environ, Gone: serve.GoneOptions("http"), Warn: func(w string) { c.Warnings = append(c.Warnings, w) }}
	maps.Copy(opts.Gone, gone)
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
	if d := c.HTTP.RequestTimeout.Std(); d <= 0 || d > maxRequestTimeout {
		p.Add("http.request_timeout", c.HTTP.RequestTimeout, "use at most 29s: Dendrite gives up after 30 s and never tries again")
	}
	if c.HTTP.ReadTimeout.Std() >= c.HTTP.RequestTimeout.Std() {
		p.Add("http.read_timeout", c.HTTP.ReadTimeout, "make it shorter than request_timeout, or no time is left to deliver")
	}
	if c.HTTP.WriteTimeout.Std() <= c.HTTP.RequestTimeout.Std() {
		p.Add("http.write_timeout", c.HTTP.WriteTimeout, "make it longer than request_timeout, or answers are cut off")
	}
	for i, s := range c.HTTP.TrustedProxies {
		if _, err := conf.ParseNetwork(s); err != nil {
			p.Add(fmt.Sprintf("http.trusted_proxies[%d]", i), s, "use an address or a range such as 10.0.0.0/8")
		}
	}
	if c.UnknownApp != push.UnknownAppFail && c.UnknownApp != push.UnknownAppReject {
		p.Add("unknown_app", c.UnknownApp, "use fail or reject")
	}
	if c.Delivery.AttemptTimeout <= 0 {
		p.Add("delivery.attempt_timeout", c.Delivery.AttemptTimeout, `use a duration such as "10s"`)
	}
	if c.Delivery.RetryWait <= 0 {
		p.Add("delivery.retry_wait", c.Delivery.RetryWait, `use a duration such as "250ms"`)
	}
	c.validateDedup(p)
	c.Limits.validate("limits", p)
	if c.ReloadInterval <= 0 {
		p.Add("reload_interval", c.ReloadInterval, `use a duration such as "10s"`)
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
	Type string `yaml:"type"`
	// MaxInFlight bounds how many of its deliveries may be under way at once.
	// Default 1000.
	MaxInFlight *int `yaml:"max_in_flight"`
	// PassOn names further members of notifications that go to the app as they are,
	// such as ciphertext, ephemeral and mac of encrypted ones (MSC3013).
	PassOn      []string             `yaml:"pass_on"`
	APNs        *apns.Config         `yaml:",inline" conf:"type=apns"`
	FCM         *fcm.Config          `yaml:",inline" conf:"type=fcm"`
	HMS         *hms.Config          `yaml:",inline" conf:"type=hms"`
	WebPush     *webpush.Config      `yaml:",inline" conf:"type=webpush"`
	UnifiedPush *webpush.UnifiedPush `yaml:",inline" conf:"type=unifiedpush"`
	// Unsupported stands for an app that Herald cannot deliver for (yet). Its
	// devices are answered 502, so that their pushers live on.
	Unsupported *Unsupported `yaml:",inline" conf:"type=unsupported"`
}

// Unsupported has no options.
type Unsupported struct{}

const defaultMaxInFlight = 1000

func (a App) maxInFlight() int {
	if a.MaxInFlight == nil {
		return defaultMaxInFlight
	}
	return *a.MaxInFlight
}

func (a App) validate(path string, p *conf.Problems) {
	if n := a.maxInFlight(); n < 1 {
		p.Add(path+".max_in_flight", n, "use a number of at least 1")
	}
	for i, name := range a.PassOn {
		if !push.Passable(name) {
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
