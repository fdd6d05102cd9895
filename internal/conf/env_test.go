package conf_test

import (
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/matrix-herald/herald/internal/conf"
)

func TestSecretsSurviveAnyText(t *testing.T) {
	t.Parallel()
	const secret = "a: # \"b' ${x} {[*&!%@`\\"
	got, err := load(t, `
apps:
  a:
    key: ${SECRET}
    topic: 'x$${y}z-${A}${B}'
    port: ${PORT}
    options: {n: "<${A}>"}
redis: {password: 'not ${EXPANDED}'}
`, "/",
		"SECRET="+secret, "A=1", "B=", "PORT=443")
	if err != nil {
		t.Fatal(err)
	}
	want := defaults()
	want.Apps = map[string]app{"a": {Key: secret, Topic: "x${y}z-1", Port: 443, Options: map[string]any{"n": "<1>"}}}
	want.Redis = &redis{Password: "not ${EXPANDED}"}
	diff(t, got, want)
}

func TestExpansionFaults(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		text string
		want []string
	}{
		"every unset variable":   {"'${A}${B}'", []string{`test.yaml:1: apps["a"].topic: the environment variable A is not set`, `test.yaml:1: apps["a"].topic: the environment variable B is not set`}},
		"no closing brace":       {"'${A'", []string{`test.yaml:1: apps["a"].topic: "${" begins the name`}},
		"no name":                {"'${}'", []string{`test.yaml:1: apps["a"].topic: "${" begins the name`}},
		"a shell's default":      {"'${A:-x}'", []string{`test.yaml:1: apps["a"].topic: "${" begins the name`}},
		"a digit in first place": {"'${1A}'", []string{`test.yaml:1: apps["a"].topic: "${" begins the name`}},
	} {
		_, err := load(t, "apps: {a: {topic: "+test.text+"}}", "/")
		checkFaults(t, name, err, test.want)
	}
	_, err := load(t, "apps: {a: {options: {x: '${A}'}}}", "/")
	checkFaults(t, "a value without type", err, []string{`test.yaml:1: apps["a"].options["x"]: the environment variable A is not set`})
}

func TestEnvironmentOverridesTheFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "pw"), "from file\n")
	got, err := load(t, "http: {listen: a, limit: 1, trusted: [x]}\napps: {a: {key: \"${TEST_KEY}\"}}", dir,
		"TEST_HTTP_LISTEN=b", "TEST_HTTP_DRAIN_DELAY=7d", "TEST_HTTP_LIMIT=0x10", "TEST_HTTP_RATE=0.5", "TEST_HTTP_DEBUG=TRUE",
		"TEST_HTTP_TRUSTED=10.0.0.0/8, ::1,,", "TEST_HTTP_PORTS=1,2", "TEST_HTTP_SOURCE=::1/128", "TEST_HTTP_VERBOSE=true",
		"TEST_LOG_LEVEL=", "TEST_REDIS_PASSWORD_FILE=pw", "TEST_KEY=used by an expansion", "TEST_DATABASE_URL=ignored", "OTHER=1",
		"TEST_HTTP_LISTEN=a later entry of the same name")
	if err != nil {
		t.Fatal(err)
	}
	want := defaults()
	h := &want.HTTP
	h.Listen, h.DrainDelay, h.Limit, h.Rate, h.Debug = "b", conf.Duration(7*24*time.Hour), 16, 0.5, true
	h.Trusted, h.Ports, h.Source = []string{"10.0.0.0/8", "::1"}, []int{1, 2}, netip.MustParsePrefix("::1/128")
	verbose := true
	h.Verbose = &verbose
	want.LogLevel = ""
	want.Redis = &redis{Password: "from file", PasswordFile: filepath.Join(dir, "pw")}
	want.Apps = map[string]app{"a": {Key: "used by an expansion"}}
	diff(t, got, want)
}

func TestEnvironmentFaults(t *testing.T) {
	t.Parallel()
	_, err := load(t, "redis: {address: x}", "/", "TEST_HTTP_PORTS=1,x", "TEST_HTTP_DEBUG=", "TEST_REDIS_ADDR=x", "TEST_HTTP_DRAIN_DLAY=1s",
		"TEST_LOGLEVEL=x", "TEST_TROUBLE_WAIT=1s", "TEST_HTTP_OLD=x")
	checkFaults(t, "environment", err, []string{
		"TEST_HTTP_DEBUG: write true or false",
		"TEST_HTTP_PORTS: write a number",
		"TEST_HTTP_DRAIN_DLAY: names no option: did you mean TEST_HTTP_DRAIN_DELAY?",
		"TEST_HTTP_OLD: is http.listen now",
		"TEST_LOGLEVEL: names no option: did you mean TEST_LOG_LEVEL?",
		"TEST_REDIS_ADDR: names no option: did you mean TEST_REDIS_ADDRESS?",
		"TEST_TROUBLE_WAIT: is gone",
	})
}

// TestVariablesOfOthersAreNoFaults has those of Kubernetes for services whose names
// begin like the program's, and of Azure. The first kind is of the program's own
// service and not worth a word.
//
// Conformance (pushgw): environment variables of others: a warning; misspelt ones: a fault that names the right one (also TestEnvironmentFaults)
func TestVariablesOfOthersAreNoFaults(t *testing.T) {
	t.Parallel()
	own := []string{
		"TEST_SERVICE_HOST=10.0.0.1", "TEST_SERVICE_PORT=5000", "TEST_SERVICE_PORT_HTTP=5000", "TEST_PORT=tcp://10.0.0.1:5000",
		"TEST_PORT_5000_TCP=tcp://10.0.0.1:5000", "TEST_PORT_5000_TCP_PROTO=tcp", "TEST_PORT_5000_TCP_PORT=5000", "TEST_PORT_5000_TCP_ADDR=10.0.0.1",
	}
	foreign := []string{"TEST_ENDPOINT=x", "TEST_HEADER=x", "TEST_REDIS_PORT=x", "TEST_REDIS_PORT_6379_TCP_ADDR=x", "TEST_REDIS_SERVICE_HOST=x"}
	c := defaults()
	var warnings []string
	err := conf.Load(conf.LoadOptions{
		EnvPrefix: "TEST_", Environ: append(own, foreign...), Warn: func(w string) { warnings = append(warnings, w) },
	}, &c)
	if err != nil {
		t.Error(err)
	}
	const names = "TEST_ENDPOINT, TEST_HEADER, TEST_REDIS_PORT, TEST_REDIS_PORT_6379_TCP_ADDR, TEST_REDIS_SERVICE_HOST"
	if len(warnings) != 1 || !strings.HasSuffix(warnings[0], " are ignored: "+names) {
		t.Errorf("warnings: %q", warnings)
	}
}

func TestLookupEnvReplacesEnviron(t *testing.T) {
	t.Parallel()
	c := defaults()
	err := conf.Load(conf.LoadOptions{EnvPrefix: "TEST_", LookupEnv: func(name string) (string, bool) {
		return "from " + name, name == "TEST_LOG_LEVEL"
	}}, &c)
	if err != nil || c.LogLevel != "from TEST_LOG_LEVEL" {
		t.Errorf("LogLevel = %q, %v", c.LogLevel, err)
	}
}
