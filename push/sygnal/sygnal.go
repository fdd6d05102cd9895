// Package sygnal reads the configuration of a Sygnal and writes the one of
// pushgw that takes its place. It gets text and opens no files, and it
// does not know how pushgw reads its own configuration.
package sygnal

import (
	"cmp"
	"errors"
	"math"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Sygnal's defaults.
const (
	defaultPort           = 5000
	defaultAddress        = "127.0.0.1"
	defaultPrometheusPort = 8000
)

// Result is what came of a conversion.
type Result struct {
	// Config is the configuration of pushgw, in YAML with comments. All paths
	// in it are absolute. It holds the proxy's password if Sygnal's file did,
	// and no other secret.
	Config []byte
	// Warnings tell the operator, one line each and without secrets, what could
	// not be carried over as it was. They begin with the path of an option of
	// Sygnal's.
	Warnings []string
}

var errNoApps = errors.New("no apps are configured in it: is it Sygnal's configuration?")

// Convert turns data, the text of a sygnal.yaml, into a configuration of
// pushgw. dir is the absolute path of Sygnal's working directory, in which its
// relative paths begin; pushgw's begin at its own configuration file. The error
// says why data is not a configuration of Sygnal, without quoting it.
func Convert(data []byte, dir string) (Result, error) {
	root, err := parse(data)
	if err != nil {
		return Result{}, err
	}
	c := &converter{dir: dir}
	s := &section{obj: root, asked: make(map[string]bool), warn: c.warn}
	apps, _ := root.values["apps"].(*object)
	if apps == nil || len(apps.keys) == 0 {
		return Result{}, errNoApps
	}
	c.out.comment(0, `Made from a Sygnal configuration. "pushgw -config FILE -check" checks it; pushgw.example.yaml `+
		`shows all options.`)
	log, metrics := s.section("log"), s.section("metrics")
	access, prometheus := log.section("access"), metrics.section("prometheus")
	c.http(s.section("http"), prometheus, access)
	c.unknownApp()
	c.proxy(s)
	c.log(log, access)
	c.metrics(metrics, prometheus)
	if !c.apps(s.section("apps")) {
		return Result{}, errNoApps
	}
	for _, name := range []string{"database", "db"} {
		if s.has(name) {
			c.warn(name, "is not carried over: pushgw needs no database")
		}
	}
	s.done()
	return Result{Config: c.out.buf.Bytes(), Warnings: c.warnings}, nil
}

// converter carries one Convert through its steps.
type converter struct {
	dir      string
	relative bool // a path began in dir
	out      document
	warnings []string
}

func (c *converter) warn(path, text string) {
	c.warnings = append(c.warnings, path+": "+text)
}

// http writes where pushgw listens and whom it believes, which stands in three
// sections of Sygnal's.
func (c *converter) http(http, prometheus, access *section) {
	port, there := http.integer("port", 0, math.MaxUint16)
	if !there {
		port = defaultPort
	}
	addresses := c.addresses(http)
	http.done()

	c.out.section(0, "http")
	listen := make([]string, len(addresses))
	for i, address := range addresses {
		listen[i] = hostPort(address, port)
	}
	if len(listen) > 1 && slices.ContainsFunc(addresses, isWildcard) {
		c.out.comment(1, "All addresses, IPv4 and IPv6: one listener takes both.")
		listen = []string{hostPort("", port)}
	}
	c.out.set(1, "listen", listen)

	if enabled, _ := prometheus.bool("enabled"); enabled {
		c.adminListen(prometheus)
	}
	if trust, _ := access.bool("x_forwarded_for"); trust {
		c.out.comment(1, "Sygnal believes X-Forwarded-For of everyone, pushgw only that of the proxies named here. "+
			"It only decides which address stands in the log.")
		c.out.comment(1, `trusted_proxies: ["127.0.0.1"]`)
		c.warn("log.access.x_forwarded_for", "pushgw has to know whose X-Forwarded-For to believe: "+
			"set http.trusted_proxies to your proxies' addresses")
	}
}

func (c *converter) addresses(http *section) []string {
	if !http.has("bind_addresses") {
		return []string{defaultAddress}
	}
	list, ok := http.obj.values["bind_addresses"].([]any)
	if !ok {
		list = []any{http.obj.values["bind_addresses"]}
	}
	var addresses []string
	for _, item := range list {
		address, ok := item.(string)
		if !ok {
			c.warn("http.bind_addresses", "holds what is not an address; left out")
			continue
		}
		if !slices.Contains(addresses, address) {
			addresses = append(addresses, address)
		}
	}
	if len(addresses) == 0 {
		c.warn("http.bind_addresses", "names no address; pushgw listens on "+defaultAddress)
		return []string{defaultAddress}
	}
	return addresses
}

// adminListen puts pushgw's administrators' listener where Sygnal's metrics
// were.
func (c *converter) adminListen(prometheus *section) {
	address := cmp.Or(prometheus.text("address"), defaultAddress)
	port, there := prometheus.integer("port", 0, math.MaxUint16)
	if !there {
		port = defaultPrometheusPort
	}
	c.out.comment(1, "Where Sygnal had its metrics. Health and profiles are here too, and whoever reaches it can read "+
		"the process's memory.")
	c.out.set(1, "admin_listen", hostPort(address, port))
	if ip := net.ParseIP(address); address != "localhost" && (ip == nil || !ip.IsLoopback()) {
		c.warn("metrics.prometheus.address", "http.admin_listen also serves profiles, from which the keys can be read: "+
			"let only your monitoring reach it")
	}
}

func hostPort(address string, port int64) string {
	return net.JoinHostPort(strings.Trim(address, "[]"), strconv.FormatInt(port, 10))
}

// isWildcard reports whether an address stands for all addresses.
func isWildcard(address string) bool {
	ip := net.ParseIP(strings.Trim(address, "[]"))
	return address == "" || ip != nil && ip.IsUnspecified()
}

// unknownApp makes the one choice that Sygnal's file cannot express.
func (c *converter) unknownApp() {
	c.out.buf.WriteByte('\n')
	c.out.comment(0, `Sygnal gives a pushkey up whose app_id it does not know ("delete_pusher"), and the homeserver deletes the `+
		`pusher. keep_pusher answers 502 instead, so that an app forgotten here costs delays and no pushers.`)
	c.out.set(0, "unknown_app", "keep_pusher")
}

func (c *converter) proxy(s *section) {
	proxy := s.text("proxy")
	if proxy == "" {
		return
	}
	u, err := url.Parse(proxy)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		c.warn("proxy", "is not an http URL; left out, so pushgw connects to the push services directly")
		return
	}
	c.out.buf.WriteByte('\n')
	if u.User != nil {
		c.out.comment(0, "Holds a password: keep this file private, or write the URL into a file of its own and name it "+
			"in proxy_file.")
		c.warn("proxy", "its password stands in the new configuration too: keep the file private or use proxy_file")
	}
	c.out.set(0, "proxy", proxy)
}

// levels are Python's, by name and by number.
var levels = map[string]string{
	"CRITICAL": "error", "FATAL": "error", "50": "error", "ERROR": "error", "40": "error",
	"WARNING": "warn", "WARN": "warn", "30": "warn", "INFO": "info", "20": "info",
	"DEBUG": "debug", "10": "debug", "NOTSET": "debug", "0": "debug",
}

func (c *converter) log(s, access *section) {
	access.done()
	setup := s.section("setup")
	s.done()
	if len(setup.obj.keys) == 0 {
		return
	}
	c.warn("log.setup", "Python's handlers, formats and files are not carried over: pushgw writes its log to standard "+
		"error; only the root logger's level is kept")
	root := setup.section("root")
	if !root.has("level") {
		return
	}
	name := root.text("level")
	level, known := levels[strings.ToUpper(name)]
	if !known {
		c.warn("log.setup.root.level", "is no level of Python's; pushgw logs at info")
		return
	}
	c.out.section(0, "log")
	c.out.set(1, "level", level)
}

func (c *converter) metrics(s, prometheus *section) {
	prometheus.ignore("address", "port") // read only if they are enabled
	prometheus.done()
	if enabled, _ := prometheus.obj.values["enabled"].(bool); enabled {
		c.out.section(0, "metrics")
		c.out.comment(1, "Sygnal's metrics under their names, beside pushgw's own.")
		c.out.set(1, "sygnal_names", true)
	}

	tracing := s.section("opentracing")
	if on, _ := tracing.bool("enabled"); on {
		c.warn(tracing.path, "pushgw does not speak Jaeger's own protocol: set tracing.endpoint to an OTLP collector "+
			"(Jaeger has one on port 4318)")
	}
	tracing.ignore("implementation", "service_name", "jaeger")
	tracing.done()

	sentry := s.section("sentry")
	if on, _ := sentry.bool("enabled"); on {
		c.warn(sentry.path, "pushgw does not report to Sentry: watch its log and metrics")
	}
	sentry.ignore("dsn")
	sentry.done()
	s.done()
}
