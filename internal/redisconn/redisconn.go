package redisconn

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/matrix-herald/herald/internal/conf"
)

// Config says where Redis is and how long it may take.
type Config struct {
	// Addresses are host:port of the server, of the Sentinels, or of some nodes
	// of the Cluster. Without any there is no Redis.
	Addresses []string `yaml:"addresses"`
	// MasterName is the name by which Sentinels know the server; it makes
	// Addresses theirs.
	MasterName string `yaml:"master_name"`
	// Cluster says that a single address is one of a Cluster. Several are
	// without it too, unless they are Sentinels.
	Cluster      bool        `yaml:"cluster"`
	Username     string      `yaml:"username"`
	Password     conf.Secret `yaml:"password"`
	PasswordFile string      `yaml:"password_file"`
	// SentinelUsername and SentinelPassword are for the Sentinels.
	SentinelUsername     string      `yaml:"sentinel_username"`
	SentinelPassword     conf.Secret `yaml:"sentinel_password"`
	SentinelPasswordFile string      `yaml:"sentinel_password_file"`
	// DB is the number of the database. A Cluster has only 0.
	DB  int       `yaml:"db"`
	TLS TLSConfig `yaml:"tls"`
	// KeyPrefix begins every key.
	KeyPrefix string `yaml:"key_prefix"`
	// Budget is how long a request waits for Redis each time it asks.
	Budget conf.Duration `yaml:"budget"`
	// PoolSize bounds the connections to each server.
	PoolSize int `yaml:"pool_size"`
}

// TLSConfig says how Redis is reached over TLS.
type TLSConfig struct {
	Enabled bool `yaml:"enabled"`
	// CAFile holds certificate authorities (PEM) instead of the system's.
	CAFile string `yaml:"ca_file"`
	// CertFile and KeyFile are the client's certificate and key (PEM).
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
}

// DefaultConfig returns the defaults, with prefix before every key; they have no
// address.
func DefaultConfig(prefix string) Config {
	return Config{KeyPrefix: prefix, Budget: conf.Duration(50 * time.Millisecond), PoolSize: 20}
}

// Enabled reports whether there is a Redis.
func (c Config) Enabled() bool { return len(c.Addresses) > 0 }

const (
	// maxBudget leaves most of a request's time to what it is for.
	maxBudget = 5 * time.Second
	maxPool   = 1000
	maxPrefix = 100 // bytes
)

// Validate adds all faults of the settings at path to p. It opens no file.
func (c Config) Validate(path string, p *conf.Problems) {
	add := func(option string, value any, remedy string) { p.Add(path+"."+option, value, remedy) }
	for i, a := range c.Addresses {
		host, port, err := net.SplitHostPort(a)
		_, wrong := strconv.ParseUint(port, 10, 16)
		option := fmt.Sprintf("addresses[%d]", i)
		switch {
		case strings.Contains(a, "://"):
			add(option, nil, "use host:port without a scheme, such as 127.0.0.1:6379; user, password, db and tls have their own options")
		case err != nil || host == "" || wrong != nil:
			add(option, nil, "use host:port, such as 127.0.0.1:6379; user and password have their own options")
		}
	}
	if c.Cluster && c.MasterName != "" {
		add("cluster", c.Cluster, "set cluster or master_name, not both")
	}
	clustered := c.MasterName == "" && (c.Cluster || len(c.Addresses) > 1)
	if c.DB < 0 || clustered && c.DB != 0 {
		add("db", c.DB, "use 0 or more, and 0 for a Cluster")
	}
	if d := c.Budget.Std(); d <= 0 || d > maxBudget {
		add("budget", c.Budget, "use a duration up to 5s, such as 50ms")
	}
	if c.PoolSize < 1 || c.PoolSize > maxPool {
		add("pool_size", c.PoolSize, "use a number from 1 to 1000")
	}
	if len(c.KeyPrefix) > maxPrefix {
		add("key_prefix", nil, "use at most 100 bytes")
	}
	if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") {
		add("tls.cert_file", nil, "set cert_file and key_file, or neither")
	}
}

// Open returns a client with these settings. It reads the files of tls, but does
// not connect: Redis may come later. The client logs nothing, so that whoever
// uses it says once what matters instead of the client at each failed
// connection. Close it.
func (c Config) Open() (redis.UniversalClient, error) {
	if !c.Enabled() {
		return nil, errors.New("redis: no addresses")
	}
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
	tlsConfig, err := c.TLS.load()
	if err != nil {
		return nil, err
	}
	return &redis.UniversalOptions{
		Addrs: c.Addresses, MasterName: c.MasterName, IsClusterMode: c.Cluster, DB: c.DB, TLSConfig: tlsConfig,
		Username: c.Username, Password: c.Password.Reveal(),
		SentinelUsername: c.SentinelUsername, SentinelPassword: c.SentinelPassword.Reveal(),
		// Without it a context ends nothing, and a black hole holds a request
		// for seconds.
		ContextTimeoutEnabled: true,
		// A connection that a restart has closed is replaced at once; more is
		// the caller's to decide.
		MaxRetries: 1, MinRetryBackoff: time.Millisecond, MaxRetryBackoff: 5 * time.Millisecond,
		DialTimeout: max(time.Second, c.Budget.Std()), DialerRetries: 1,
		ReadTimeout: maxBudget, WriteTimeout: maxBudget, PoolTimeout: c.Budget.Std(),
		// A pool of their own for pipelines, which overflows into this one, would
		// be as many connections again.
		PoolSize: c.PoolSize, PipelinePoolSize: -1, ReadBufferSize: 4096, WriteBufferSize: 4096,
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}, nil
}

func (c TLSConfig) load() (*tls.Config, error) {
	if !c.Enabled {
		return nil, nil
	}
	loaded := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("redis: tls.ca_file: %w", err)
		}
		loaded.RootCAs = x509.NewCertPool()
		if !loaded.RootCAs.AppendCertsFromPEM(pem) {
			return nil, errors.New("redis: tls.ca_file: there is no PEM certificate in it")
		}
	}
	if c.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("redis: tls.cert_file: %w", err)
		}
		loaded.Certificates = []tls.Certificate{pair}
	}
	return loaded, nil
}
