package hms_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/push/hms"
	"github.com/matrix-herald/herald/push/pushtest"
)

func TestFaultsOfTheConfiguration(t *testing.T) {
	t.Parallel()
	account := string(pushtest.StartHMS(t, nil).ServiceAccount("key-1"))
	var members map[string]string
	if err := json.Unmarshal([]byte(account), &members); err != nil {
		t.Fatal(err)
	}
	without := func(name, value string) conf.Secret {
		old := members[name]
		defer func() { members[name] = old }()
		members[name] = value
		text, _ := json.Marshal(members) // texts cannot fail
		return conf.Secret(text)
	}
	ttl := func(d time.Duration) *conf.Duration { return (*conf.Duration)(&d) }
	for name, c := range map[string]struct {
		config hms.Config
		want   []string
	}{
		"no credentials":                         {hms.Config{}, []string{"apps.service_account_file: is missing"}},
		"no secret":                              {hms.Config{ClientID: "1"}, []string{"apps.client_secret_file: is missing"}},
		"both":                                   {hms.Config{ServiceAccount: conf.Secret(account), ClientID: "1", ClientSecret: "s"}, []string{"contradicts service_account"}},
		"not JSON":                               {hms.Config{ServiceAccount: "{"}, []string{"apps.service_account_file: is not the JSON key"}},
		"Google's":                               {hms.Config{ServiceAccount: `{"type":"service_account","project_id":"x","private_key":"secret"}`}, []string{"is not the JSON key"}},
		"no account":                             {hms.Config{ServiceAccount: without("sub_account", "")}, []string{"is not the JSON key"}},
		"no RSA key":                             {hms.Config{ServiceAccount: without("private_key", "secret")}, []string{"private_key: is not an RSA key"}},
		"a project that is a path":               {hms.Config{ServiceAccount: without("project_id", "../x")}, []string{"apps.project_id: value"}},
		"a client that is a path":                {hms.Config{ClientID: "1/2", ClientSecret: "s", ProjectID: "?"}, []string{"apps.client_id: value", "apps.project_id: value"}},
		"a long ttl":                             {hms.Config{ClientID: "1", ClientSecret: "s", KeepFor: ttl(16 * 24 * time.Hour)}, []string{"must be from 1s to 15d"}},
		"a short ttl":                            {hms.Config{ClientID: "1", ClientSecret: "s", KeepFor: ttl(0)}, []string{"must be from 1s to 15d"}},
		"an endpoint with a path":                {hms.Config{ClientID: "1", ClientSecret: "s", Endpoint: "https://x/y"}, []string{"apps.endpoint: must be an https URL"}},
		"an account in a file that was not read": {hms.Config{ServiceAccountFile: "x.json"}, nil},
		"a secret in a file that was not read":   {hms.Config{ClientID: "1", ClientSecretFile: "x"}, nil},
		"a service account":                      {hms.Config{ServiceAccount: conf.Secret(account), KeepFor: ttl(15 * 24 * time.Hour)}, nil},
	} {
		var p conf.Problems
		c.config.Validate("apps", &p)
		text := fmt.Sprint(p.Err())
		for _, want := range c.want {
			if !strings.Contains(text, want) {
				t.Errorf("%s: no %q in %s", name, want, text)
			}
		}
		if p.Len() != len(c.want) || strings.Contains(text, "secret\"") || strings.Contains(text, "PRIVATE") {
			t.Errorf("%s: %s", name, text)
		}
		connections := hms.NewConnections(hms.Options{})
		provider, err := connections.Open("a", c.config)
		if name == "a service account" != (err == nil) {
			t.Errorf("%s: opened with %v", name, err)
		}
		if provider != nil {
			provider.Close()
		}
		connections.Close()
	}
}
