package conf_test

import (
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/internal/conf"
)

// config has one option of each kind that conf knows.
type config struct {
	HTTP struct {
		Listen     string        `yaml:"listen"`
		DrainDelay conf.Duration `yaml:"drain_delay"`
		Limit      int           `yaml:"limit"`
		Small      uint8         `yaml:"small"`
		Rate       float64       `yaml:"rate"`
		Debug      bool          `yaml:"debug"`
		Trusted    []string      `yaml:"trusted"`
		Ports      []int         `yaml:"ports"`
		Source     netip.Prefix  `yaml:"source"`
		Verbose    *bool         `yaml:"verbose"`
	} `yaml:"http"`
	Redis    *redis                    `yaml:"redis"`
	Apps     map[string]app            `yaml:"apps" conf:"expand"`
	Servers  map[netip.Prefix][]string `yaml:"servers"`
	Terms    []term                    `yaml:"terms"`
	Untagged string
	Common   `yaml:",inline"`
}

type redis struct {
	Address      string      `yaml:"address"`
	Password     conf.Secret `yaml:"password"`
	PasswordFile string      `yaml:"password_file"`
}

type app struct {
	Type    string         `yaml:"type"`
	Topic   string         `yaml:"topic"`
	Key     conf.Secret    `yaml:"key"`
	KeyFile string         `yaml:"key_file"`
	Port    int            `yaml:"port"`
	Timeout conf.Duration  `yaml:"timeout"`
	Options map[string]any `yaml:"options"`
	Extra   *term          `yaml:"extra"`
}

type term struct {
	Name     string `yaml:"name"`
	TextFile string `yaml:"text_file"`
}

// Common is inlined.
type Common struct {
	LogLevel string `yaml:"log-level"`
}

func defaults() config {
	var c config
	c.HTTP.Listen = "127.0.0.1:8080"
	c.HTTP.DrainDelay = conf.Duration(5 * time.Second)
	c.LogLevel = "info"
	return c
}

// load reads text over the defaults, with the environment in env.
func load(t testing.TB, text, dir string, env ...string) (config, error) {
	t.Helper()
	c := defaults()
	err := conf.Load(conf.LoadOptions{
		Name:      "test.yaml",
		Data:      []byte(text),
		Dir:       dir,
		EnvPrefix: "TEST_",
		Environ:   env,
		Gone:      map[string]string{"trouble": "is gone", "http.limit.*": "is one number now", "apps.*.pool": "is gone, too", "http.old": "is http.listen now"},
	}, &c)
	return c, err
}

func diff(t *testing.T, got, want any) {
	t.Helper()
	// Secrets are compared by their text, not by what they print.
	reveal := cmp.Transformer("Reveal", conf.Secret.Reveal)
	if d := cmp.Diff(want, got, reveal, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func TestLoadReadsEveryKindOfOption(t *testing.T) {
	t.Parallel()
	got, err := load(t, `
http:
  listen: "[::1]:8080"
  drain_delay: 1h30m
  limit: 1_000
  small: 255
  rate: 1e3
  debug: true
  trusted: [10.0.0.0/8, "::1"]
  ports:
    - 1
    - 2
  source: 192.0.2.0/24
  verbose: false
redis:
  address: redis:6379
  password: 007
servers:
  10.0.0.0/8: [example.org]
terms:
  - name: privacy
    text_file: /terms/privacy.txt
log-level: debug
apps:
  com.example.app:
    type: apns
    timeout: 2s
    options: {sound: default, n: 3, list: [1.5, true, null], "deep": {a: b}}
    extra: {name: x}
  ? com.example.other
  : topic: |
      first
      second
`, "/")
	if err != nil {
		t.Fatal(err)
	}
	want := defaults()
	h := &want.HTTP
	h.Listen, h.DrainDelay, h.Limit, h.Small, h.Rate, h.Debug = "[::1]:8080", conf.Duration(90*time.Minute), 1000, 255, 1000, true
	h.Trusted, h.Ports, h.Source, h.Verbose = []string{"10.0.0.0/8", "::1"}, []int{1, 2}, netip.MustParsePrefix("192.0.2.0/24"), new(bool)
	want.Redis = &redis{Address: "redis:6379", Password: "007"}
	want.Servers = map[netip.Prefix][]string{netip.MustParsePrefix("10.0.0.0/8"): {"example.org"}}
	want.Terms = []term{{Name: "privacy", TextFile: "/terms/privacy.txt"}}
	want.LogLevel = "debug"
	want.Apps = map[string]app{
		"com.example.app": {
			Type: "apns", Timeout: conf.Duration(2 * time.Second), Extra: &term{Name: "x"},
			Options: map[string]any{"sound": "default", "n": uint64(3), "list": []any{1.5, true, nil}, "deep": map[string]any{"a": "b"}},
		},
		"com.example.other": {Topic: "first\nsecond\n"},
	}
	diff(t, got, want)
}

func TestLoadKeepsDefaults(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"an empty file": "",
		"only comments": "# nothing\n",
		"only a byte order mark and a document start":   "\ufeff---\n",
		"a section whose options are commented out":     "http:\n  # limit: 3\n",
		"sections, lists and maps without content":      "redis:\napps:\nterms:\nservers: ~\n",
		"an empty section":                              "http: {}\n",
		"the same value again, after a byte order mark": "\ufefflog-level: info\n",
	} {
		got, err := load(t, text, "/")
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		diff(t, got, defaults())
	}
}

func TestLoadMergesIntoDefaultMapEntries(t *testing.T) {
	t.Parallel()
	c := config{Apps: map[string]app{"a": {Type: "apns", Topic: "old"}, "b": {Type: "fcm"}}}
	if err := conf.Load(conf.LoadOptions{Data: []byte("apps: {a: {topic: new}}")}, &c); err != nil {
		t.Fatal(err)
	}
	diff(t, c.Apps, map[string]app{"a": {Type: "apns", Topic: "new"}, "b": {Type: "fcm"}})
}

func TestLoadReportsFaults(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		text string
		want []string // one for each line of the error: its beginning
	}{
		"unknown options at every level": {
			"htp: 1\nhttp:\n  listn: x\napps:\n  com.example.app:\n    topik: x\nterms:\n  - nam: x\n  - name: y\n    nam: z\n",
			[]string{
				"test.yaml:1: htp: unknown option: correct its name or remove it; known here: http, redis, ",
				"test.yaml:3: http.listn: unknown option",
				`test.yaml:6: apps["com.example.app"].topik: unknown option: correct its name or remove it; known here: type, topic, key,`,
				"test.yaml:8: terms[0].nam: unknown option",
				"test.yaml:10: terms[1].nam: unknown option",
			},
		},
		"wrong types of every kind": {
			`http:
  listen: [a]
  drain_delay: 25
  limit: "5"
  small: 256
  rate: fast
  debug: yes
  trusted: 10.0.0.0/8
  ports: [1, x]
  source: nowhere
redis: [1]
terms: {name: x}
apps: text
log-level: true
`,
			[]string{
				"test.yaml:2: http.listen: is a single value",
				`test.yaml:3: http.drain_delay: not a duration: write a number and a unit, such as "500ms"`,
				"test.yaml:4: http.limit: is not a text: remove the quotes",
				"test.yaml:5: http.small: the number is out of range",
				"test.yaml:6: http.rate: write a number",
				"test.yaml:7: http.debug: write true or false",
				"test.yaml:8: http.trusted: is a list",
				"test.yaml:9: http.ports[1]: write a number",
				"test.yaml:10: http.source: is not a valid Prefix",
				"test.yaml:11: redis: is a group of options",
				"test.yaml:12: terms: is a list",
				"test.yaml:13: apps: is a group of options",
				"test.yaml:14: log-level: is a text: put quotes around it",
			},
		},
		"a negative number where none can be": {"http: {small: -1}", []string{"test.yaml:1: http.small: write a number"}},
		"a number too big for its kind":       {"http: {limit: 99999999999999999999}", []string{"test.yaml:1: http.limit: the number is out of range"}},
		"an option without value":             {"http:\n  limit:\n  drain_delay: ~\n", []string{"test.yaml:2: http.limit: has no value", "test.yaml:3: http.drain_delay: has no value"}},
		"options set twice": {
			"log-level: a\nhttp:\n  limit: 1\n  limit: 2\nlog-level: b\napps:\n  a.b: {}\n  a.b: {}\n",
			[]string{"test.yaml:5: log-level: is set twice, first in line 1", "test.yaml:4: http.limit: is set twice, first in line 3", `test.yaml:8: apps["a.b"]: is set twice`},
		},
		"keys that are wrong for their map": {"servers:\n  nowhere: [a]\n", []string{`test.yaml:2: servers["nowhere"]: this name is wrong: is not a valid Prefix`}},
		"a key that is no name":             {"http:\n  ~: 1\n", []string{"test.yaml:2: http: holds a key that is not a name"}},
		"a key that may be a secret":        {"http:\n  \"pass word\": 1\n", []string{"test.yaml:2: http.?: unknown option"}},
		"anchors, aliases and tags": {
			"http:\n  listen: &a x\n  trusted: [*.example.org]\nlog-level: !!str x\n",
			[]string{"test.yaml:2: http.listen: anchors, aliases and tags", "test.yaml:3: http.trusted[0]: anchors, aliases", "test.yaml:4: log-level: anchors, aliases"},
		},
		"a merge key":        {"http:\n  <<: {limit: 1}\n", []string{"test.yaml:2: http: holds a key that is not a name"}},
		"a list as the file": {"- a\n", []string{"test.yaml:1: is a group of options"}},
		"two documents":      {"log-level: a\n---\nlog-level: b\n", []string{"test.yaml:3: a second YAML document begins"}},
		"broken YAML":        {"http:\n  listen: \"x\nlog-level: y\n", []string{"test.yaml:2: is not valid YAML: could not find end character of double-quoted text"}},
		"a tab":              {"http:\n\t- x\n", []string{"test.yaml:2: is not valid YAML: a tab stands where only spaces may"}},
		"options that are gone": {
			"trouble: {wait: 1s}\nhttp:\n  old: x\n  limit: {high: 1, low: 2}\napps:\n  a.b: {pool: 1}\n",
			[]string{"test.yaml:1: trouble: is gone", "test.yaml:3: http.old: is http.listen now", "test.yaml:4: http.limit: is one number now", `test.yaml:6: apps["a.b"].pool: is gone, too`},
		},
		"a message with quotes":  {"%YAML 9.secret\n---\na: 1\n", []string{"test.yaml:1: is not valid YAML: cannot be read"}},
		"bytes that are no text": {"log-level: \xff\n", []string{"test.yaml: is not UTF-8 text"}},
		"a huge file":            {strings.Repeat("#", 1<<20+1), []string{"test.yaml: is larger than 1 MiB"}},
	} {
		_, err := load(t, test.text, "/")
		checkFaults(t, name, err, test.want)
	}
}

// checkFaults compares the lines of err with their expected beginnings.
func checkFaults(t *testing.T, name string, err error, want []string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: no error", name)
		return
	}
	got := strings.Split(err.Error(), "\n")
	if len(got) != len(want) {
		t.Errorf("%s: got %d faults, want %d:\n%v", name, len(got), len(want), err)
		return
	}
	for i := range want {
		if !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("%s: fault %d is\n\t%s\nwant\n\t%s…", name, i, got[i], want[i])
		}
	}
}

func TestLoadReportsFaultsOfAllStepsTogether(t *testing.T) {
	t.Parallel()
	_, err := load(t, "htp: 1\nredis: {password_file: missing}\napps: {a: {topic: \"${UNSET}\"}}\n", t.TempDir(),
		"TEST_HTTP_LIMIT=many", "TEST_HTTP_LIMITS=1")
	checkFaults(t, "all steps", err, []string{
		"test.yaml:1: htp: unknown option",
		`test.yaml:3: apps["a"].topic: the environment variable UNSET is not set`,
		"TEST_HTTP_LIMIT: write a number",
		"TEST_HTTP_LIMITS: names no option",
		"test.yaml:2: redis.password_file: there is no such file",
	})
	if faults, ok := err.(interface{ Unwrap() []error }); !ok || len(faults.Unwrap()) != 5 {
		t.Errorf("the error does not unwrap to its 5 faults")
	}
}

func TestLoadRefusesWhatIsNoPointerToAStruct(t *testing.T) {
	t.Parallel()
	for _, dst := range []any{nil, config{}, new(int), (*config)(nil)} {
		if err := conf.Load(conf.LoadOptions{}, dst); err == nil {
			t.Errorf("Load into %T: no error", dst)
		}
	}
}

func TestLoadRefusesAnOptionOfAGoTypeItCannotSet(t *testing.T) {
	t.Parallel()
	var c struct {
		Events chan int `yaml:"events"`
	}
	err := conf.Load(conf.LoadOptions{Name: "test.yaml", Data: []byte("events: 1")}, &c)
	checkFaults(t, "a channel", err, []string{"test.yaml:1: events: cannot be set in a file"})
}

func writeFile(t testing.TB, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
