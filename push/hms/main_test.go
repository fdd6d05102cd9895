package hms_test

import (
	"encoding/json"
	"testing"

	"go.uber.org/goleak"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/hms"
	"github.com/matrix-herald/herald/push/pushtest"
)

// TestMain fails when providers, connections or fakes leave goroutines behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// harmonyOS is an app on HarmonyOS behind the fake, and android one on Android.
func harmonyOS(fake *pushtest.HMS) hms.Config {
	return hms.Config{ServiceAccount: conf.Secret(fake.ServiceAccount("key-1")), Endpoint: fake.URL()}
}

func android(fake *pushtest.HMS) hms.Config {
	return hms.Config{ClientID: pushtest.HMSApp, ClientSecret: pushtest.HMSSecret, Endpoint: fake.URL()}
}

func connect(t testing.TB, fake *pushtest.HMS, opts hms.Options) *hms.Connections {
	t.Helper()
	opts.RootCAs = fake.CA().Pool()
	connections := hms.NewConnections(opts)
	t.Cleanup(connections.Close)
	return connections
}

func openWith(t testing.TB, connections *hms.Connections, cfg hms.Config) *hms.Provider {
	t.Helper()
	provider, err := connections.Open("com.example.app", cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(provider.Close)
	return provider
}

func open(t testing.TB, fake *pushtest.HMS, cfg hms.Config) *hms.Provider {
	t.Helper()
	return openWith(t, connect(t, fake, hms.Options{}), cfg)
}

const token = "IQAAAACy0kYwAADWsJ-_token~of:a+phone=="

// message is a delivery that every app sends.
func message() push.Delivery {
	unread := int64(2)
	return push.Delivery{
		ID:     "3f2a6c1e-0000-4000-8000-000000000001",
		Device: &push.Device{AppID: "com.example.app", PushKey: token},
		Notification: &push.Notification{
			EventID: push.NewText("$e:x"), RoomID: push.NewText("!r:x"), RoomName: push.NewText("Lunch"), Type: push.NewText("m.room.message"),
			Sender: push.NewText("@a:x"), SenderDisplayName: push.NewText("Alice"),
			Content: map[string]any{"msgtype": "m.text", "body": `a "secret" text`}, Counts: push.Counts{Unread: &unread},
		},
	}
}

func expect(t testing.TB, got push.Outcome, kind push.Kind, reason push.Reason, evidence push.Evidence) {
	t.Helper()
	if got.Kind != kind || got.Reason != reason || got.Evidence != evidence {
		t.Errorf("got %s (%s), evidence %d, status %d %s, error %v; want %s (%s), evidence %d",
			got.Kind, got.Reason, got.Evidence, got.Status, got.Detail, got.Err, kind, reason, evidence)
	}
}

// sent is the last message that arrived.
func sent(t testing.TB, fake *pushtest.HMS) pushtest.HMSRequest {
	t.Helper()
	all := fake.Requests()
	if len(all) == 0 {
		t.Fatal("nothing arrived")
	}
	return all[len(all)-1]
}

// dataOf is the data of a message of v1 or v2.
func dataOf(t testing.TB, r pushtest.HMSRequest) map[string]string {
	t.Helper()
	var data map[string]string
	if r.Message.Message == nil || json.Unmarshal([]byte(r.Message.Message.Data), &data) != nil {
		t.Fatalf("no data in %s", r.Body)
	}
	return data
}
