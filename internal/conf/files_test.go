package conf_test

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

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
		{Path: "http.listen", Env: "TEST_HTTP_LISTEN", Type: "text", Default: "127.0.0.1:8080"},
		{Path: "http.drain_delay", Env: "TEST_HTTP_DRAIN_DELAY", Type: "duration", Default: "5s"},
		{Path: "http.limit", Env: "TEST_HTTP_LIMIT", Type: "integer", Default: "0"},
		{Path: "http.small", Env: "TEST_HTTP_SMALL", Type: "integer", Default: "0"},
		{Path: "http.rate", Env: "TEST_HTTP_RATE", Type: "number", Default: "0"},
		{Path: "http.debug", Env: "TEST_HTTP_DEBUG", Type: "bool", Default: "false"},
		{Path: "http.trusted", Env: "TEST_HTTP_TRUSTED", Type: "list of text", Default: "a,b"},
		{Path: "http.ports", Env: "TEST_HTTP_PORTS", Type: "list of integer", Default: ""},
		{Path: "http.source", Env: "TEST_HTTP_SOURCE", Type: "text", Default: ""},
		{Path: "http.verbose", Env: "TEST_HTTP_VERBOSE", Type: "bool", Default: ""},
		{Path: "redis.address", Env: "TEST_REDIS_ADDRESS", Type: "text", Default: ""},
		{Path: "redis.password", Env: "TEST_REDIS_PASSWORD", Type: "secret", File: "redis.password_file", Default: "[redacted]"},
		{Path: "apps.*.type", Env: "", Type: "text", Default: ""},
		{Path: "apps.*.topic", Env: "", Type: "text", Default: ""},
		{Path: "apps.*.key", Env: "", Type: "secret", File: "apps.*.key_file", Default: ""},
		{Path: "apps.*.port", Env: "", Type: "integer", Default: "0"},
		{Path: "apps.*.timeout", Env: "", Type: "duration", Default: "0s"},
		{Path: "apps.*.options", Env: "", Type: "map of any", Default: ""},
		{Path: "apps.*.extra.name", Env: "", Type: "text", Default: ""},
		{Path: "apps.*.extra.text_file", Env: "", Type: "text", Default: ""},
		{Path: "servers", Env: "", Type: "map of list of text", Default: ""},
		{Path: "terms.*.name", Env: "", Type: "text", Default: ""},
		{Path: "terms.*.text_file", Env: "", Type: "text", Default: ""},
		{Path: "log-level", Env: "TEST_LOG_LEVEL", Type: "text", Default: "info"},
	}
	if d := cmp.Diff(want, conf.Options(&c, "TEST_"), cmpopts.IgnoreFields(conf.Option{}, "Source", "Kinds")); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	c.Redis = nil
	if got := len(conf.Options(&c, "TEST_")); got != len(want) {
		t.Errorf("without the optional section there are %d options, want %d", got, len(want))
	}
}
