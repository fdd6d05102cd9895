package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/internal/conf/conftest"
	"github.com/matrix-herald/herald/push/pushtest"
)

func writeFile(t testing.TB, name, text string) string {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestExampleShowsEveryOption compares the example with the code in both
// directions: each option stands in it, and each value it shows is the default.
//
// Conformance (pushgw): every option stands in the example and in the table of options, and is overridden by its variable (also TestPageOfOptions, TestEnvironmentOverridesTheFile)
func TestExampleShowsEveryOption(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../../pushgw.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	conftest.CheckExample(t, string(data), conf.Options(defaultConfig(), envPrefix))

	text := string(data)
	head, _, found := strings.Cut(text, "\napps:\n")
	if !found {
		t.Fatal("no apps in the example")
	}
	got := defaultConfig()
	if err := conf.Load(conf.LoadOptions{Name: "example", Data: []byte(head)}, got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(defaultConfig(), got); diff != "" {
		t.Errorf("the example shows other values than the defaults (-default +example):\n%s", diff)
	}

	// The whole file is a configuration, once the keys are there.
	dir := t.TempDir()
	fcm := pushtest.StartFCM(t, pushtest.FCMOptions{})
	account := strings.ReplaceAll(string(fcm.ServiceAccount("example")), fcm.URL(), "https://oauth2.googleapis.com")
	writeFile(t, filepath.Join(dir, "AuthKey_ABCDE12345.p8"), string(pushtest.NewTokenKey(t).P8(t)))
	writeFile(t, filepath.Join(dir, "firebase.json"), account)
	writeFile(t, filepath.Join(dir, "huawei.json"), string(pushtest.StartHMS(t, nil).ServiceAccount("key-1")))
	writeFile(t, filepath.Join(dir, "huawei-secret"), pushtest.HMSSecret)
	writeFile(t, filepath.Join(dir, "vapid.pem"), vapidKey(t))
	name := writeFile(t, filepath.Join(dir, "pushgw.yaml"), strings.ReplaceAll(text, "/etc/pushgw", dir))
	if _, err := loadConfig(name, nil); err != nil {
		t.Error(err)
	}
}

// Conformance (pushgw): every secret may stand in a file of its own
func TestEverySecretMayStandInAFile(t *testing.T) {
	t.Parallel()
	conftest.CheckSecrets(t, conf.Options(defaultConfig(), envPrefix))
}

// Conformance (pushgw): all faults of a configuration and of its files at once, each once, without secrets, by `-check` and at start; `-check` talks to nobody (also TestCheckReportsFaultsOfFilesToo, TestCheckTalksToNobody)
// Conformance (pushgw): options that are gone, `type: gcm`, google-services.json, a tab, a wrong `redis.url`, API and admin on one address: what to do instead (also TestLoadReportsFaults)
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
			_, err := loadConfig(file, nil)
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
	name := writeFile(t, filepath.Join(t.TempDir(), "pushgw.yaml"), "http: {stop_within: 20s}\nunknown_app: keep_pusher\n")
	cfg, err := loadConfig(name, []string{"PUSHGW_UNKNOWN_APP=delete_pusher", "PUSHGW_HTTP_LISTEN=127.0.0.1:1,127.0.0.1:2"})
	if err != nil {
		t.Fatal(err)
	}
	if cfg.UnknownApp != "delete_pusher" || len(cfg.HTTP.Listen) != 2 || cfg.HTTP.StopWithin.Std().Seconds() != 20 {
		t.Errorf("%+v", cfg)
	}
	if _, err := loadConfig(name, []string{"PUSHGW_UNKOWN_APP=delete_pusher"}); err == nil {
		t.Error("a misspelt variable is accepted")
	}
	if cfg, err := loadConfig(name, []string{"PUSHGW_REDIS_SERVICE_HOST=10.0.0.1"}); err != nil || len(cfg.Warnings) != 1 {
		t.Errorf("a variable of Kubernetes: %v", err)
	}
}
