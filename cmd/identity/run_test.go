package main

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/matrix-herald/herald/internal/harness"
)

// identityHere is the program within the process of the test.
var identityHere harness.Program = func(ctx context.Context, around harness.Surroundings, args []string) int {
	p := program{stdout: around.Stdout, stderr: around.Stderr, environ: around.Environ, listening: around.Listening}
	return p.run(ctx, args)
}

// command runs the program to its end.
func command(t *testing.T, environ []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return identityHere.Command(t, environ, args...)
}

// startHere runs the program until its Stop or the end of the test.
func startHere(t *testing.T, environ []string, args ...string) *harness.Serving {
	t.Helper()
	return identityHere.Serve(t, environ, args...)
}

// ephemeral is an environment in which nothing meets another test.
func ephemeral(more ...string) []string {
	return append([]string{"IDENTITY_HTTP_LISTEN=127.0.0.1:0", "IDENTITY_HTTP_ADMIN_LISTEN=127.0.0.1:0"}, more...)
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	good := writeFile(t, filepath.Join(dir, "good.yaml"), "server_name: id.example.org\npublic_base_url: https://id.example.org\n")
	broken := writeFile(t, filepath.Join(dir, "broken.yaml"), "http: {tls: {cert_file: gone.pem, key_file: gone.key}}\n")
	plain := writeFile(t, filepath.Join(dir, "plain.yaml"), "server_name: id.example.org\npublic_base_url: http://id.example.org\n")
	open := writeFile(t, filepath.Join(dir, "open.yaml"), `http: {listen: ["0.0.0.0:8090"]}`)
	tests := map[string]struct {
		args   []string
		code   int
		stdout string
		stderr string
	}{
		"version":                            {[]string{"-version"}, 0, "identity ", ""},
		"help":                               {[]string{"-help"}, 0, "", "rotate-pepper"},
		"help on a command":                  {[]string{"rotate-key", "-help"}, 0, "", "-compromised"},
		"help on one without flags":          {[]string{"rotate-pepper", "-h"}, 0, "", "usage: identity"},
		"help on health":                     {[]string{"help", "health"}, 0, "", "usage: identity"},
		"an unknown flag":                    {[]string{"-typo"}, 2, "", "-typo"},
		"an unknown command":                 {[]string{"typo"}, 2, "", `unknown command "typo"`},
		"rotate-key with an argument":        {[]string{"rotate-key", "ed25519:1"}, 2, "", "usage: identity"},
		"rotate-pepper with an argument":     {[]string{"rotate-pepper", "now"}, 2, "", "usage: identity"},
		"invites without an action":          {[]string{"invites"}, 2, "", "invites cancel ID|TOKEN"},
		"invites with an unknown action":     {[]string{"invites", "show"}, 2, "", "invites cancel ID|TOKEN"},
		"a flag of another action":           {[]string{"invites", "cancel", "-addresses", "1"}, 2, "", "invites cancel ID|TOKEN"},
		"nothing to cancel":                  {[]string{"invites", "cancel"}, 2, "", "invites cancel ID|TOKEN"},
		"nobody to erase":                    {[]string{"erase"}, 2, "", "erase USER_ID"},
		"two to erase":                       {[]string{"erase", "@a:example.org", "@b:example.org"}, 2, "", "erase USER_ID"},
		"nobody to ask about":                {[]string{"why"}, 2, "", "usage: identity -config FILE why"},
		"two removals":                       {[]string{"why", "-unbind", "-erase", "a@example.com"}, 2, "", "usage: identity -config FILE why"},
		"what is no address":                 {[]string{"why", "a@b@c"}, 1, "", "is neither an email address, nor a number"},
		"what is no user ID":                 {[]string{"why", "@alice"}, 1, "", "is not a user ID"},
		"open to the network without a name": {[]string{"-config", open}, 1, "", "server_name: is missing"},
		"development open to the network":    {[]string{"-config", open, "-dev"}, 1, "", "use an address of the loopback"},
		"a configuration that is not there":  {[]string{"-config", filepath.Join(dir, "none.yaml")}, 1, "", "none.yaml"},
		"a good configuration is checked":    {[]string{"-config", good, "-check"}, 0, "The configuration is good: id.example.org at https://id.example.org.", "warning: email: no mail relay is configured"},
		"the check warns of text messages":   {[]string{"-config", good, "-check"}, 0, "", "warning: sms: no SMS provider is configured"},
		"the check loads the certificate":    {[]string{"-config", broken, "-check"}, 1, "", "broken.yaml:1: http.tls.cert_file: "},
		"the check warns of plain http":      {[]string{"-config", plain, "-check"}, 0, "The configuration is good", "warning: public_base_url: it is not https"},
		"rotate-key without a database":      {[]string{"-config", good, "rotate-key"}, 1, "", "there is no database"},
		"rotate-pepper without a database":   {[]string{"-config", good, "rotate-pepper"}, 1, "", "there is no database"},
		"health of a service that is not up": {[]string{"-config", good, "health"}, 1, "", "identity: health check"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var environ []string
			if !strings.Contains(strings.Join(tt.args, " "), open) {
				environ = []string{"IDENTITY_HTTP_LISTEN=127.0.0.1:1"} // nobody listens there
			}
			code, stdout, stderr := command(t, environ, tt.args...)
			if code != tt.code || !strings.Contains(stdout, tt.stdout) || !strings.Contains(stderr, tt.stderr) {
				t.Errorf("exit status %d\n--- stdout\n%s--- stderr\n%s", code, stdout, stderr)
			}
		})
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 4 {
		t.Errorf("commands that only look left something behind: %v %v", entries, err)
	}
}

func TestBrokenTemplatesAndPagesAreReportedTogether(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, folder := range []string{"mail", "sms", "pages"} {
		if err := os.Mkdir(filepath.Join(dir, folder), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, filepath.Join(dir, "mail", "verification.txt"), "Subject: Hello\n\nno link")
	writeFile(t, filepath.Join(dir, "sms", "verification.txt"), "no code")
	writeFile(t, filepath.Join(dir, "pages", "success.html"), "{{.Typo}}")
	config := writeFile(t, filepath.Join(dir, "identity.yaml"), `
templates: .
`)
	code, _, stderr := command(t, nil, "-config", config, "-check")
	if code != 1 {
		t.Errorf("exit status %d", code)
	}
	for _, want := range []string{"mail templates", "SMS templates", "pages"} {
		if !strings.Contains(stderr, want) {
			t.Errorf("stderr lacks %q:\n%s", want, stderr)
		}
	}
}

func TestItStartsWithoutAConfiguration(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	first := startHere(t, ephemeral("IDENTITY_SERVER_NAME=id.example.org", "IDENTITY_PUBLIC_BASE_URL=http://id.example.org", "IDENTITY_HTTP_TEST_DRAIN_DELAY=0s"))
	if status, body := fetch(t, first.Admin+"/readyz"); status != http.StatusOK {
		t.Errorf("not ready: %d %s", status, body)
	}
	_, metrics := fetch(t, first.Admin+"/metrics")
	for _, name := range []string{
		"herald_build_info{", "herald_identity_bindings ", "herald_identity_lookups_total{", "herald_identity_lookup_addresses_total{",
		"herald_identity_mails_total{", "herald_identity_sms_total{", "herald_identity_validation_",
	} {
		if !strings.Contains(metrics, "\n"+name) {
			t.Errorf("/metrics lacks %s", name)
		}
	}
	first.Errs.Await(t, "public_base_url: it is not https", "no mail relay is configured", "no SMS provider is configured")
	if code := first.Stop(); code != 0 {
		t.Fatalf("exit status %d:\n%s", code, first.Errs)
	}
	for name, mode := range map[string]os.FileMode{"": 0o700, "identity.db": 0o600, "signing.keys": 0o600, "code.key": 0o600} {
		info, err := os.Stat(filepath.Join(dir, "identity-data", name))
		if err != nil || info.Mode().Perm() != mode {
			t.Errorf("%q: %v %v, want mode %v", name, info, err, mode)
		}
	}
	if leftovers, err := filepath.Glob(filepath.Join(dir, "identity-data", "code.key.*")); err != nil || leftovers != nil {
		t.Errorf("temporary files stay: %v %v", leftovers, err)
	}

	code, _, stderr := command(t, ephemeral("IDENTITY_SERVER_NAME=other:8090", "IDENTITY_PUBLIC_BASE_URL=http://localhost:8090"))
	if code != 1 || !strings.Contains(stderr, `server_name "other:8090"`) || !strings.Contains(stderr, "set server_name back") {
		t.Errorf("under another name: exit status %d\n%s", code, stderr)
	}
	writeFile(t, filepath.Join(dir, "identity-data", "code.key"), "short\n")
	code, _, stderr = command(t, ephemeral("IDENTITY_SERVER_NAME=id.example.org", "IDENTITY_PUBLIC_BASE_URL=http://localhost:8090"))
	if code != 1 || !strings.Contains(stderr, "restore it from a backup") {
		t.Errorf("with a broken code key: exit status %d\n%s", code, stderr)
	}
}

func TestProcessesThatStartTogetherShareOneCodeKey(t *testing.T) {
	t.Parallel()
	cfg := &Config{DataDir: t.TempDir()}
	const processes = 8
	keys := make([]string, processes)
	var starting sync.WaitGroup
	for i := range processes {
		starting.Go(func() {
			key, err := cfg.codeKey()
			if err != nil {
				t.Error(err)
			}
			keys[i] = string(key)
		})
	}
	starting.Wait()
	for _, key := range keys {
		if key == "" || key != keys[0] {
			t.Fatal("the keys differ")
		}
	}
}

// fetch gets a URL.
func fetch(t *testing.T, url string) (status int, body string) {
	t.Helper()
	return send(t, http.MethodGet, url, "", "")
}
