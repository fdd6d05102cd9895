package sygnal_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/push/sygnal"
)

var update = flag.Bool("update", false, "write the golden files")

// secret stands in the configurations wherever a secret that must not be
// repeated can.
const secret = "hunter2"

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

// Conformance (Web Push): a pusher of Sygnal's configuration | carried over (also TestImportedConfigurationsPassTheCheck)
func TestConfigurationsOfSygnal(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"token", "everything", "unsupported", "mistakes", "anchors"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base := filepath.Join("testdata", name)
			data, err := os.ReadFile(base + ".yaml")
			if err != nil {
				t.Fatal(err)
			}
			res, err := sygnal.Convert(data, "/srv/sygnal")
			if err != nil {
				t.Fatal(err)
			}
			warnings := strings.Join(append(res.Warnings, ""), "\n")
			golden(t, base+".herald.yaml", res.Config)
			golden(t, base+".warnings.txt", []byte(warnings))

			config := strings.ReplaceAll(string(res.Config), "user:"+secret+"@", "") // the proxy's
			if strings.Contains(config+warnings, secret) {
				t.Error("a secret is repeated")
			}
		})
	}
}

func TestFilesThatAreNoConfigurationOfSygnal(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ data, want string }{
		"an empty file":                   {"", "the file is not a mapping of Sygnal's sections"},
		"a list":                          {"- apps", "the file is not a mapping of Sygnal's sections"},
		"another program's configuration": {"listeners:\n  - port: 8008\n", "no apps are configured in it: is it Sygnal's configuration?"},
		"no apps":                         {"apps: {}", "no apps are configured in it: is it Sygnal's configuration?"},
		"apps that are a list":            {"apps: [com.example.ios]", "no apps are configured in it: is it Sygnal's configuration?"},
		"an app without a name":           {"apps: {'': {type: apns}}", "no apps are configured in it: is it Sygnal's configuration?"},
		"broken YAML": {
			"apps:\n  com.example.ios: {type: apns\n  key: " + secret,
			"line 3 is not valid YAML: ",
		},
		"two documents":                 {"apps: {a: {}}\n---\napps: {b: {}}\n", "the file holds more than one YAML document"},
		"an alias to nothing":           {"apps: *" + secret, "line 1 refers to an anchor that is not there"},
		"an alias to what it stands in": {"apps: &a {x: *a}", "the file is nested too deeply, or its aliases make too much of it"},
		"aliases that multiply": {
			"a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\n" +
				"d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\n",
			"the file is nested too deeply, or its aliases make too much of it",
		},
		"a key that is null":      {"a: b\n~: " + secret, "line 2 has a key that is not a name"},
		"text in another charset": {"apps: \xff", "the file is not UTF-8 text"},
		"a file that is too large": {
			"apps: {a: {type: apns}} #" + strings.Repeat("x", 1<<20),
			"the file is larger than 1 MiB: this is hardly a configuration",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := sygnal.Convert([]byte(tt.data), "/")
			if err == nil {
				t.Fatal("no error")
			}
			if !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("error %q, want %q", err, tt.want)
			}
			if strings.Contains(err.Error(), secret) {
				t.Errorf("the error repeats the file: %v", err)
			}
		})
	}
}

func TestListenersAndLevelsThatLeaveAChoice(t *testing.T) {
	t.Parallel()
	const noAddress = "http.bind_addresses: names no address; pushgw listens on 127.0.0.1"
	const exposed = "metrics.prometheus.address: http.admin_listen also serves profiles, from which the keys can be read: " +
		"let only your monitoring reach it"
	tests := map[string]struct {
		section string
		line    string // of the result
		warning string // "" is none
	}{
		"no address to listen on":                {"http: {bind_addresses: []}", `listen: ["127.0.0.1:5000"]`, noAddress},
		"all addresses of one family":            {"http: {bind_addresses: ['0.0.0.0']}", `listen: ["0.0.0.0:5000"]`, ""},
		"a host name":                            {"http: {bind_addresses: [localhost], port: 80}", `listen: ["localhost:80"]`, ""},
		"all addresses beside one":               {"http: {bind_addresses: ['::', 127.0.0.1]}", `listen: [":5000"]`, ""},
		"two addresses":                          {"http: {bind_addresses: ['::1', 127.0.0.1]}", `listen: ["[::1]:5000", "127.0.0.1:5000"]`, ""},
		"metrics on localhost":                   {"metrics: {prometheus: {enabled: yes, address: localhost}}", `admin_listen: "localhost:8000"`, ""},
		"metrics on all addresses":               {"metrics: {prometheus: {enabled: yes, address: '::'}}", `admin_listen: "[::]:8000"`, exposed},
		"metrics on an address that is a number": {"metrics: {prometheus: {enabled: yes, address: 1.5}}", `admin_listen: "127.0.0.1:8000"`, "metrics.prometheus.address: is not a text; left out"},
		"a level that Python does not know":      {"log: {setup: {root: {level: LOUD}}}", `unknown_app: "keep_pusher"`, "log.setup.root.level: is no level of Python's; pushgw logs at info"},
		"a level in lower case":                  {"log: {setup: {root: {level: critical}}}", `level: "error"`, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			res, err := sygnal.Convert([]byte(tt.section+"\napps: {a: {type: apns, certfile: /a.pem}}\n"), "/")
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(strings.Split(string(res.Config), "\n"), func(l string) bool { return strings.TrimSpace(l) == tt.line }) {
				t.Errorf("the result lacks the line %s:\n%s", tt.line, res.Config)
			}
			warnings := slices.DeleteFunc(res.Warnings, func(w string) bool { return strings.HasPrefix(w, "log.setup: ") })
			var want []string
			if tt.warning != "" {
				want = []string{tt.warning}
			}
			if diff := cmp.Diff(want, warnings, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("warnings (-want +got):\n%s", diff)
			}
		})
	}
}

// loaded is what pushgw's own reader finds in a configuration.
type loaded struct {
	HTTP       map[string]any            `yaml:"http"`
	UnknownApp string                    `yaml:"unknown_app"`
	Proxy      string                    `yaml:"proxy"`
	Log        map[string]any            `yaml:"log"`
	Metrics    map[string]any            `yaml:"metrics"`
	Apps       map[string]map[string]any `yaml:"apps" conf:"expand"`
}

func load(t *testing.T, config []byte) loaded {
	t.Helper()
	var l loaded
	if err := conf.Load(conf.LoadOptions{Name: "herald.yaml", Data: config}, &l); err != nil {
		t.Fatalf("%v\n%s", err, config)
	}
	return l
}

func TestEveryTextSurvives(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		"plain", "", " ", "null", "true", "yes", "0x10", "1e3", "- x", "a: b", "a #b", "{}", "[x", "&a", "*a", "!t", "%", "@", "`",
		`back\slash`, `"quoted"`, "it's", "a\nb", "tab\t", "bell\a\b\f\v\x1b\x7f", "é ü ß", "日本語", "😀", "\u00a0\u2028\u2029\ufeff",
		"\U000e0001", "$HOME", "${HOME}", "$${HOME}", "$$${HOME}", "${", "a$", "${a", "trailing ", "---", "...", "~",
	} {
		t.Run(s, func(t *testing.T) {
			t.Parallel()
			// JSON is YAML whose texts cannot be misread.
			data, err := json.Marshal(map[string]any{"apps": map[string]any{"a": map[string]any{
				"type": "gcm", "api_version": "v1", "project_id": "p", "service_account_file": "/f",
				"fcm_options": map[string]any{"android": map[string]any{"collapse_key": "x" + s, "list": []string{"x" + s}}},
			}}})
			if err != nil {
				t.Fatal(err)
			}
			res, err := sygnal.Convert(data, "/")
			if err != nil {
				t.Fatalf("%v\n%s", err, data)
			}
			want := map[string]any{"android": map[string]any{"collapse_key": "x" + s, "list": []any{"x" + s}}}
			if diff := cmp.Diff(want, load(t, res.Config).Apps["a"]["fcm_options"]); diff != "" {
				t.Errorf("fcm_options (-want +got):\n%s\n%s", diff, data)
			}
		})
	}
}

// FuzzConvert plants a secret between two arbitrary pieces of a file. Whatever
// becomes of it, pushgw's reader takes the result, and what the operator is
// told does not hold the secret.
func FuzzConvert(f *testing.F) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	const planted = "hunter2+planted="
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(data), "")
		before, after, _ := strings.Cut(string(data), secret)
		f.Add(before, after)
	}
	f.Add("apps: {a: {type: ", "}}")
	f.Add("apps: {a: {type: apns, platform: &p '", "', certfile: *p}}")
	f.Add("proxy: http://u:", "@h\napps: {a: {}}")
	f.Add("log: {setup: {root: {level: ", "}}}\napps: {a: }")
	f.Add("? ", "\n: x")
	f.Add("a: !t &", " x")
	f.Add("<<: [", "]\napps: {<<: {a: {}}}")
	f.Fuzz(func(t *testing.T, before, after string) {
		res, err := sygnal.Convert([]byte(before+planted+after), "/srv/sygnal")
		if err != nil {
			if strings.Contains(err.Error(), planted) {
				t.Errorf("the error holds the secret: %v", err)
			}
			return
		}
		l := load(t, res.Config)
		if l.UnknownApp != "keep_pusher" || len(l.HTTP) == 0 {
			t.Errorf("the result lacks what all have:\n%s", res.Config)
		}
		for _, w := range res.Warnings {
			// An app is called by its name, which is no secret.
			if !strings.HasPrefix(w, "apps") && strings.Contains(w, planted) {
				t.Errorf("a warning holds the secret: %s", w)
			}
		}
	})
}
