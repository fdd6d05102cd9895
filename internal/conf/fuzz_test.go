package conf_test

import (
	"path/filepath"
	"strings"
	"testing"
)

// FuzzLoad plants a secret in a file between two arbitrary pieces of YAML, in
// the environment and in a secret's file, and looks for it in the error.
func FuzzLoad(f *testing.F) {
	const planted = "hunter2+planted="
	dir := f.TempDir()
	writeFile(f, filepath.Join(dir, "secret"), planted)
	f.Add("", "")
	f.Add("http:\n  listen: x\n  drain_delay: ", "\nredis:\n  password_file: secret\n")
	f.Add("redis: {password: '", "', password_file: secret}")
	f.Add("apps: {com.example.app: {key: \"", "\", topic: '${SECRET}', port: '${SECRET}', timeout: ${SECRET}}}")
	f.Add("- ", "\n- x")
	f.Add("? ", "\n: x")
	f.Add("http: {limit: ", ", debug: [}")
	f.Add("apps:\n  ", ": {type: x}")
	f.Add("%YAML ", "\n---\n")
	f.Add("a: !", " x")
	f.Add("a: &", " x")
	f.Add("a: *", "")
	f.Add("a: \"\\", "\"")
	f.Add("servers: {", ": [x]}")
	f.Add("apps: {a: {key: |", "\n  x\n}}")
	f.Add("redis: {password_file: ", "}")
	f.Fuzz(func(t *testing.T, before, after string) {
		_, err := load(t, before+planted+after, dir, "SECRET="+planted, "TEST_HTTP_LIMIT="+planted, "TEST_REDIS_PASSWORD="+planted)
		if err == nil {
			t.Fatal("a limit that is no number is no fault")
		}
		if strings.Contains(err.Error(), planted) {
			t.Errorf("the error holds the secret: %v", err)
		}
	})
}
