package serve

import (
	"io/fs"
	"math"
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
	// Listen are the addresses of the API: host:port, or unix:/path.
	Listen []string `yaml:"listen"`
	// AdminListen is the address for metrics, health and profiles. Empty means
	// that they are not served. Whoever reaches it can read the memory of the
	// process.
	AdminListen string `yaml:"admin_listen"`
	// TLS makes the API addresses other than Unix sockets speak TLS.
	TLS TLSConfig `yaml:"tls"`
	// MaxConnections bounds the simultaneous connections to the API. For one
	// more, the one that has waited for a request the longest is closed; those
	// with a request at work never are. 0 means three quarters of the files that
	// the process may open, which also bounds any other number.
	MaxConnections int `yaml:"max_connections"`
	// ReadTimeout bounds the reading of a whole request.
	ReadTimeout conf.Duration `yaml:"read_timeout"`
	// WriteTimeout bounds the time from the end of a request's headers to the
	// end of its answer.
	WriteTimeout conf.Duration `yaml:"write_timeout"`
	// DrainDelay is how long requests are still accepted after the order to
	// stop, while /ready already says no.
	DrainDelay conf.Duration `yaml:"drain_delay"`
	// ShutdownBudget is how long requests in flight may take to finish after
	// that.
	ShutdownBudget conf.Duration `yaml:"shutdown_budget"`

	// What follows are no options: nobody knows a better value. Tests do.

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
	return map[string]string{
		path + ".socket_mode":         "is gone: Unix sockets have the mode 0660; remove it",
		path + ".tls.reload_interval": "is gone: the files are looked at every 5 s; remove it",
		path + ".max_header_bytes":    "is gone: headers have up to 32 KiB; remove it",
		path + ".read_header_timeout": "is gone: headers have to arrive within 10 s; remove it",
		path + ".idle_timeout":        "is gone: a connection waits 150 s for its next request, longer than Synapse's; remove it",
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
		SocketMode:        0o660,
		TLS:               TLSConfig{ReloadInterval: conf.Duration(5 * time.Second)},
		MaxConnections:    16384,
		MaxHeaderBytes:    32 << 10,
		ReadHeaderTimeout: conf.Duration(10 * time.Second),
		ReadTimeout:       conf.Duration(30 * time.Second),
		WriteTimeout:      conf.Duration(time.Minute),
		IdleTimeout:       conf.Duration(150 * time.Second),
		DrainDelay:        conf.Duration(5 * time.Second),
		ShutdownBudget:    conf.Duration(30 * time.Second),
	}
}

// Validate adds the faults of c to p; path is where c stands in the file. It
// does not touch files or sockets.
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
	if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") {
		p.Add(path+".tls", nil, "set both cert_file and key_file, or neither")
	}
	c.validateBounds(path, p)
}

// validateBounds adds the faults of numbers and durations. net/http takes 0 for
// another default in most of them, so 0 is refused where it has no meaning here.
func (c Config) validateBounds(path string, p *conf.Problems) {
	if c.MaxConnections < 0 {
		p.Add(path+".max_connections", c.MaxConnections, "write 0 for as many as the process may open files for, or more")
	}
	for _, d := range []struct {
		name  string
		value conf.Duration
		least conf.Duration
	}{
		{"read_timeout", c.ReadTimeout, 1},
		{"write_timeout", c.WriteTimeout, 1},
		{"shutdown_budget", c.ShutdownBudget, 1},
		{"drain_delay", c.DrainDelay, 0},
	} {
		if d.value < d.least {
			p.Add(path+"."+d.name, d.value, "write a longer duration, such as \"10s\"")
		}
	}
}

// connections returns the bound of connections to the API.
func (c Config) connections() int {
	most := math.MaxInt
	if files := openFiles(); files > 0 {
		most = max(files/4*3, 1)
	}
	if c.MaxConnections > 0 {
		return min(c.MaxConnections, most)
	}
	return most
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
