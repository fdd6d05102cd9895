package fcm_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/fcm"
	"github.com/matrix-herald/herald/push/pushtest"
)

// load reads one app as the gateway's configuration does.
func load(t *testing.T, yaml string) (fcm.Config, error) {
	t.Helper()
	var file struct {
		App fcm.Config `yaml:"app"`
	}
	text := "app:\n  " + strings.ReplaceAll(strings.TrimSpace(yaml), "\n", "\n  ")
	err := conf.Load(conf.LoadOptions{Name: "pushgw.yaml", Data: []byte(text), Dir: t.TempDir()}, &file)
	return file.App, err
}

func faults(cfg fcm.Config) string {
	var p conf.Problems
	cfg.Validate("apps.x", &p)
	if err := p.Err(); err != nil {
		return err.Error()
	}
	return ""
}

func TestConfigsThatWork(t *testing.T) {
	t.Parallel()
	fake := pushtest.StartFCM(t, pushtest.FCMOptions{})
	account := edit(t, fake.ServiceAccount("demo"), "token_uri", "https://oauth2.googleapis.com/token")
	for name, yaml := range map[string]string{
		"only the account": ``,
		"everything": `
project_id: other-project
keep_for: 28d
collapse: room
badge: all
sound_and_highlight: true
target: fid
fcm_options:
  notification: {title: New, body: Message, image: "https://example.org/i.png"}
  android:
    priority: high
    restricted_package_name: com.example.app
    direct_boot_ok: true
    bandwidth_constrained_ok: true
    restricted_satellite_ok: true
    fcm_options: {analytics_label: a}
    notification:
      title: New
      color: "#00ff7f"
      notification_priority: PRIORITY_HIGH
      visibility: PRIVATE
      vibrate_timings: ["0.5s", "1s"]
      body_loc_key: k
      body_loc_args: [a, b]
      notification_count: 3
      sticky: false
      bypass_proxy_notification: true
  apns:
    headers: {apns-priority: "10", apns-expiration: "0", apns-collapse-id: c}
    payload:
      aps: {alert: {title: T, loc-args: [a], loc-key: k}, sound: {name: n, critical: 1, volume: 0.5}, badge: 1, own: true}
      own: {a: [1]}
    fcm_options: {image: "https://example.org/i.png"}
  webpush:
    headers: {TTL: "60", Urgency: very-low}
    notification: {title: T, actions: [{action: a, title: b}], vibrate: [1, 2], timestamp: 1763769600000, own: 1}
    fcm_options: {link: "https://example.org/", analytics_label: "a-b_c.d~%"}
  fcm_options: {analytics_label: l}`,
		"a numeric project":                "project_id: '123456789'",
		"the ttl of the options":           "fcm_options: {android: {ttl: 2419200s, collapse_key: k}}",
		"an apns payload without aps":      "fcm_options: {apns: {payload: {own: 1}}}",
		"a silent push without a priority": "fcm_options: {apns: {payload: {aps: {content-available: 1}}}}",
		"an empty alert is one":            `fcm_options: {apns: {headers: {apns-priority: "10"}, payload: {aps: {content-available: 1, alert: ""}}}}`,
		"a label of the web alone":         "fcm_options: {webpush: {notification: {title: T}, fcm_options: {analytics_label: l}}}",
		"nothing in the options":           "fcm_options: {}",
		"now or never, and no collapsing":  "keep_for: 0s\ncollapse: none",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if yaml == "" {
				yaml = "{}"
			}
			cfg, err := load(t, yaml)
			if err != nil {
				t.Fatal(err)
			}
			cfg.ServiceAccount = conf.Secret(account)
			if got := faults(cfg); got != "" {
				t.Errorf("faults:\n%s", got)
			}
		})
	}
}

// Conformance (FCM): fcm_options: unknown members and wrong types are faults (≠ Sygnal: sent as they are), so is what FCM refuses for all messages (also FuzzOptions)
func TestFaultsOfAConfig(t *testing.T) {
	t.Parallel()
	fake := pushtest.StartFCM(t, pushtest.FCMOptions{})
	for name, c := range map[string]struct {
		yaml string
		want []string // one part of each fault, in order
	}{
		"a ttl that is negative": {"keep_for: -1s", []string{`apps.x.keep_for: value "-1s": must be from 0s`}},
		"a ttl over four weeks":  {"keep_for: 29d", []string{`apps.x.keep_for: value "29d": must be from 0s to 2419200s`}},
		"two ttls":               {"keep_for: 1h\nfcm_options: {android: {ttl: 60s}}", []string{"apps.x.keep_for: value \"1h\": is set in fcm_options.android.ttl too"}},
		"a ttl in the options over four weeks": {"fcm_options: {android: {ttl: 2419201s}}",
			[]string{"apps.x.fcm_options.android.ttl: "}},
		"an unknown way to collapse": {"collapse: event", []string{`apps.x.collapse: value "event": must be "none" or "room"`}},
		"two ways to collapse": {"collapse: room\nfcm_options: {android: {collapse_key: k}}",
			[]string{"apps.x.collapse: value \"room\": contradicts fcm_options.android.collapse_key"}},
		"another choice of counts":  {"badge: some", []string{"apps.x.badge: "}},
		"an unknown way to address": {"target: topic", []string{`apps.x.target: value "topic": must be "auto", "token" or "fid"`}},
		"a project that is a path":  {"project_id: ../x", []string{"apps.x.project_id: "}},
		"a project in capitals":     {"project_id: Demo", []string{"apps.x.project_id: "}},
		"several faults at once": {"keep_for: 29d\ncollapse: x\nproject_id: X\ntarget: x\nfcm_options: {a: 1, b: {}, android: {ttl: 1, sticky: 1}}",
			[]string{"project_id", "target", "fcm_options.a", "fcm_options.android.", "fcm_options.b", "keep_for", "collapse"}},

		"an option FCM does not know":         {"fcm_options: {andriod: {}}", []string{"apps.x.fcm_options.andriod: FCM knows no such member here; it knows android, apns"}},
		"an android option FCM does not know": {"fcm_options: {android: {collapseKey: k}}", []string{"apps.x.fcm_options.android.collapseKey: "}},
		"a deep option FCM does not know":     {"fcm_options: {android: {notification: {tytle: x}}}", []string{"apps.x.fcm_options.android.notification.tytle: "}},
		"an alert option FCM does not know":   {"fcm_options: {apns: {payload: {aps: {alert: {loc_key: x}}}}}", []string{"apps.x.fcm_options.apns.payload.aps.alert.loc_key: "}},
		"an action option FCM does not know":  {"fcm_options: {webpush: {notification: {actions: [{a: b}]}}}", []string{"apps.x.fcm_options.webpush.notification.actions.0.a: "}},
		"a key with a dot":                    {"fcm_options: {a.b: 1}", []string{"apps.x.fcm_options.a.b: FCM knows no such member here; it knows android, apns"}},
		"what each push brings itself":        {"fcm_options: {data: {a: b}, token: x}", []string{"apps.x.fcm_options.data: leave it out", "apps.x.fcm_options.token: leave it out"}},
		"data that would hide the push":       {"fcm_options: {android: {data: {a: b}}}", []string{"apps.x.fcm_options.android.data: leave it out"}},
		"lights":                              {"fcm_options: {android: {notification: {light_settings: {}}}}", []string{"light_settings: use default_light_settings"}},
		"a text where an object belongs":      {"fcm_options: {android: high}", []string{`apps.x.fcm_options.android: write an object`}},
		"a text where a table belongs":        {"fcm_options: {apns: {headers: x}}", []string{"apps.x.fcm_options.apns.headers: "}},
		"a text where a list belongs":         {"fcm_options: {android: {notification: {vibrate_timings: 1s}}}", []string{"vibrate_timings: write a list"}},
		"a number where a text belongs":       {"fcm_options: {apns: {headers: {apns-priority: 10}}}", []string{`apps.x.fcm_options.apns.headers.apns-priority: write a text`}},
		"a text where a switch belongs":       {"fcm_options: {android: {direct_boot_ok: 'yes'}}", []string{"direct_boot_ok: "}},
		"a switch where a number belongs":     {"fcm_options: {apns: {payload: {aps: {content-available: true}}}}", []string{"aps.content-available: write a whole number"}},
		"a fraction where a number belongs":   {"fcm_options: {android: {notification: {notification_count: 1.5}}}", []string{"notification_count: "}},
		"a text where a fraction belongs":     {"fcm_options: {apns: {payload: {aps: {sound: {volume: loud}}}}}", []string{"sound.volume: "}},
		"a duration without a unit":           {"fcm_options: {android: {ttl: 3600}}", []string{`fcm_options.android.ttl: write seconds with an "s"`}},
		"a duration in hours":                 {"fcm_options: {android: {ttl: 1h}}", []string{"fcm_options.android.ttl: "}},
		"a priority FCM does not know":        {"fcm_options: {android: {priority: urgent}}", []string{"apps.x.fcm_options: the Firebase library refuses it: priority must be"}},
		"a colour that is none":               {"fcm_options: {android: {notification: {color: red}}}", []string{"refuses it: color must be"}},
		"a visibility FCM does not know":      {"fcm_options: {android: {notification: {visibility: none}}}", []string{"refuses it: "}},
		"a link that is not https":            {"fcm_options: {webpush: {notification: {title: t}, fcm_options: {link: 'http://x'}}}", []string{`apps.x.fcm_options: the Firebase library refuses it: invalid link URL: "http://x"`}},
		"a push that only wakes the app, at once": {`fcm_options: {apns: {headers: {apns-priority: "10"}, payload: {aps: {content-available: 1}}}}`,
			[]string{`fcm_options.apns.headers.apns-priority: value "10": FCM refuses it for a push that shows nothing; use "5", or add an alert`}},
		"a background push at once": {`fcm_options: {apns: {headers: {apns-push-type: background, apns-priority: "10"}, payload: {aps: {alert: a}}}}`,
			[]string{"fcm_options.apns.headers.apns-priority: "}},
		"a priority that is none":     {`fcm_options: {apns: {headers: {apns-priority: "7"}}}`, []string{"apns.headers.apns-priority"}},
		"a label that is none":        {"fcm_options: {fcm_options: {analytics_label: a b}}", []string{"fcm_options.fcm_options.analytics_label"}},
		"an endpoint without TLS":     {"endpoint: http://127.0.0.1", []string{"apps.x.endpoint: must be an https URL"}},
		"an endpoint with a path":     {"endpoint: https://127.0.0.1/v1", []string{"apps.x.endpoint: "}},
		"an endpoint with a password": {"endpoint: https://a:b@127.0.0.1", []string{"apps.x.endpoint: "}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg, err := load(t, c.yaml)
			if err != nil {
				t.Fatal(err)
			}
			cfg.ServiceAccount = conf.Secret(edit(t, fake.ServiceAccount("demo"), "token_uri", "https://oauth2.googleapis.com/token"))
			checkFaults(t, faults(cfg), c.want)
			if _, err := connect(t, fcm.Options{}).Open("com.example.app", cfg); err == nil {
				t.Error("Open takes what Validate does not")
			}
		})
	}
}

func checkFaults(t *testing.T, got string, want []string) {
	t.Helper()
	lines := strings.Split(got, "\n")
	if len(lines) != len(want) {
		t.Fatalf("%d faults, want %d:\n%s", len(lines), len(want), got)
	}
	for i := range want {
		if !strings.Contains(lines[i], want[i]) {
			t.Errorf("fault %d is\n%s\nwant\n%s", i, lines[i], want[i])
		}
	}
}

func TestFaultsOfAServiceAccount(t *testing.T) {
	t.Parallel()
	fake := pushtest.StartFCM(t, pushtest.FCMOptions{})
	good := fake.ServiceAccount("demo")
	for name, c := range map[string]struct {
		account  string
		endpoint string
		want     []string
	}{
		"none": {"", "", []string{"apps.x.service_account_file: is missing"}},
		"no JSON": {"-----BEGIN PRIVATE KEY----- secret", fake.URL(),
			[]string{"apps.x.service_account_file: is not the JSON key", "project_id"}},
		"a user's credentials":    {edit(t, good, "type", "authorized_user"), fake.URL(), []string{"is not the JSON key of a service account", "project_id"}},
		"no email":                {edit(t, good, "client_email", ""), fake.URL(), []string{"client_email: is missing"}},
		"a broken key":            {edit(t, good, "private_key", "-----BEGIN PRIVATE KEY-----\nsecret"), fake.URL(), []string{"private_key: is not an RSA key"}},
		"no project":              {edit(t, good, "project_id", ""), fake.URL(), []string{"apps.x.project_id: "}},
		"a foreign token URL":     {string(good), "", []string{"must be https://oauth2.googleapis.com/token: whoever answers there"}},
		"a token URL without TLS": {edit(t, good, "token_uri", "http://127.0.0.1/token"), fake.URL(), []string{"token_uri: value \"http://127.0.0.1/token\": must be an https URL"}},
		"everything": {`{"type":"service_account","token_uri":"x","private_key":"secret"}`, fake.URL(),
			[]string{"client_email", "token_uri", "private_key", "project_id"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := faults(fcm.Config{ServiceAccount: conf.Secret(c.account), Endpoint: c.endpoint})
			checkFaults(t, got, c.want)
			if strings.Contains(got, "secret") || strings.Contains(got, "PRIVATE") {
				t.Errorf("the faults show the key:\n%s", got)
			}
		})
	}
}

// TestAFileThatCouldNotBeReadIsNoFurtherFault: whoever reads it says so, and then
// nothing opens without it.
func TestAFileThatCouldNotBeReadIsNoFurtherFault(t *testing.T) {
	t.Parallel()
	cfg := fcm.Config{ServiceAccountFile: "missing.json"}
	checkFaults(t, faults(cfg), []string{""})
	if _, err := connect(t, fcm.Options{}).Open("com.example.app", cfg); err == nil {
		t.Error("an app opens without a service account")
	}
}

// edit changes one member of a service account's key.
func edit(t *testing.T, account []byte, key, value string) string {
	t.Helper()
	var file map[string]string
	if err := json.Unmarshal(account, &file); err != nil {
		t.Fatal(err)
	}
	file[key] = value
	text, err := json.Marshal(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// FuzzOptions checks that no options make the check panic, as the SDK's own
// decoder does for some, and that what passes the check can be sent.
func FuzzOptions(f *testing.F) {
	fake := pushtest.StartFCM(f, pushtest.FCMOptions{Discard: true})
	connections := connect(f, fcm.Options{RootCAs: fake.CA().Pool()})
	cfg := configFor(fake)
	for _, seed := range []string{
		`{}`, `{"android":{"ttl":"1.5s","notification":{"light_settings":{}}}}`,
		`{"apns":{"payload":{"aps":{"alert":"","sound":{"critical":1}}}}}`, `{"apns":{"payload":null}}`,
		`{"webpush":{"notification":{"actions":[null],"CustomData":1,"timestamp":1e3}}}`, `{"android":null}`,
		`{"android":{"notification":{"vibrate_timings":["0.05s"],"event_time":"2026-11-22T12:00:00.000000000Z"}}}`,
		`{"apns":{"headers":{"apns-priority":"10"},"payload":{"aps":{"content-available":1}}}}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var options map[string]any
		if json.Unmarshal([]byte(text), &options) != nil {
			return
		}
		cfg := cfg
		cfg.Options = options
		provider, err := connections.Open("com.example.app", cfg)
		if err != nil {
			if !strings.Contains(err.Error(), ".fcm_options") {
				t.Errorf("a fault of something else: %v", err)
			}
			return
		}
		defer provider.Close()
		expect(t, provider.Send(t.Context(), message("token")), push.Accepted, push.ReasonSent)
	})
}
