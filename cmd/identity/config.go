package main

import (
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/internal/cmdline"
	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/internal/redisconn"
	"github.com/matrix-herald/herald/internal/serve"
	"github.com/matrix-herald/herald/internal/telemetry"
	"github.com/matrix-herald/herald/threepid/email"
	"github.com/matrix-herald/herald/threepid/sending"
	"github.com/matrix-herald/herald/threepid/sms"
)

// envPrefix begins the environment variables that override options.
const envPrefix = "IDENTITY_"

// Config is the configuration of identity, as identity.example.yaml shows it.
type Config struct {
	// ServerName is the name that signs everything; it can never be changed.
	// Default: the first listener, if all are on the loopback.
	ServerName string `yaml:"server_name"`
	// PublicBaseURL is where clients and browsers reach the service; links in mails
	// lead there. It has the same default.
	PublicBaseURL string `yaml:"public_base_url"`
	// DataDir is the folder of the SQLite database, the signing keys and the secret
	// key.
	DataDir string `yaml:"data_dir"`
	// CodeKey is the key under which codes and client secrets are stored, at least
	// 32 characters. SQLite makes one in DataDir; PostgreSQL needs it, the same for
	// all processes.
	CodeKey     conf.Secret    `yaml:"secret_key"`
	CodeKeyFile string         `yaml:"secret_key_file"`
	HTTP        serve.Config   `yaml:"http"`
	Database    DatabaseConfig `yaml:"database"`
	Email       email.Config   `yaml:"email"`
	SMS         sms.Config     `yaml:"sms"`
	// Brands are how the users of some homeservers are spoken to, by the name that
	// clients ask for, and that homeservers.settings name.
	Brands     map[string]BrandConfig `yaml:"brands"`
	Validation ValidationConfig       `yaml:"validation"`
	Lookup     LookupConfig           `yaml:"lookup"`
	Invites    InvitesConfig          `yaml:"invites"`
	// IdleLife is how long an access token lives without being used. It is no option.
	IdleLife    conf.Duration
	Homeservers HomeserversConfig `yaml:"homeservers"`
	// Limits say how often who may ask. Redis is where several processes count it
	// together; without, each counts by itself.
	Limits LimitsConfig     `yaml:"limits"`
	Redis  redisconn.Config `yaml:"redis"`
	// TrustedHomeservers are homeservers that may use version 1 of the API, by their
	// address: {192.0.2.7: [example.org]}.
	TrustedHomeservers map[string][]string `yaml:"trusted_homeservers"`
	V1                 V1Config            `yaml:"v1"`
	// AllowNetworks are private networks that homeservers and the SMS provider may
	// be in.
	AllowNetworks []string `yaml:"allow_networks"`
	// Proxy is the http or https URL of a CONNECT proxy to homeservers, which must
	// keep requests out of private networks itself.
	Proxy     conf.Secret `yaml:"proxy"`
	ProxyFile string      `yaml:"proxy_file"`
	// CAFile is a file of further certificate authorities (PEM).
	CAFile string `yaml:"ca_file"`
	// RootCAs are these and the system's; nil is the system's alone.
	RootCAs *x509.CertPool `yaml:"-"`
	// Templates is a folder with folders mail, sms and pages of your own words; see
	// limits-and-brands.md.
	Templates string `yaml:"templates"`
	Pages     string
	// DefaultLanguage is the language for people in whose own there are no words.
	DefaultLanguage string                `yaml:"default_language"`
	Log             telemetry.LogConfig   `yaml:"log"`
	Tracing         telemetry.TraceConfig `yaml:"tracing"`
	// Terms are the policies that users have to accept, by ID.
	Terms map[string]Policy `yaml:"terms"`
	// Warnings are what was suspicious about the options, and no fault.
	Warnings []string `yaml:"-"`
}

const (
	alwaysOn   = "is gone: old rooms and mails need it, and it harms nobody; remove it"
	constant   = "is gone: this limit is what it was by default; remove it"
	folders    = "is a folder in the one that templates at the top names now: mail, sms or pages"
	networks   = "is allow_networks at the top now"
	inBrand    = "is one of a brand now: write brands: {NAME: {from: …, reply_to: …, clients: […]}} at the top, and brand: NAME here"
	oneTimeout = "is gone: sending a message may take 20 s; remove it"
	oneWait    = "is gone: a message waits for 5 s for its turn; remove it"
	caFile     = "is ca_file at the top now, for all that the service asks"
)

// gone says what became of options of former versions.
var gone = map[string]string{
	"code_key":       "is secret_key now",
	"code_key_file":  "is secret_key_file now",
	"database.path":  "is gone: the file is identity.db in data_dir",
	"email.ehlo":     "is gone: the relay is greeted with the host of public_base_url; remove it",
	"email.max_wait": oneWait, "sms.max_wait": oneWait,
	"email.timeout": oneTimeout, "sms.timeout": oneTimeout,
	"sms.max_sending":             "is gone: 32 text messages are sent at once; remove it",
	"sms.originators":             "is sms.from now",
	"sms.allow":                   "is sms.countries now",
	"sms.reject":                  "is part of sms.countries now: write \"!IE\" there",
	"email.port":                  "is part of email.host now: write host:port",
	"email.brands":                "is brands at the top now",
	"homeservers.settings.*.from": inBrand, "homeservers.settings.*.reply_to": inBrand, "homeservers.settings.*.clients": inBrand,
	"invites.clients.*.*":        "is one text now: \"Name <https://app.example.org>\"",
	"sms.webhook.success_status": "is gone: any 2xx is success, and success_pattern is for gateways that refuse with one; remove it",
	"sms.webhook.allow_networks": networks, "sms.twilio.allow_networks": networks, "homeservers.allow_networks": networks,
	"validation.max_tries":      "is gone: ten wrong guesses make a code void; remove it",
	"validation.code_life":      "is gone: the code of a text message works for 10 minutes; remove it",
	"validation.session_life":   "is gone: a session lasts for a day; remove it",
	"lookup.plain":              "is lookup.allow_plaintext now",
	"lookup.pepper_interval":    "is gone: the pepper changes every week; remove it",
	"lookup.pepper_grace":       "is gone: an old pepper is honoured for an hour; remove it",
	"invites.life":              "is gone: an invite waits for 90 days; remove it",
	"invites.shown_local":       "is invites.shown now, for both halves of an address",
	"invites.shown_domain":      "is invites.shown now, for both halves of an address",
	"accounts":                  "is gone: access tokens that nobody used for 180 days are forgotten; remove it",
	"homeservers.timeout":       "is gone: a homeserver has 10 s to answer; remove it",
	"homeservers.max_in_flight": "is gone: 128 exchanges run at once; remove it",
	"homeservers.own_names":     "is homeservers.names_for_us now",
	"homeservers.proxy":         "is proxy at the top now",
	"homeservers.proxy_file":    "is proxy_file at the top now",
	"v1.keys":                   alwaysOn, "v1.links": alwaysOn,
	"v1.homeserver":                "is gone: it is on while there are trusted_homeservers; remove it",
	"v1.sources":                   "is trusted_homeservers at the top now",
	"limits.request_token_address": "is limits.mail_per_address now",
	"limits.request_token_number":  "is limits.mail_per_address now, for numbers too",
	"limits.request_token_account": "is limits.messages_per_client now",
	"limits.request_token_ip":      constant,
	"limits.sms_country":           "is limits.sms_per_country now: write {\"*\": 60/1h}",
	"limits.sms_countries":         "is limits.sms_per_country now",
	"limits.submit_token_session":  constant, "limits.submit_token_account": constant, "limits.submit_token_ip": constant,
	"limits.register_homeserver": constant, "limits.register_ip": constant, "limits.bind_account": constant,
	"limits.lookup_account": constant, "limits.lookup_ip": constant,
	"limits.lookup_addresses_account":     "is limits.lookups_per_account now",
	"limits.lookup_addresses_homeserver":  "is limits.lookups_per_homeserver now: write {\"*\": 100000/1d}",
	"limits.lookup_addresses_homeservers": "is limits.lookups_per_homeserver now",
	"limits.store_invite_sender":          "is limits.invites_per_account now",
	"limits.store_invite_homeserver":      constant, "limits.store_invite_target": constant,
	"limits.trusted_sources": "is limits.exempt now, and adds to private addresses, which always are",
	"email.templates":        folders, "sms.templates": folders, "pages": folders,
	"email.default_language": "is default_language at the top now", "sms.default_language": "is default_language at the top now",
	"email.ca_file":       caFile,
	"sms.webhook.ca_file": caFile,
	"homeservers.ca_file": caFile,
	"email.idle_timeout":  "is gone: each mail has a connection of its own; remove it",
}

// DatabaseConfig says where everything is kept: in PostgreSQL, or in the SQLite
// file identity.db in the data folder, which is Path.
type DatabaseConfig struct {
	// URL is that of a PostgreSQL database: postgres://user:password@host/name.
	// Default: SQLite in data_dir.
	URL     conf.Secret `yaml:"url"`
	URLFile string      `yaml:"url_file"`
	Path    string      `yaml:"test_path" conf:"hidden"`
}

// ValidationConfig bounds the sessions that prove addresses.
type ValidationConfig struct {
	// MaxTries is how many wrong guesses make a code void.
	MaxTries int
	// CodeLife is how long the code of a text message works.
	CodeLife conf.Duration
	// SessionLife is how long a session lasts after it was begun or validated,
	// and how long the link in a mail works.
	SessionLife conf.Duration
	// NextLinkHosts are the hosts that next_link may lead to. Default: any.
	NextLinkHosts []string `yaml:"next_link_hosts"`
	// ConfirmPage makes a mailed link open a page whose button proves the address,
	// because mail scanners follow links.
	ConfirmPage bool `yaml:"confirm_page"`
}

// LookupConfig says how addresses are looked up.
type LookupConfig struct {
	// Plain allows lookups with the algorithm "none", which are in clear.
	Plain bool `yaml:"allow_plaintext"`
}

// InvitesConfig says what becomes of invites of addresses that are not bound.
type InvitesConfig struct {
	// Life is how long an invite waits for its address to be bound.
	Life conf.Duration
	// Shown is how many characters of both halves of an invited address the room may
	// see, 1 to 20.
	Shown int `yaml:"shown"`
	// Clients are those in a browser that people can accept invites with, as name and
	// address. Default: Element <https://app.element.io>.
	Clients []string `yaml:"clients"`
}

// BrandConfig is what a brand has beside words and pages of its own.
type BrandConfig struct {
	email.Brand `yaml:",inline"`

	// Clients are those that the people whom its homeservers' users invite can accept
	// with. Default: invites.clients.
	Clients []string `yaml:"clients"`
}

// HomeserversConfig says which homeservers there are, and how they are asked who
// somebody is.
type HomeserversConfig struct {
	// Allow are the homeservers whose users may use the service. Default: all.
	Allow []string `yaml:"allow"`
	// Settings are what differs for the users of some, by server name.
	Settings map[string]HomeserverSettings `yaml:"settings"`
	// Timeout bounds one exchange, finding the server included.
	Timeout conf.Duration
	// MaxInFlight is how many exchanges may run at once for registrations, for keys
	// and for deliveries each.
	MaxInFlight int
	// OwnNames are further names that homeservers may call this service by.
	OwnNames []string `yaml:"names_for_us"`
}

// Policy is a document that users have to accept, in one or more languages.
type Policy struct {
	// Version is the version of the document.
	Version   string                `yaml:"version"`
	Languages map[string]PolicyText `yaml:"languages"`
}

// PolicyText is a policy in one language.
type PolicyText struct {
	// Name is its title in this language.
	Name string `yaml:"name"`
	// URL is its address, which is what people accept.
	URL string `yaml:"url"`
}

// defaultConfig returns the defaults of every option.
func defaultConfig() *Config {
	c := &Config{
		DataDir: "identity-data", DefaultLanguage: "en",
		HTTP:  serve.DefaultConfig(),
		Email: email.Config{TLS: email.TLSStart, Auth: email.AuthAuto, AtOnce: 32, Config: sending.Config{}.WithDefaults()},
		SMS:   sms.Config{Config: sending.Config{}.WithDefaults()},
		Validation: ValidationConfig{
			MaxTries: 10, CodeLife: conf.Duration(10 * time.Minute), SessionLife: conf.Duration(24 * time.Hour),
			ConfirmPage: true,
		},
		Lookup: LookupConfig{Plain: true},
		Invites: InvitesConfig{
			Life: conf.Duration(identity.DefaultInviteLife), Shown: identity.DefaultShown,
		},
		IdleLife:    conf.Duration(identity.DefaultIdleLife),
		Homeservers: HomeserversConfig{Timeout: conf.Duration(10 * time.Second), MaxInFlight: 128},
		V1:          V1Config{Lookup: true},
		Limits:      defaultLimits(),
		Redis:       redisconn.DefaultConfig("herald:identity:"),
		Log:         telemetry.LogConfig{Level: "info", Format: "text"},
	}
	c.HTTP.Listen = []string{"127.0.0.1:8090"}
	c.HTTP.AdminListen = "127.0.0.1:9590"
	c.HTTP.RequestTimeout = conf.Duration(45 * time.Second) // sending a message takes most of it
	return c
}

// loadConfig reads the file name, if it is not empty, and the environment over
// the defaults. It reports all faults at once.
func loadConfig(name string, environ []string, dev bool) (*Config, error) {
	c, err := readConfig(name, environ, dev)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// readConfig does the same, but returns also a configuration with faults, nil
// only without a file to read.
func readConfig(name string, environ []string, dev bool) (*Config, error) {
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
	if dev {
		c.dev(&p)
	}
	c.resolve(opts.Dir)
	c.validate(&p)
	return c, p.Err()
}

// resolve fills in what follows from other options. Relative paths start at dir.
func (c *Config) resolve(dir string) {
	c.Limits.resolve()
	c.Email.Brands = make(map[string]email.Brand)
	for name, b := range c.Brands {
		c.Email.Brands[name] = b.Brand
	}
	c.SMS.Twilio.AllowNetworks, c.SMS.Webhook.AllowNetworks = c.AllowNetworks, c.AllowNetworks
	if c.Database.URL == "" && c.Database.Path == "" {
		c.Database.Path = filepath.Join(c.DataDir, "identity.db")
	}
	for _, path := range []*string{&c.DataDir, &c.Database.Path, &c.Templates} {
		if *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(dir, *path)
		}
	}
	for name, path := range map[string]*string{"mail": &c.Email.Templates, "sms": &c.SMS.Templates, "pages": &c.Pages} {
		folder := filepath.Join(c.Templates, name)
		if _, err := os.Stat(folder); c.Templates != "" && err == nil {
			*path = folder
		}
	}
	c.Email.DefaultLanguage, c.SMS.DefaultLanguage = c.DefaultLanguage, c.DefaultLanguage
	if address, ok := c.ownAddress(); ok {
		if c.ServerName == "" {
			c.ServerName = address
		}
		if c.PublicBaseURL == "" {
			scheme := "http"
			if c.HTTP.TLS.CertFile != "" {
				scheme = "https"
			}
			c.PublicBaseURL = scheme + "://" + address
		}
	}
	c.PublicBaseURL = strings.TrimRight(c.PublicBaseURL, "/")
}

// ownAddress returns the first listener if it can stand for the service: only
// this machine reaches any of them, and it has a port that is known.
func (c *Config) ownAddress() (string, bool) {
	for _, address := range c.HTTP.Listen {
		if !isLoopback(address) {
			return "", false
		}
	}
	if len(c.HTTP.Listen) == 0 || strings.HasPrefix(c.HTTP.Listen[0], "unix:") {
		return "", false
	}
	_, port, err := net.SplitHostPort(c.HTTP.Listen[0])
	return c.HTTP.Listen[0], err == nil && port != "0"
}

// isLoopback reports whether only this machine can reach a listener.
func isLoopback(address string) bool {
	if strings.HasPrefix(address, "unix:") {
		return true
	}
	host, _, err := net.SplitHostPort(address)
	return err == nil && isLoopbackHost(host)
}

func isLoopbackHost(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// usesPostgres reports whether the database is PostgreSQL.
func (c *Config) usesPostgres() bool { return c.Database.URL != "" }

// keyFile is where the signing keys of a SQLite database are.
func (c *Config) keyFile() string { return filepath.Join(c.DataDir, "signing.keys") }

// databaseURL returns what sqlstore.Open takes.
func (c *Config) databaseURL() string {
	if c.usesPostgres() {
		return c.Database.URL.Reveal()
	}
	return "sqlite:" + c.Database.Path
}

// policies returns the policies as the domain has them.
func (c *Config) policies() []identity.Policy {
	var policies []identity.Policy
	for _, id := range sortedKeys(c.Terms) {
		p := identity.Policy{ID: id, Version: c.Terms[id].Version, Languages: make(map[string]identity.PolicyText)}
		for language, text := range c.Terms[id].Languages {
			p.Languages[language] = identity.PolicyText(text)
		}
		policies = append(policies, p)
	}
	return policies
}
