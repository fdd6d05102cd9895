package main

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/matrix-herald/herald/push/pushtest"
)

// sygnalFolder makes a folder with the key files that the test cases of
// push/sygnal name.
func sygnalFolder(t *testing.T) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	account, err := json.Marshal(map[string]string{
		"type": "service_account", "project_id": "example-app", "client_email": "push@example-app.iam.gserviceaccount.com",
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
		"token_uri":   "https://oauth2.googleapis.com/token",
	})
	if err != nil {
		t.Fatal(err)
	}
	cert := pushtest.NewCA(t).ClientCertificate(t, "com.example.ios", time.Now().Add(time.Hour))
	certificate := string(slices.Concat(cert.CertPEM(), cert.KeyPEM(t)))

	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "certs"), 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "AuthKey_ABCDE12345.p8"), string(pushtest.NewTokenKey(t).P8(t)))
	writeFile(t, filepath.Join(dir, "firebase.json"), string(account))
	writeFile(t, filepath.Join(dir, "vapid.pem"), vapidKey(t))
	writeFile(t, filepath.Join(dir, "certs", "prod.pem"), certificate)
	writeFile(t, filepath.Join(dir, "cert.pem"), certificate)
	return dir
}

func TestImportedConfigurationsPassTheCheck(t *testing.T) {
	t.Parallel()
	dir := sygnalFolder(t)
	for name, apps := range map[string]string{"token": "2", "everything": "6", "unsupported": "12", "mistakes": "2", "anchors": "3"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile(filepath.Join("../../push/sygnal/testdata", name+".yaml"))
			if err != nil {
				t.Fatal(err)
			}
			text := strings.NewReplacer("/keys/", "", "/etc/sygnal/", "").Replace(string(data))
			file := writeFile(t, filepath.Join(dir, name+".sygnal.yaml"), text)
			code, config, stderr := command(t, nil, "import-sygnal", "-dir", dir, file)
			if code != 0 || strings.Contains(stderr, "needs to be corrected") {
				t.Fatalf("exit status %d\n%s\n%s", code, stderr, config)
			}
			if !strings.Contains(stderr, "warning: ") {
				t.Errorf("no warning on standard error: %q", stderr)
			}

			imported := writeFile(t, filepath.Join(t.TempDir(), "pushgw.yaml"), config)
			code, stdout, stderr := command(t, nil, "-config", imported, "-check")
			if want := "The configuration is good: " + apps + " apps.\n"; code != 0 || stdout != want {
				t.Errorf("check: exit status %d, %q, want %q\n%s\n%s", code, stdout, want, stderr, config)
			}
		})
	}
}

// Conformance (FCM): an imported gcm app, and a pushkey that is an installation ID | sent to as one
func TestAnImportedAppReachesInstallationIDs(t *testing.T) {
	t.Parallel()
	fake := pushtest.StartFCM(t, pushtest.FCMOptions{})
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "firebase.json"), string(fake.ServiceAccount("demo")))
	ca := writeFile(t, filepath.Join(dir, "ca.pem"), string(fake.CA().PEM()))
	file := writeFile(t, filepath.Join(dir, "sygnal.yaml"),
		"apps: {com.example.android: {type: gcm, api_version: v1, project_id: demo, service_account_file: firebase.json}}")
	_, config, _ := command(t, nil, "import-sygnal", "-dir", dir, file)
	config = strings.Replace(config, `type: "fcm"`, `type: "fcm"`+"\n    endpoint: "+fake.URL(), 1)
	imported := writeFile(t, filepath.Join(dir, "pushgw.yaml"), config)
	const id = "dQw4w9WgXcQ-_abcdefghi"
	code, stdout, stderr := command(t, []string{"PUSHGW_CA_FILE=" + ca}, "-config", imported, "test-push", "-app", "com.example.android", "-pushkey", id)
	if code != 0 {
		t.Fatalf("exit status %d\n%s%s\n%s", code, stdout, stderr, config)
	}
	if all := fake.Requests(); all[0].Message.FID != id || all[0].Message.Token != "" {
		t.Errorf("sent to %+v", all[0].Message)
	}
}

func TestImportTakesRelativePathsFromTheWorkingDirectory(t *testing.T) {
	t.Parallel()
	file := writeFile(t, filepath.Join(t.TempDir(), "sygnal.yaml"), "apps: {com.example.ios: {type: apns, certfile: ios.pem}}")
	_, config, _ := command(t, nil, "import-sygnal", file)
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if want := `cert_file: "` + filepath.Join(here, "ios.pem") + `"`; !strings.Contains(config, want) {
		t.Errorf("the result lacks %s:\n%s", want, config)
	}
}

func TestImportSaysWhatKeepsTheResultFromLoading(t *testing.T) {
	t.Parallel()
	dir := sygnalFolder(t)
	tests := map[string]struct {
		apps string
		want string
	}{
		"a file that is not there beside two globs that meet": {
			"com.example.*: {type: apns, certfile: a.pem}\n  '*.android': {type: gcm, api_version: v1, project_id: p, service_account_file: /nowhere/firebase.json}",
			"apps[\"*.android\"].service_account_file: /nowhere/firebase.json: there is no such file; a relative path starts at the configuration file's directory\n" +
				`apps: apps "*.android" and "com.example.*" can match`,
		},
		"two globs that meet, which Sygnal finds out when it rejects a pushkey": {
			"com.example.*: {type: apns, certfile: a.pem}\n  '*.ios': {type: apns, certfile: b.pem}",
			`apps: apps "*.ios" and "com.example.*" can match the same app_id; make one of them narrower`,
		},
		"a key id that Apple never gave out": {
			"com.example.ios: {type: apns, keyfile: AuthKey_ABCDE12345.p8, key_id: mine, team_id: FGHIJ67890, topic: com.example.ios}",
			`apps["com.example.ios"].key_id: value "mine": use the key's id, ten capital letters and digits`,
		},
		"a file that is not there": {
			"com.example.android: {type: gcm, api_version: v1, project_id: p, service_account_file: /nowhere/firebase.json}",
			`apps["com.example.android"].service_account_file: /nowhere/firebase.json: there is no such file`,
		},
		"an fcm_options member that FCM does not have": {
			"com.example.android: {type: gcm, api_version: v1, project_id: p, service_account_file: firebase.json, fcm_options: {priority: high}}",
			`apps["com.example.android"].fcm_options.priority: FCM knows no such member here`,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := writeFile(t, filepath.Join(t.TempDir(), "sygnal.yaml"), "apps:\n  "+tt.apps+"\n")
			code, config, stderr := command(t, []string{"PUSHGW_UNKNOWN_APP=delete_pusher"}, "import-sygnal", "-dir", dir, file)
			if code != 0 || !strings.Contains(config, "\napps:\n") {
				t.Errorf("exit status %d, result:\n%s", code, config)
			}
			_, faults, found := strings.Cut(stderr, "needs to be corrected before pushgw starts with it:\n")
			if !found || !strings.Contains(faults, tt.want) {
				t.Errorf("standard error lacks %q:\n%s", tt.want, stderr)
			}
		})
	}
}

func TestImportThatFailsPrintsNoConfiguration(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	other := writeFile(t, filepath.Join(dir, "other.yaml"), "listeners: [{port: 8008}]\n")
	tests := map[string]struct {
		args []string
		code int
		want string
	}{
		"without a file":          {nil, 2, "usage: pushgw import-sygnal"},
		"with two files":          {[]string{other, other}, 2, "usage: pushgw import-sygnal"},
		"with an unknown flag":    {[]string{"-x", other}, 2, "usage: pushgw import-sygnal"},
		"a file that is missing":  {[]string{filepath.Join(dir, "sygnal.yaml")}, 1, "no such file"},
		"a file of another sort":  {[]string{other}, 1, "no apps are configured in it: is it Sygnal's configuration?"},
		"a folder":                {[]string{dir}, 1, "is a directory"},
		"asked for its own flags": {[]string{"-help"}, 0, "working directory"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := command(t, nil, append([]string{"import-sygnal"}, tt.args...)...)
			if code != tt.code || stdout != "" || !strings.Contains(stderr, tt.want) {
				t.Errorf("exit status %d, want %d; standard output %q; standard error lacks %q:\n%s", code, tt.code, stdout, tt.want, stderr)
			}
		})
	}
}
