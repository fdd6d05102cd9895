package serve

import (
	"io/fs"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/matrix-herald/herald/internal/conf"
)

// Config says where and how a service listens. DefaultConfig has the defaults.
type Config struct {
	// Listen is the addresses of the API: host:port, or unix:/path.
	Listen []string `yaml:"listen"`
	// AdminListen is the address of metrics, health and profiles; empty is none.
	// Keep it private: profiles show the memory of the process.
	AdminListen string `yaml:"admin_listen"`
	// TLS makes the API addresses other than Unix sockets speak TLS.
	TLS TLSConfig `yaml:"tls"`
	// TrustedProxies are the addresses and ranges of your proxies, whose
	// X-Forwarded-For is believed.
	TrustedProxies []string `yaml:"trusted_proxies"`
	// StopWithin is how long stopping may take. After SIGTERM requests are taken for
	// 5 s more, at most half of it; requests under way have the rest.
	StopWithin conf.Duration `yaml:"stop_within"`

	// What follows are no options: nobody knows a better value. Tests do.

	// RequestTimeout bounds a whole request, ReadTimeout the reading of it, and
	// WriteTimeout the time from the end of its headers to the end of its answer.
	RequestTimeout conf.Duration `yaml:"test_request_timeout" conf:"hidden"`
	ReadTimeout    conf.Duration `yaml:"test_read_timeout" conf:"hidden"`
	WriteTimeout   conf.Duration
	// DrainDelay is how long requests are still accepted after the order to stop,
	// while /ready already says no; at most half of StopWithin.
	DrainDelay conf.Duration `yaml:"test_drain_delay" conf:"hidden"`
	// MaxConnections bounds the simultaneous connections to the API, and so do three
	// quarters of the files that the process may open. For one more, the one that has
	// waited for a request the longest is closed; those with a request at work never
	// are.
	MaxConnections int
	// SocketMode is the mode of Unix sockets.
	SocketMode fs.FileMode
	// MaxHeaderBytes bounds the headers of a request, ReadHeaderTimeout the reading
	// of them.
	MaxHeaderBytes    int
	ReadHeaderTimeout conf.Duration
	// IdleTimeout bounds how long a connection waits for its next request. It
	// must be longer than clients keep theirs, which is 120 s for Synapse:
	// Synapse does not repeat a POST that meets a closing connection.
	IdleTimeout conf.Duration
}

// GoneOptions says what became of options of former versions; path is where the
// Config stands in the file.
func GoneOptions(path string) map[string]string {
	const stop = "is part of stop_within now, which says how long stopping may take in all: write stop_within: 35s"
	return map[string]string{
		path + ".socket_mode":         "is gone: Unix sockets have the mode 0660; remove it",
		path + ".tls.reload_interval": "is gone: the files are looked at every 5 s; remove it",
		path + ".max_connections":     "is gone: there are as many as three quarters of the files that the process may open, and at most 16384; remove it",
		path + ".max_header_bytes":    "is gone: headers have up to 32 KiB; remove it",
		path + ".read_header_timeout": "is gone: headers have to arrive within 10 s; remove it",
		path + ".request_timeout":     "is gone: a request is answered before homeservers and clients give up; remove it",
		path + ".read_timeout":        "is gone: a request has to arrive within 15 s; remove it",
		path + ".write_timeout":       "is gone: an answer has to be taken within a minute; remove it",
		path + ".idle_timeout":        "is gone: a connection waits 150 s for its next request, longer than Synapse's; remove it",
		path + ".drain_delay":         stop,
		path + ".shutdown_budget":     stop,
	}
}

// TLSConfig names a certificate and its key. Both files are read again when they
// change; a pair that does not fit together leaves the old one in use.
type TLSConfig struct {
	// CertFile is a PEM file with the certificate, followed by its chain.
	CertFile string `yaml:"cert_file"`
	// KeyFile is a PEM file with the private key.
	KeyFile string `yaml:"key_file"`
	// ReloadInterval is the least time between two looks at the files. It is no
	// option.
	ReloadInterval conf.Duration
}

// DefaultConfig returns the defaults, which have no address in them.
func DefaultConfig() Config {
	return Config{
		StopWithin:        conf.Duration(35 * time.Second),
		RequestTimeout:    conf.Duration(25 * time.Second),
		ReadTimeout:       conf.Duration(15 * time.Second),
		WriteTimeout:      conf.Duration(time.Minute),
		DrainDelay:        conf.Duration(5 * time.Second),
		MaxConnections:    16384,
		SocketMode:        0o660,
		TLS:               TLSConfig{ReloadInterval: conf.Duration(5 * time.Second)},
		MaxHeaderBytes:    32 << 10,
		ReadHeaderTimeout: conf.Duration(10 * time.Second),
		IdleTimeout:       conf.Duration(150 * time.Second),
	}
}

// drainDelay returns how long requests are still accepted, and stopBudget how long
// those in flight may take after that.
func (c Config) drainDelay() time.Duration { return min(c.DrainDelay, c.StopWithin/2).Std() }

func (c Config) stopBudget() time.Duration { return c.StopWithin.Std() - c.drainDelay() }

// Validate adds the faults of c, and of the files it names, to p; path is where c
// stands in the file.
func (c Config) Validate(path string, p *conf.Problems) {
	const remedy = "write host:port (or :port for all addresses), or unix:/path"
	if len(c.Listen) == 0 {
		p.Add(path+".listen", nil, "name at least one address: "+remedy)
	}
	for i, address := range c.Listen {
		if !validAddress(address) {
			p.Add(path+".listen["+strconv.Itoa(i)+"]", address, remedy)
		}
	}
	switch {
	case c.AdminListen == "":
	case !validAddress(c.AdminListen):
		p.Add(path+".admin_listen", c.AdminListen, remedy)
	case slices.ContainsFunc(c.Listen, func(api string) bool { return sameAddress(api, c.AdminListen) }):
		p.Add(path+".admin_listen", c.AdminListen, "is an address of the API, too: use another port")
	}
	p.KeyPair(path+".tls", c.TLS.CertFile, c.TLS.KeyFile)
	for i, s := range c.TrustedProxies {
		if _, err := conf.ParseNetwork(s); err != nil {
			p.Add(path+".trusted_proxies["+strconv.Itoa(i)+"]", s, "use an address or a range such as 10.0.0.0/8")
		}
	}
	if c.StopWithin <= 0 {
		p.Add(path+".stop_within", c.StopWithin, "write a longer duration, such as \"35s\"")
	}
}

// connections returns the bound of connections to the API.
func (c Config) connections() int {
	if files := openFiles(); files > 0 {
		return min(c.MaxConnections, max(files/4*3, 1))
	}
	return c.MaxConnections
}

// HealthTarget returns what CheckHealth asks for the health of a service that
// runs with c: its first API address.
func (c Config) HealthTarget() string {
	if len(c.Listen) == 0 {
		return ""
	}
	if _, isUnix := unixPath(c.Listen[0]); isUnix || c.TLS.CertFile == "" {
		return c.Listen[0]
	}
	return "https://" + c.Listen[0]
}

// unixPath returns the path of a Unix socket address.
func unixPath(address string) (string, bool) {
	return strings.CutPrefix(address, "unix:")
}

// sameAddress says whether two listeners cannot be at once. A port of 0 is any that
// is free.
func sameAddress(a, b string) bool {
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	if errA != nil || errB != nil {
		return a == b
	}
	all := func(host string) bool {
		ip, err := netip.ParseAddr(host)
		return host == "" || err == nil && ip.IsUnspecified()
	}
	return portA == portB && portA != "0" && (hostA == hostB || all(hostA) || all(hostB))
}

func validAddress(address string) bool {
	if path, ok := unixPath(address); ok {
		return path != ""
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	_, err = strconv.ParseUint(port, 10, 16)
	return err == nil
}
