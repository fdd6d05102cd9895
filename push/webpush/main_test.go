package webpush_test

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/dedup"
	"github.com/matrix-herald/herald/push/pushtest"
	"github.com/matrix-herald/herald/push/webpush"
)

// TestMain fails when providers, connections or fakes leave goroutines behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// to brings all requests to the fake, which sees the host that was asked.
func to(fake *pushtest.WebPush) func(http.RoundTripper) http.RoundTripper {
	return func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			r = r.Clone(r.Context())
			r.Host, r.URL.Host = r.URL.Host, fake.Addr()
			return next.RoundTrip(r)
		})
	}
}

func connect(t testing.TB, fake *pushtest.WebPush, opts webpush.Options) *webpush.Connections {
	t.Helper()
	opts.RootCAs = fake.CA().Pool()
	connections := webpush.NewConnections(opts)
	t.Cleanup(connections.Close)
	return connections
}

func newKey(t testing.TB) (private, public string) {
	t.Helper()
	private, public, err := webpush.NewVAPIDKey()
	if err != nil {
		t.Fatal(err)
	}
	return private, public
}

// common are the options of an app that reaches fakes.
func common(t testing.TB) webpush.Common {
	t.Helper()
	private, _ := newKey(t)
	return webpush.Common{
		Endpoints: webpush.Endpoints{AllowNetworks: []string{"127.0.0.1"}},
		VAPIDKey:  conf.Secret(private), VAPIDContact: "mailto:push@example.org",
	}
}

// open returns a Web Push app whose endpoints all lead to the fake.
func open(t testing.TB, fake *pushtest.WebPush, change func(*webpush.Config)) *webpush.Provider {
	t.Helper()
	cfg := webpush.Config{Common: common(t)}
	if change != nil {
		change(&cfg)
	}
	provider, err := connect(t, fake, webpush.Options{Wrap: to(fake)}).Open("app", cfg, 100)
	if err != nil {
		t.Fatal(err)
	}
	return provider
}

// openUnified returns a UnifiedPush app whose endpoints all lead to the fake.
func openUnified(t testing.TB, fake *pushtest.WebPush, opts webpush.Options, change func(*webpush.UnifiedPush)) *webpush.Provider {
	t.Helper()
	cfg := webpush.UnifiedPush{Common: webpush.Common{Endpoints: webpush.Endpoints{AllowNetworks: []string{"127.0.0.1"}}}}
	if change != nil {
		change(&cfg)
	}
	opts.Wrap = to(fake)
	provider, err := connect(t, fake, opts).Open("app", cfg, 100)
	if err != nil {
		t.Fatal(err)
	}
	return provider
}

// newGateway returns a gateway with one app.
func newGateway(t testing.TB, reg *prometheus.Registry, h push.Health, provider push.Provider) *push.Gateway {
	t.Helper()
	apps, err := push.NewApps([]push.App{{Name: "app", ProviderName: "webpush", Provider: provider, MaxInFlight: 100}})
	if err != nil {
		t.Fatal(err)
	}
	memory, err := dedup.NewMemory(dedup.Options{Events: dedup.MinEvents})
	if err != nil {
		t.Fatal(err)
	}
	gateway, err := push.NewGateway(apps, push.Options{
		Dedup: memory, Health: h, Log: slog.New(slog.DiscardHandler),
		Metrics: push.NewMetrics(reg), UnknownApp: push.UnknownAppKeep, RetryWait: time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	return gateway
}

const mozilla = "https://updates.push.services.mozilla.com/wpush/v2/gAAAA"

// browser is a device of the fake's at an endpoint.
func browser(fake *pushtest.WebPush, endpoint string) *push.Device {
	return &push.Device{AppID: "app", PushKey: fake.Subscription.PushKey(), Data: map[string]any{
		"endpoint": endpoint, "auth": fake.Subscription.Auth(),
	}}
}

// message is a delivery that every app sends.
func message(d *push.Device) push.Delivery {
	unread := int64(2)
	return push.Delivery{
		ID: "3f2a6c1e-0000-4000-8000-000000000001", Device: d,
		Notification: &push.Notification{
			EventID: push.NewText("$e:x"), RoomID: push.NewText("!r:x"), RoomName: push.NewText("R"), Sender: push.NewText("@a:x"),
			Type: push.NewText("m.room.message"), Content: map[string]any{"msgtype": "m.text", "body": "hallo"},
			Counts: push.Counts{Unread: &unread},
		},
	}
}

func expect(t testing.TB, got push.Outcome, kind push.Kind, reason push.Reason) {
	t.Helper()
	if got.Kind != kind || got.Reason != reason {
		t.Errorf("got %s (%s), status %d %s, error %v; want %s (%s)", got.Kind, got.Reason, got.Status, got.Detail, got.Err, kind, reason)
	}
}

// last is the text of the last message that arrived, as JSON.
func last(t testing.TB, fake *pushtest.WebPush) map[string]any {
	t.Helper()
	all := fake.Requests()
	if len(all) == 0 {
		t.Fatal("nothing arrived")
	}
	text := all[len(all)-1].Text
	if text == "" {
		text = string(all[len(all)-1].Body)
	}
	var m map[string]any
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		t.Fatalf("%v: %q", err, text)
	}
	return m
}
