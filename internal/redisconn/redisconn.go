package redisconn

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/matrix-herald/herald/internal/conf"
)

// Config says where Redis is.
type Config struct {
	// URL is where Redis is: redis://user:password@host:6379/0, see [Redis](#redis).
	// Empty is off.
	URL     conf.Secret `yaml:"url"`
	URLFile string      `yaml:"url_file"`
	// CertFile is the client's certificate (PEM), for rediss://.
	CertFile string `yaml:"cert_file"`
	// KeyFile is its key (PEM).
	KeyFile string `yaml:"key_file"`
	// KeyPrefix begins every key.
	KeyPrefix string `yaml:"key_prefix"`

	// What follows are no options.

	// RootCAs are the authorities that Redis's certificate may be signed by; nil is
	// the system's.
	RootCAs *x509.CertPool
	// Budget is how long a request waits for Redis each time it asks.
	Budget conf.Duration `yaml:"test_budget" conf:"hidden"`
	// PoolSize bounds the connections to each server.
	PoolSize int
}

// GoneOptions says what became of options of former versions; path is where the
// Config stands in the file.
func GoneOptions(path string) map[string]string {
	inURL := "is part of " + path + ".url now: "
	return map[string]string{
		path + ".addresses":              inURL + "write redis://host:6379, and the next ones as ?addr=host2:6379&addr=host3:6379",
		path + ".master_name":            inURL + "add ?master_name=NAME behind the Sentinels' addresses",
		path + ".cluster":                inURL + "add ?cluster=true; several addresses are a Cluster without it",
		path + ".username":               inURL + "write redis://user:password@host:6379",
		path + ".password":               inURL + "write redis://:password@host:6379, here or in the file that url_file names",
		path + ".password_file":          inURL + "write redis://:password@host:6379 in the file that url_file names",
		path + ".sentinel_username":      inURL + "add &sentinel_username=NAME",
		path + ".sentinel_password":      inURL + "add &sentinel_password=SECRET",
		path + ".sentinel_password_file": inURL + "add &sentinel_password=SECRET in the file that url_file names",
		path + ".db":                     inURL + "write redis://host:6379/NUMBER",
		path + ".tls":                    "is gone: rediss:// in place of redis:// is TLS, ca_file at the top of the configuration holds further authorities, and " + path + ".cert_file and key_file are the client's",
		path + ".budget":                 "is gone: a request waits 50 ms for Redis each time; remove it",
		path + ".pool_size":              "is gone: there are 20 connections to each server; remove it",
	}
}

// DefaultConfig returns the defaults, with prefix before every key; they have no
// URL.
func DefaultConfig(prefix string) Config {
	return Config{KeyPrefix: prefix, Budget: conf.Duration(50 * time.Millisecond), PoolSize: 20}
}

// Enabled reports whether there is a Redis.
func (c Config) Enabled() bool { return c.URL != "" }

const (
	// maxWait ends what a context has not ended.
	maxWait   = 5 * time.Second
	maxPrefix = 100 // bytes
)

// Validate adds all faults of the settings at path, and of the files they name, to p.
func (c Config) Validate(path string, p *conf.Problems) {
	opts, err := c.parse()
	if c.Enabled() && err != nil {
		p.Add(path+".url", nil, err.Error())
	}
	if len(c.KeyPrefix) > maxPrefix {
		p.Add(path+".key_prefix", nil, "use at most 100 bytes")
	}
	p.KeyPair(path, c.CertFile, c.KeyFile)
	if c.CertFile != "" && err == nil && opts.TLSConfig == nil {
		p.Add(path+".cert_file", nil, "needs TLS: write rediss:// in "+path+".url")
	}
}

// Addresses returns host:port of what the URL names.
func (c Config) Addresses() []string {
	opts, err := c.parse()
	if err != nil {
		return nil
	}
	return opts.Addrs
}

var (
	errURL   = errors.New("write redis://host:6379 or, for TLS, rediss://host:6379, with user:password@ before the host if need be; escape other characters in them as in %40")
	errDB    = errors.New("write the number of the database behind the host, as in redis://host:6379/1, and none or 0 for a Cluster")
	errQuery = errors.New("behind ? there may be addr=host:port, master_name, sentinel_username, sentinel_password and cluster=true, each joined by &")
	errBoth  = errors.New("write cluster or master_name, not both")
)

// parse reads the URL. The errors do not repeat it, since it may hold a password.
func (c Config) parse() (*redis.UniversalOptions, error) {
	u, err := url.Parse(c.URL.Reveal())
	if err != nil || u.Scheme != "redis" && u.Scheme != "rediss" || u.Hostname() == "" || u.Fragment != "" || u.Opaque != "" {
		return nil, errURL
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, errQuery
	}
	opts := &redis.UniversalOptions{
		Addrs:      []string{net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "6379"))},
		Username:   u.User.Username(),
		MasterName: query.Get("master_name"), IsClusterMode: query.Get("cluster") == "true",
		SentinelUsername: query.Get("sentinel_username"), SentinelPassword: query.Get("sentinel_password"),
	}
	opts.Password, _ = u.User.Password()
	if u.Scheme == "rediss" {
		opts.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: c.RootCAs}
	}
	for _, address := range query["addr"] {
		host, port, err := net.SplitHostPort(address)
		if _, wrong := strconv.ParseUint(port, 10, 16); err != nil || wrong != nil || host == "" {
			return nil, errQuery
		}
		opts.Addrs = append(opts.Addrs, address)
	}
	for _, known := range []string{"addr", "master_name", "sentinel_username", "sentinel_password", "cluster"} {
		query.Del(known)
	}
	if len(query) > 0 {
		return nil, errQuery
	}
	if number := strings.Trim(u.Path, "/"); number != "" {
		if opts.DB, err = strconv.Atoi(number); err != nil || opts.DB < 0 {
			return nil, errDB
		}
	}
	clustered := opts.MasterName == "" && (opts.IsClusterMode || len(opts.Addrs) > 1)
	switch {
	case opts.IsClusterMode && opts.MasterName != "":
		return nil, errBoth
	case clustered && opts.DB != 0:
		return nil, errDB
	}
	return opts, nil
}

// Open returns a client with these settings. It reads the files of the client's
// certificate, but does not connect: Redis may come later. The client logs
// nothing, so that whoever uses it says once what matters instead of the client at
// each failed connection. Close it.
func (c Config) Open() (redis.UniversalClient, error) {
	opts, err := c.options()
	if err != nil {
		return nil, err
	}
	redis.SetLogger(silent{})
	return redis.NewUniversalClient(opts), nil
}

type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

func (c Config) options() (*redis.UniversalOptions, error) {
	opts, err := c.parse()
	if err != nil {
		return nil, fmt.Errorf("redis.url: %w", err)
	}
	if c.CertFile != "" && opts.TLSConfig != nil {
		pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("redis.cert_file: %w", err)
		}
		opts.TLSConfig.Certificates = []tls.Certificate{pair}
	}
	// Without it a context ends nothing, and a black hole holds a request for
	// seconds.
	opts.ContextTimeoutEnabled = true
	// A connection that a restart has closed is replaced at once; more is the
	// caller's to decide.
	opts.MaxRetries, opts.MinRetryBackoff, opts.MaxRetryBackoff = 1, time.Millisecond, 5*time.Millisecond
	opts.DialTimeout, opts.DialerRetries = max(time.Second, c.Budget.Std()), 1
	opts.ReadTimeout, opts.WriteTimeout, opts.PoolTimeout = maxWait, maxWait, c.Budget.Std()
	// A pool of their own for pipelines, which overflows into this one, would be as
	// many connections again.
	opts.PoolSize, opts.PipelinePoolSize, opts.ReadBufferSize, opts.WriteBufferSize = c.PoolSize, -1, 4096, 4096
	opts.DisableIdentity = true
	opts.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	return opts, nil
}
