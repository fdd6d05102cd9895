package main

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/internal/conf/conftest"
	"github.com/matrix-herald/herald/internal/safehttp/safehttptest"
)

func writeFile(t testing.TB, name, text string) string {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// writePair writes a certificate and its key to a folder.
func writePair(t *testing.T, dir string) {
	t.Helper()
	pair := safehttptest.NewCA(t).Certificate(t, "localhost")
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "pair.crt"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]})))
	writeFile(t, filepath.Join(dir, "pair.key"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})))
}

// TestExampleShowsEveryOption compares the example with the code in both
// directions: each option stands in it, and each value it shows is the default.
func TestExampleShowsEveryOption(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../../identity.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	conftest.CheckExample(t, string(data), conf.Options(defaultConfig(), envPrefix))
	got := defaultConfig()
	if err := conf.Load(conf.LoadOptions{Name: "example", Data: data}, got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(defaultConfig(), got); diff != "" {
		t.Errorf("the example shows other values than the defaults (-default +example):\n%s", diff)
	}
}

// TestExampleWorksWithEveryOption removes the "#" before every option, but for
// those that exclude each other.
func TestExampleWorksWithEveryOption(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../../identity.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text := conftest.Uncomment(string(data))
	dir := t.TempDir()
	for name, secret := range map[string]string{
		"database_url": "postgres://herald@localhost/herald", "secret_key": strings.Repeat("k", 32),
		"proxy": "http://proxy.example.com:3128", "smtp_password": "secret", "mail_client": "secret", "twilio": "secret", "sms_gateway": "secret",
		"redis_url": "rediss://localhost:6379",
	} {
		writeFile(t, filepath.Join(dir, name), secret)
	}
	text = strings.ReplaceAll(text, "/run/secrets/", dir+"/")
	text = strings.ReplaceAll(text, "/etc/identity/templates", dir)
	writePair(t, dir)
	text = regexp.MustCompile(`cert_file: /etc/identity/.*`).ReplaceAllString(text, "cert_file: pair.crt")
	text = regexp.MustCompile(`key_file: /etc/identity/.*`).ReplaceAllString(text, "key_file: pair.key")
	text = strings.ReplaceAll(text, "/etc/identity/ca.pem", safehttptest.NewCA(t).File(t))
	// Of two options that exclude each other the file stays, and PostgreSQL, and the
	// access tokens of mail relays.
	text = regexp.MustCompile(`(?m)^ *(secret_key|password|url: (postgres|redis)|auth_token|secret|client_secret|proxy)\b[^_].*\n`).ReplaceAllString(text, "")
	text = regexp.MustCompile(`.*/smtp_password\n`).ReplaceAllString(text, "")
	cfg, err := loadConfig(writeFile(t, filepath.Join(dir, "identity.yaml"), text), nil, false)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if !cfg.usesPostgres() || cfg.SMS.Provider != "twilio" || cfg.Email.Brands["acme"].From == "" || len(cfg.clients()) != 1 || len(cfg.policies()) != 1 {
		t.Errorf("options of the example were not set: %+v", cfg)
	}
}

func TestTheConfigurationOfComposeWorks(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../../deploy/compose/identity.yaml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range []string{"database_url", "code_key"} {
		secret, err := os.ReadFile("../../deploy/secrets/" + name + ".example")
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, name), string(secret))
	}
	text := strings.ReplaceAll(string(data), "/run/secrets", dir)
	file := writeFile(t, filepath.Join(dir, "identity.yaml"), text)
	if _, err := loadConfig(file, nil, false); err == nil || !strings.Contains(err.Error(), "secret_key: is the published example") {
		t.Errorf("the code key that everybody knows: got %v", err)
	}
	writeFile(t, filepath.Join(dir, "code_key"), strings.Repeat("k", 32))
	cfg, err := loadConfig(file, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	if !cfg.usesPostgres() || cfg.Email.Host == "" {
		t.Errorf("%+v", cfg)
	}
}

func TestEverySecretMayStandInAFile(t *testing.T) {
	t.Parallel()
	conftest.CheckSecrets(t, conf.Options(defaultConfig(), envPrefix))
}

func TestEveryFaultIsReportedAtOnce(t *testing.T) {
	t.Parallel()
	const secret = "hunter2hunter2"
	files, err := filepath.Glob("testdata/config/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			t.Parallel()
			golden := strings.TrimSuffix(file, ".yaml") + ".errors"
			_, err := loadConfig(file, nil, strings.HasPrefix(filepath.Base(file), "dev"))
			if err == nil {
				t.Fatal("no error")
			}
			if *update {
				writeFile(t, golden, err.Error()+"\n")
			}
			want, readErr := os.ReadFile(golden)
			if readErr != nil {
				t.Fatal(readErr)
			}
			if diff := cmp.Diff(strings.TrimSpace(string(want)), err.Error()); diff != "" {
				t.Errorf("errors (-want +got):\n%s", diff)
			}
			if strings.Contains(err.Error(), secret) {
				t.Error("an error shows a secret")
			}
		})
	}
}

func TestEnvironmentOverridesTheFile(t *testing.T) {
	t.Parallel()
	name := writeFile(t, filepath.Join(t.TempDir(), "identity.yaml"), "http: {stop_within: 40s}\nlookup: {allow_plaintext: true}\n")
	cfg, err := loadConfig(name, []string{"IDENTITY_LOOKUP_ALLOW_PLAINTEXT=false", "IDENTITY_HTTP_LISTEN=127.0.0.1:1,127.0.0.1:2"}, false)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Lookup.Plain || len(cfg.HTTP.Listen) != 2 || cfg.HTTP.StopWithin.Std().Seconds() != 40 {
		t.Errorf("%+v", cfg)
	}
	if _, err := loadConfig(name, []string{"IDENTITY_LOOKUP_ALOW_PLAINTEXT=false"}, false); err == nil {
		t.Error("a misspelt variable is accepted")
	}
}

func TestNamesDefaultToTheLoopbackListener(t *testing.T) {
	t.Parallel()
	const known = "server_name: id.example.org\npublic_base_url: https://id.example.org/\n"
	tests := map[string]struct {
		text       string
		name, base string // "" for a configuration that is refused
	}{
		"without a configuration":                           {"", "127.0.0.1:8090", "http://127.0.0.1:8090"},
		"on another port":                                   {`http: {listen: ["[::1]:80"]}`, "[::1]:80", "http://[::1]:80"},
		"on the loopback's name":                            {`http: {listen: ["localhost:80"]}`, "localhost:80", "http://localhost:80"},
		"with TLS":                                          {`http: {tls: {cert_file: pair.crt, key_file: pair.key}}`, "127.0.0.1:8090", "https://127.0.0.1:8090"},
		"with a name of its own":                            {"server_name: id.example.org", "id.example.org", "http://127.0.0.1:8090"},
		"with both":                                         {known, "id.example.org", "https://id.example.org"},
		"open to the network, with both":                    {known + `http: {listen: [":8090"]}`, "id.example.org", "https://id.example.org"},
		"open to the network":                               {`http: {listen: [":8090"]}`, "", ""},
		"also open to the network":                          {`http: {listen: ["127.0.0.1:8090", "0.0.0.0:8091"]}`, "", ""},
		"on a port that is not known":                       {`http: {listen: ["127.0.0.1:0"]}`, "", ""},
		"on a Unix socket":                                  {`http: {listen: ["unix:/run/identity.sock"]}`, "", ""},
		"on a Unix socket, with both":                       {known + `http: {listen: ["unix:/run/identity.sock"]}`, "id.example.org", "https://id.example.org"},
		"on a host that calls itself localhost.example.org": {`http: {listen: ["localhost.example.org:80"]}`, "", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			writePair(t, dir)
			cfg, err := loadConfig(writeFile(t, filepath.Join(dir, "identity.yaml"), tt.text), nil, false)
			if tt.name == "" {
				for _, option := range []string{"server_name: is missing", "public_base_url: is missing"} {
					if err == nil || !strings.Contains(err.Error(), option) {
						t.Errorf("error %v, want %q", err, option)
					}
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if cfg.ServerName != tt.name || cfg.PublicBaseURL != tt.base {
				t.Errorf("%s at %s, want %s at %s", cfg.ServerName, cfg.PublicBaseURL, tt.name, tt.base)
			}
		})
	}
}

func TestVariablesOfOthersAreAWarning(t *testing.T) {
	t.Parallel()
	environ := []string{"IDENTITY_ENDPOINT=http://169.254.169.254", "IDENTITY_HEADER=x", "IDENTITY_POSTGRESQL_SERVICE_HOST=10.0.0.1"}
	cfg, err := loadConfig("", environ, false)
	if err != nil || len(cfg.warnings()) != 1 || !strings.Contains(cfg.warnings()[0], "IDENTITY_ENDPOINT, IDENTITY_HEADER, IDENTITY_POSTGRESQL_SERVICE_HOST") {
		t.Errorf("error %v", err)
	}
	if _, err := loadConfig("", []string{"IDENTITY_SEVER_NAME=x"}, false); err == nil || !strings.Contains(err.Error(), "did you mean IDENTITY_SERVER_NAME?") {
		t.Errorf("a misspelt variable: %v", err)
	}
}

func TestRelativePathsStartAtTheConfigurationsFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	name := writeFile(t, filepath.Join(dir, "identity.yaml"),
		"data_dir: data\ntemplates: words\n")
	for _, folder := range []string{"mail", "pages"} {
		if err := os.MkdirAll(filepath.Join(dir, "words", folder), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	cfg, err := loadConfig(name, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	got := []string{cfg.DataDir, cfg.Database.Path, cfg.Pages, cfg.Email.Templates, cfg.SMS.Templates}
	want := []string{filepath.Join(dir, "data"), filepath.Join(dir, "data", "identity.db"), filepath.Join(dir, "words", "pages"), filepath.Join(dir, "words", "mail"), ""}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("paths (-want +got):\n%s", diff)
	}
}

func TestDevelopmentIgnoresWhereTheDataIs(t *testing.T) {
	t.Parallel()
	name := writeFile(t, filepath.Join(t.TempDir(), "identity.yaml"), `
public_base_url: https://id.example.org
database: {url: "postgres://production.example.org/herald"}
http: {listen: ["127.0.0.1:0", "localhost:0"]}
`)
	cfg, err := loadConfig(name, nil, true)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.usesPostgres() || cfg.PublicBaseURL != "http://"+cfg.HTTP.Listen[0] || cfg.HTTP.DrainDelay != 0 {
		t.Errorf("%+v", cfg)
	}
	if slices.ContainsFunc(cfg.HTTP.Listen, func(s string) bool { return strings.HasSuffix(s, ":0") }) {
		t.Errorf("links would hold no port: %v", cfg.HTTP.Listen)
	}
}
