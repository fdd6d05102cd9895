package fcm_test

import (
	"testing"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/fcm"
	"github.com/matrix-herald/herald/push/pushtest"
)

// configFor is an app of project "demo" behind the fake.
func configFor(fake *pushtest.FCM) fcm.Config {
	return fcm.Config{ServiceAccount: conf.Secret(fake.ServiceAccount("demo")), Endpoint: fake.URL()}
}

func openWith(t testing.TB, connections *fcm.Connections, cfg fcm.Config) *fcm.Provider {
	t.Helper()
	provider, err := connections.Open("com.example.app", cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(provider.Close)
	return provider
}

func connect(t testing.TB, opts fcm.Options) *fcm.Connections {
	t.Helper()
	connections := fcm.NewConnections(opts)
	t.Cleanup(connections.Close)
	return connections
}

func open(t testing.TB, fake *pushtest.FCM) *fcm.Provider {
	t.Helper()
	return openWith(t, connect(t, fcm.Options{RootCAs: fake.CA().Pool()}), configFor(fake))
}

// message is a delivery that every app sends.
func message(pushKey string) push.Delivery {
	return push.Delivery{
		ID:     "3f2a6c1e-0000-4000-8000-000000000001",
		Device: &push.Device{AppID: "com.example.app", PushKey: pushKey},
		Notification: &push.Notification{
			EventID: push.NewMember("$e:x"),
			RoomID:  push.NewMember("!r:x"),
			Content: map[string]any{"msgtype": "m.text", "body": "a <secret> & text"},
		},
	}
}
