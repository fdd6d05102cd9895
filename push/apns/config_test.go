package apns_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/push/apns"
	"github.com/matrix-herald/herald/push/pushtest"
)

func TestConfigFaults(t *testing.T) {
	t.Parallel()
	key := pushtest.NewTokenKey(t)
	days := func(n int) *conf.Duration { return new(conf.Duration(time.Duration(n) * 24 * time.Hour)) }
	for name, test := range map[string]struct {
		change func(*apns.Config)
		want   string // the option at fault, "" for none
	}{
		"a provider token": {func(*apns.Config) {}, ""},
		"a certificate":    {func(c *apns.Config) { *c = apns.Config{CertFile: "x.pem"} }, ""},
		"everything set": {func(c *apns.Config) {
			c.Platform, c.PushType, c.Badge, c.Collapse, c.KeepFor = "sandbox", "alert", "with_events", "room", days(30)
		}, ""},
		"an unknown platform":               {func(c *apns.Config) { c.Platform = "development" }, "platform"},
		"no credentials":                    {func(c *apns.Config) { c.Key = "" }, "key_file"},
		"a key file that could not be read": {func(c *apns.Config) { c.Key, c.KeyFile = "", "/none" }, ""}, // internal/conf reports it
		"two credentials":                   {func(c *apns.Config) { c.CertFile = "x.pem" }, "cert_file"},
		"a key that is none":                {func(c *apns.Config) { c.Key = "topsecret" }, "key_file"},
		"no key id":                         {func(c *apns.Config) { c.KeyID = "" }, "key_id"},
		"a key id of other form":            {func(c *apns.Config) { c.KeyID = "abc" }, "key_id"},
		"no team id":                        {func(c *apns.Config) { c.TeamID = "" }, "team_id"},
		"a team id of other form":           {func(c *apns.Config) { c.TeamID = "TEAM 67890" }, "team_id"},
		"a password without a certificate":  {func(c *apns.Config) { c.CertPassword = "topsecret" }, "cert_file"},
		"a key id for a certificate":        {func(c *apns.Config) { *c = apns.Config{CertFile: "x.pem", KeyID: key.KeyID} }, "key_id"},
		"no topic":                          {func(c *apns.Config) { c.Topic = "" }, "topic"},
		"a topic that is no bundle id":      {func(c *apns.Config) { c.Topic = "org.example\r\nx: y" }, "topic"},
		"an unknown push type":              {func(c *apns.Config) { c.PushType = "silent" }, "push_type"},
		"a sound that is no name of one":    {func(c *apns.Config) { c.DefaultSound = strings.Repeat("x", 65) }, "default_sound"},
		"VoIP pushes to another topic":      {func(c *apns.Config) { c.PushType = "voip" }, "topic"},
		"VoIP pushes to their topic":        {func(c *apns.Config) { c.PushType, c.Topic = "voip", topic+".voip" }, ""},
		"another choice of counts":          {func(c *apns.Config) { c.Badge = "nonzero" }, "badge"},
		"an unknown collapse":               {func(c *apns.Config) { c.Collapse = "all" }, "collapse"},
		"a negative expiration":             {func(c *apns.Config) { c.KeepFor = days(-1) }, "keep_for"},
		"too long an expiration":            {func(c *apns.Config) { c.KeepFor = days(31) }, "keep_for"},
		"an endpoint without TLS":           {func(c *apns.Config) { c.Endpoint = "http://localhost" }, "endpoint"},
		"an endpoint with a path":           {func(c *apns.Config) { c.Endpoint = "https://localhost/3/device" }, "endpoint"},
		"an endpoint with a password":       {func(c *apns.Config) { c.Endpoint = "https://u:topsecret@localhost" }, "endpoint"},
		"an endpoint with a query":          {func(c *apns.Config) { c.Endpoint = "https://localhost?x" }, "endpoint"},
		"an endpoint that is no URL":        {func(c *apns.Config) { c.Endpoint = "https://local host" }, "endpoint"},
		"an endpoint without a host":        {func(c *apns.Config) { c.Endpoint = "https://:443" }, "endpoint"},
		"an endpoint with a port":           {func(c *apns.Config) { c.Endpoint = "https://api.push.apple.com:2197" }, ""},
	} {
		cfg := tokenConfig(t, key, "")
		test.change(&cfg)
		var problems conf.Problems
		cfg.Validate(`apps["a.b"]`, &problems)
		want := `apps["a.b"].` + test.want + ": "
		switch err := problems.Err(); {
		case test.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case test.want != "" && (problems.Len() != 1 || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "topsecret")):
			t.Errorf("%s: the faults are %v, want one at %s", name, err, test.want)
		}
	}
}

func TestAllConfigFaultsAtOnce(t *testing.T) {
	t.Parallel()
	var problems conf.Problems
	apns.Config{Platform: "x", Collapse: "x", Endpoint: "x", Badge: "x"}.Validate("app", &problems)
	if problems.Len() != 6 { // no topic and no credentials, too
		t.Errorf("%d faults: %v, want 6", problems.Len(), problems.Err())
	}
}

func TestConfigIsReadFromYAML(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "key.p8"), []byte("the key\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	type file struct {
		Apps map[string]apns.Config `yaml:"apps" conf:"expand"`
	}
	var got file
	err := conf.Load(conf.LoadOptions{Name: "test.yaml", Dir: dir, Data: []byte(`
apps:
  org.example.app:
    platform: sandbox
    key_file: key.p8
    key_id: KEY4567890
    team_id: TEAM567890
    topic: org.example.app
    push_type: alert
    badge: off
    sound_and_highlight: true
    default_sound: ping
    keep_for: 0s
    collapse: room
    endpoint: https://localhost
  org.example.cert:
    cert_file: cert.p12
    cert_password: secret
`)}, &got)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]apns.Config{
		"org.example.app": {
			Platform: "sandbox", Key: "the key", KeyFile: filepath.Join(dir, "key.p8"), KeyID: "KEY4567890", TeamID: "TEAM567890",
			Topic: "org.example.app", PushType: "alert", Badge: apns.BadgeOff, SoundAndHighlight: true, DefaultSound: "ping",
			KeepFor: new(conf.Duration(0)), Collapse: apns.CollapseRoom, Endpoint: "https://localhost",
		},
		"org.example.cert": {CertFile: filepath.Join(dir, "cert.p12"), CertPassword: "secret"},
	}
	if diff := cmp.Diff(want, got.Apps); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
