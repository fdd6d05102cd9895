package main

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestALostSigningKeyIsNotReplacedByItself takes signing.keys away, and puts an
// old copy of it back: what the key signed would no longer be valid, and nobody
// would know why.
func TestALostSigningKeyIsNotReplacedByItself(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	environ := ephemeral("IDENTITY_DATA_DIR="+dir, "IDENTITY_SERVER_NAME=id.example.org", "IDENTITY_PUBLIC_BASE_URL=https://id.example.org", "IDENTITY_HTTP_TEST_DRAIN_DELAY=0s")
	file := filepath.Join(dir, "signing.keys")
	read := func() string {
		t.Helper()
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	remove := func() {
		t.Helper()
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	starts := func(keys ...string) { // and knows the keys
		t.Helper()
		s := startHere(t, environ)
		for _, id := range keys {
			if status, body := fetch(t, s.API+"/_matrix/identity/v2/pubkey/"+id); status != http.StatusOK {
				t.Errorf("%s: %d %s", id, status, body)
			}
		}
		if code := s.Stop(); code != 0 {
			t.Fatalf("exit status %d:\n%s", code, s.Errs)
		}
	}
	rotate := func() (id string) {
		t.Helper()
		code, stdout, stderr := command(t, environ, "rotate-key")
		id = regexp.MustCompile(`ed25519:\w+`).FindString(stdout)
		if code != 0 || id == "" {
			t.Fatalf("rotate-key: exit status %d\n%s%s", code, stdout, stderr)
		}
		return id
	}
	refused := func(args ...string) {
		t.Helper()
		code, _, stderr := command(t, environ, args...)
		if code != 1 || !strings.Contains(stderr, "restore signing.keys from backup, or run `identity rotate-key` to make a new one") {
			t.Errorf("%v: exit status %d\n%s", args, code, stderr)
		}
	}

	starts() // and makes a key
	old := read()
	second := rotate()
	current := read()
	writeFile(t, file, old)
	refused()
	remove()
	refused()
	refused("rotate-key", "-compromised", second)
	writeFile(t, file, current)
	starts(second)

	remove()
	third := rotate()
	if keys := read(); strings.Count(keys, "ed25519") != 1 {
		t.Errorf("%s is not the only key in\n%s", third, keys)
	}
	starts(third)
}

// TestAConfigurationTakesOverWhatWasTriedOut runs the service without a configuration at
// first, and then with a configuration in the same folder.
//
// Conformance (identity): a data folder of a service without a name | is taken over by the first configuration with one while nothing is bound
func TestAConfigurationTakesOverWhatWasTriedOut(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	example, err := os.ReadFile("../../identity.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	edited := strings.NewReplacer("# server_name: id.example.org", "server_name: id.example.org",
		"# public_base_url: https://id.example.org", "public_base_url: https://id.example.org").Replace(string(example))
	config := writeFile(t, filepath.Join(dir, "identity.yaml"), edited)
	trial := []string{"IDENTITY_HTTP_LISTEN=" + free, "IDENTITY_HTTP_ADMIN_LISTEN=127.0.0.1:0", "IDENTITY_DATA_DIR=" + filepath.Join(dir, "identity-data")}
	startHere(t, append(trial, "IDENTITY_HTTP_TEST_DRAIN_DELAY=0s")).Stop()
	if code, _, errs := command(t, nil, "-config", config, "-check"); code != 0 {
		t.Fatal(errs)
	}
	startHere(t, ephemeral("IDENTITY_HTTP_TEST_DRAIN_DELAY=0s"), "-config", config).Stop()

	// It keeps the name that it has now, and says what to do.
	code, _, errs := command(t, trial)
	if code != 1 || !strings.Contains(errs, "database belongs to another server name, id.example.org") || !strings.Contains(errs, "data_dir") {
		t.Errorf("exit status %d, %s", code, errs)
	}
}
