package main

import (
	"fmt"
	"net/http"
	"os/exec"
	"testing"
	"time"

	"github.com/matrix-herald/herald/internal/harness"
	"github.com/matrix-herald/herald/push/pushtest"
)

// TestTenThousandIdleConnections has nothing to say about time: every request
// that is made beside them, on connections old and new, is answered.
//
// Conformance (attacks): ten thousand connections: silent, idle, with headers or bodies a byte at a time | whoever waits the longest makes room, and nobody before there is need; slow bodies are cut
func TestTenThousandIdleConnections(t *testing.T) { // not parallel: others would wait for the machine
	s := startServices(t, pushtest.APNsOptions{}, pushtest.FCMOptions{})
	s.speakPlainHTTP(t)
	g := startGateway(t, s.client, "-config", s.config)
	load := harness.Load{URL: g.API + "/_matrix/push/v1/notify", Profile: harness.Silent, Count: 8000, Every: time.Second}
	silent := harness.StartLoad(t, load)
	load.Profile, load.Count = harness.Idle, 2000
	idle := harness.StartLoad(t, load)
	g.deliverSome(t, "beside the crowd", 0)
	if silent.Open.Load() == 0 || idle.Open.Load() == 0 {
		t.Error("nobody was there")
	}
	silent.Leave()
	idle.Leave()
	g.deliverSome(t, "after the crowd has gone", 0)
}

// TestMoreConnectionsThanFilesAreNoTrouble gives the gateway room for 256 files
// and lets more clients than that hold connections in silence. A new connection
// that is closed among theirs is opened again, as a homeserver does.
func TestMoreConnectionsThanFilesAreNoTrouble(t *testing.T) {
	t.Parallel()
	s := startServices(t, pushtest.APNsOptions{}, pushtest.FCMOptions{})
	s.speakPlainHTTP(t)
	few := exec.Command("sh", "-c", `ulimit -n 256 && exec "$0" -config "$1"`, harness.Binary(t), s.config)
	g := &gateway{harness.StartCmd(t, few), s.client}
	harness.StartLoad(t, harness.Load{URL: g.API, Profile: harness.Silent, Count: 400, Every: 100 * time.Millisecond})
	g.Await(t, "connections are at their bound")
	g.deliverSome(t, "among the silent", 5)
}

// deliverSome has notifications delivered over connections old and new. One that
// meets a connection that ends is sent again, this often at most.
func (g *gateway) deliverSome(t *testing.T, when string, again int) {
	t.Helper()
	fresh := *g
	fresh.client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for i := range 5 {
		for how, through := range map[string]*gateway{"kept": g, "new": &fresh} {
			body := fmt.Sprintf(`{"notification":{"event_id":"$%d %s %s","type":"m.room.message","devices":[{"app_id":%q,"pushkey":%q}]}}`,
				i, how, when, iosApp, iosKey(i))
			status, answer, err := through.notify(t.Context(), body)
			for left := again; err != nil && left > 0; left-- {
				status, answer, err = through.notify(t.Context(), body)
			}
			if err != nil || status != http.StatusOK {
				t.Fatalf("%s, on a %s connection: %d %s %v", when, how, status, answer, err)
			}
		}
	}
}
