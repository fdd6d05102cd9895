package main

import (
	"crypto/x509"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/matrix-herald/herald/identity"
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
	// ServerName is the name under which associations are signed. It can never
	// be changed. By default it is the first listener, if that is on the loopback.
	ServerName string `yaml:"server_name"`
	// PublicBaseURL is where clients and browsers reach the service; links in
	// mails lead there. It has the same default.
	PublicBaseURL string `yaml:"public_base_url"`
	// DataDir is the folder of the SQLite database, of the signing keys beside it
	// and of the code key. It is made at the first start.
	DataDir string `yaml:"data_dir"`
	// CodeKey is the key under which codes and client secrets are stored, at least
	// 32 characters. Without one SQLite gets a file in DataDir.
	CodeKey     conf.Secret       `yaml:"code_key"`
	CodeKeyFile string            `yaml:"code_key_file"`
	HTTP        serve.Config      `yaml:"http"`
	Database    DatabaseConfig    `yaml:"database"`
	Email       email.Config      `yaml:"email"`
	SMS         sms.Config        `yaml:"sms"`
	Validation  ValidationConfig  `yaml:"validation"`
	Lookup      LookupConfig      `yaml:"lookup"`
	Invites     InvitesConfig     `yaml:"invites"`
	Accounts    AccountsConfig    `yaml:"accounts"`
	Homeservers HomeserversConfig `yaml:"homeservers"`
	// Limits say how often who may ask. Redis is where several processes count it
	// together; without, each counts by itself.
	Limits LimitsConfig     `yaml:"limits"`
	Redis  redisconn.Config `yaml:"redis"`
	V1     V1Config         `yaml:"v1"`
	// CAFile holds further certificate authorities (PEM), for all that is asked.
	CAFile string `yaml:"ca_file"`
	// RootCAs are these and the system's; nil is the system's alone.
	RootCAs *x509.CertPool `yaml:"-"`
	// Pages is a folder of pages that replace the built-in ones.
	Pages   string                `yaml:"pages"`
	Log     telemetry.LogConfig   `yaml:"log"`
	Tracing telemetry.TraceConfig `yaml:"tracing"`
	// Terms are the policies that users have to accept, by ID.
	Terms map[string]Policy `yaml:"terms"`
	// Warnings are what was suspicious about the options, and no fault.
	Warnings []string `yaml:"-"`
}

const caFile = "is ca_file at the top now, for all that the service asks"

// gone says what became of options of former versions.
var gone = map[string]string{
	"email.ca_file":       caFile,
	"sms.webhook.ca_file": caFile,
	"homeservers.ca_file": caFile,
	"email.idle_timeout":  "is gone: each mail has a connection of its own; remove it",
}

// goneOptions says so of all options.
func goneOptions() map[string]string {
	all := maps.Clone(gone)
	maps.Copy(all, serve.GoneOptions("http"))
	maps.Copy(all, redisconn.GoneOptions("redis"))
	maps.Copy(all, telemetry.GoneOptions("tracing"))
	return all
}

// DatabaseConfig says where everything is kept: in PostgreSQL, or in the SQLite
// file Path, by default identity.db in the data folder.
type DatabaseConfig struct {
	URL     conf.Secret `yaml:"url"`
	URLFile string      `yaml:"url_file"`
	Path    string      `yaml:"path"`
}

// ValidationConfig bounds the sessions that prove addresses.
type ValidationConfig struct {
	// MaxTries is how many wrong guesses make a code void.
	MaxTries int `yaml:"max_tries"`
	// CodeLife is how long the code of a text message works.
	CodeLife conf.Duration `yaml:"code_life"`
	// SessionLife is how long a session lasts after it was begun or validated,
	// and how long the link in a mail works.
	SessionLife conf.Duration `yaml:"session_life"`
	// NextLinkHosts are the hosts that next_link may lead to; none means any.
	NextLinkHosts []string `yaml:"next_link_hosts"`
	// ConfirmPage makes a mailed link show a button, and only its press proves the
	// address: mail scanners follow links, also of sessions that somebody else began.
	ConfirmPage bool `yaml:"confirm_page"`
}

// LookupConfig says how addresses are looked up.
type LookupConfig struct {
	// Plain offers the algorithm "none", with which clients send addresses in
	// clear.
	Plain bool `yaml:"plain"`
	// PepperInterval lies between two changes of the pepper; 0 is never.
	PepperInterval conf.Duration `yaml:"pepper_interval"`
	// PepperGrace is how long a pepper is honoured after its change.
	PepperGrace conf.Duration `yaml:"pepper_grace"`
}

// InvitesConfig says what becomes of invites of addresses that are not bound.
type InvitesConfig struct {
	// Life is how long an invite waits for its address to be bound.
	Life conf.Duration `yaml:"life"`
	// ShownLocal and ShownDomain are how many characters of the two halves of an
	// invited address everybody in the room may see.
	ShownLocal  int `yaml:"shown_local"`
	ShownDomain int `yaml:"shown_domain"`
	// Clients are those that people can accept invites with; none means Element.
	Clients []ClientConfig `yaml:"clients"`
}

// ClientConfig is a client in a browser that takes invite links like Element's.
type ClientConfig struct {
	Name string `yaml:"name"`
	URL  string `yaml:"url"`
}

// AccountsConfig says how long people stay registered.
type AccountsConfig struct {
	// IdleLife is how long an access token lives without being used.
	IdleLife conf.Duration `yaml:"idle_life"`
}

// HomeserversConfig says which homeservers there are, and how they are asked who
// somebody is.
type HomeserversConfig struct {
	// Allow are those whose users may use the service; none means all.
	Allow []string `yaml:"allow"`
	// Settings are what differs for the users of some, by server name.
	Settings map[string]HomeserverSettings `yaml:"settings"`
	// Timeout bounds one exchange, finding the server included.
	Timeout conf.Duration `yaml:"timeout"`
	// MaxInFlight is how many exchanges may run at once for registrations, for keys
	// and for deliveries each.
	MaxInFlight int `yaml:"max_in_flight"`
	// AllowNetworks are private networks in which homeservers may be.
	AllowNetworks []string `yaml:"allow_networks"`
	// OwnNames are what homeservers may call this service by, beside ServerName
	// and the host of PublicBaseURL.
	OwnNames []string `yaml:"own_names"`
	// Proxy is the http or https URL of a CONNECT proxy, which then has to keep
	// requests out of private networks itself.
	Proxy     conf.Secret `yaml:"proxy"`
	ProxyFile string      `yaml:"proxy_file"`
}

// Policy is a document that users have to accept, in one or more languages.
type Policy struct {
	Version   string                `yaml:"version"`
	Languages map[string]PolicyText `yaml:"languages"`
}

// PolicyText is a policy in one language.
type PolicyText struct {
	Name string `yaml:"name"`
	URL  string `yaml:"url"`
}

// defaultConfig returns the defaults of every option.
func defaultConfig() *Config {
	c := &Config{
		DataDir: "identity-data",
		HTTP:    serve.DefaultConfig(),
		Email:   email.Config{TLS: email.TLSStart, Auth: email.AuthAuto, Config: sending.Config{}.WithDefaults()},
		SMS:     sms.Config{Config: sending.Config{}.WithDefaults()},
		Validation: ValidationConfig{
			MaxTries: 10, CodeLife: conf.Duration(10 * time.Minute), SessionLife: conf.Duration(24 * time.Hour),
			ConfirmPage: true,
		},
		Lookup: LookupConfig{Plain: true, PepperInterval: conf.Duration(7 * 24 * time.Hour), PepperGrace: conf.Duration(identity.DefaultPepperGrace)},
		Invites: InvitesConfig{
			Life: conf.Duration(identity.DefaultInviteLife), ShownLocal: identity.DefaultShown, ShownDomain: identity.DefaultShown,
		},
		Accounts:    AccountsConfig{IdleLife: conf.Duration(identity.DefaultIdleLife)},
		Homeservers: HomeserversConfig{Timeout: conf.Duration(10 * time.Second), MaxInFlight: 128},
		V1:          V1Config{Keys: true, Links: true, Lookup: true},
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
	c := defaultConfig()
	opts := conf.LoadOptions{EnvPrefix: envPrefix, Environ: environ, Gone: goneOptions(), Warn: func(w string) { c.Warnings = append(c.Warnings, w) }}
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
	if err := p.Err(); err != nil {
		return nil, err
	}
	return c, nil
}

// resolve fills in what follows from other options. Relative paths start at dir.
func (c *Config) resolve(dir string) {
	if c.Database.URL == "" && c.Database.Path == "" {
		c.Database.Path = filepath.Join(c.DataDir, "identity.db")
	}
	for _, path := range []*string{&c.DataDir, &c.Database.Path, &c.Pages, &c.Email.Templates, &c.SMS.Templates} {
		if *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(dir, *path)
		}
	}
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
