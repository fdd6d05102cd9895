package conf_test

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/internal/conf"
)

func TestSecretsAreReadFromTheirFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, test := range map[string]struct{ content, want string }{
		"without newline":              {"hunter2", "hunter2"},
		"one newline is cut":           {"hunter2\n", "hunter2"},
		"a Windows newline is cut":     {"hunter2\r\n", "hunter2"},
		"only the last newline is cut": {" a\nb \n\n", " a\nb \n"},
		"exactly 64 KiB":               {strings.Repeat("x", 64<<10), strings.Repeat("x", 64<<10)},
	} {
		writeFile(t, filepath.Join(dir, name), test.content)
		got, err := load(t, "redis: {password_file: "+name+"}\napps: {a.b: {key_file: '${DIR}/"+name+"'}}", dir, "DIR="+dir)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got.Redis.Password.Reveal() != test.want || got.Apps["a.b"].Key.Reveal() != test.want {
			t.Errorf("%s: got %q and %q", name, got.Redis.Password.Reveal(), got.Apps["a.b"].Key.Reveal())
		}
		if path := filepath.Join(dir, name); got.Redis.PasswordFile != path || got.Apps["a.b"].KeyFile != path {
			t.Errorf("%s: the paths are %q and %q, want %q", name, got.Redis.PasswordFile, got.Apps["a.b"].KeyFile, path)
		}
	}
}

func TestSecretFileFaults(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "empty"), "\n")
	writeFile(t, filepath.Join(dir, "good"), "x")
	writeFile(t, filepath.Join(dir, "huge"), strings.Repeat("x", 64<<10+1))
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ text, want string }{
		"a missing file":         {"password_file: missing.txt", "test.yaml:2: redis.password_file: missing.txt: there is no such file; a relative path starts at"},
		"below a folder":         {"password_file: " + dir + "/missing", "test.yaml:2: redis.password_file: " + dir + "/missing: there is no such file"},
		"an empty file":          {"password_file: empty", "test.yaml:2: redis.password_file: the file is empty"},
		"a huge file":            {"password_file: huge", "test.yaml:2: redis.password_file: the file is larger than 64 KiB"},
		"a directory":            {"password_file: .", "test.yaml:2: redis.password_file: is not a file but a directory"},
		"a pipe nobody writes":   {"password_file: pipe", "test.yaml:2: redis.password_file: is not a file but a directory or device"},
		"a file as a directory":  {"password_file: good/x", "test.yaml:2: redis.password_file: the file cannot be read: not a directory"},
		"the secret and a file":  {"{password_file: good, password: x}", "test.yaml:2: redis.password and redis.password_file: set one, not both"},
		"the secret in its path": {"password_file: hunter2", "test.yaml:2: redis.password_file: there is no such file"},
	} {
		_, err := load(t, "redis:\n  "+test.text+"\n", dir)
		checkFaults(t, name, err, []string{test.want})
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error repeats the path: %v", name, err)
		}
	}
}

func TestFaultsInMapEntriesNameThem(t *testing.T) {
	t.Parallel()
	_, err := load(t, "apps:\n  b.c: {key_file: missing.p8}\n  a:\n    topic: x\n    key_file: missing.p8\n", t.TempDir())
	checkFaults(t, "apps", err, []string{`test.yaml:5: apps["a"].key_file: missing.p8: there`, `test.yaml:2: apps["b.c"].key_file: missing.p8: there`})
}

func TestFilesListsEveryFileOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"pw", "key"} {
		writeFile(t, filepath.Join(dir, name), "x")
	}
	c, err := load(t, `
redis: {password_file: pw}
terms: [{text_file: privacy.txt}, {text_file: /abs/terms.txt}, {name: none}]
apps: {a: {key_file: key}, b: {key_file: ./key, extra: {text_file: extra}}}
`, dir)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"/abs/terms.txt", filepath.Join(dir, "extra"), filepath.Join(dir, "key"), filepath.Join(dir, "privacy.txt"), filepath.Join(dir, "pw")}
	if d := cmp.Diff(want, conf.Files(&c)); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func TestOptionsListsEveryOption(t *testing.T) {
	t.Parallel()
	c := defaults()
	c.HTTP.Trusted = []string{"a", "b"}
	c.Redis = &redis{Password: "hunter2"}
	want := []conf.Option{
		{"http.listen", "TEST_HTTP_LISTEN", "text", "127.0.0.1:8080"},
		{"http.drain_delay", "TEST_HTTP_DRAIN_DELAY", "duration", "5s"},
		{"http.limit", "TEST_HTTP_LIMIT", "integer", "0"},
		{"http.small", "TEST_HTTP_SMALL", "integer", "0"},
		{"http.rate", "TEST_HTTP_RATE", "number", "0"},
		{"http.debug", "TEST_HTTP_DEBUG", "bool", "false"},
		{"http.trusted", "TEST_HTTP_TRUSTED", "list of text", "a,b"},
		{"http.ports", "TEST_HTTP_PORTS", "list of integer", ""},
		{"http.source", "TEST_HTTP_SOURCE", "text", ""},
		{"http.verbose", "TEST_HTTP_VERBOSE", "bool", ""},
		{"redis.address", "TEST_REDIS_ADDRESS", "text", ""},
		{"redis.password", "TEST_REDIS_PASSWORD", "secret", "[redacted]"},
		{"redis.password_file", "TEST_REDIS_PASSWORD_FILE", "text", ""},
		{"apps.*.type", "", "text", ""},
		{"apps.*.topic", "", "text", ""},
		{"apps.*.key", "", "secret", ""},
		{"apps.*.key_file", "", "text", ""},
		{"apps.*.port", "", "integer", "0"},
		{"apps.*.timeout", "", "duration", "0s"},
		{"apps.*.options", "", "map of any", ""},
		{"apps.*.extra.name", "", "text", ""},
		{"apps.*.extra.text_file", "", "text", ""},
		{"servers", "", "map of list of text", ""},
		{"terms.*.name", "", "text", ""},
		{"terms.*.text_file", "", "text", ""},
		{"log-level", "TEST_LOG_LEVEL", "text", "info"},
	}
	if d := cmp.Diff(want, conf.Options(&c, "TEST_")); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	c.Redis = nil
	if got := len(conf.Options(&c, "TEST_")); got != len(want) {
		t.Errorf("without the optional section there are %d options, want %d", got, len(want))
	}
}
