package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/matrix-herald/herald/push/pushtest"
)

func TestAFleetKeepsAPauseTogether(t *testing.T) {
	t.Parallel()
	section := redisSection(t)
	s := startServices(t, pushtest.APNsOptions{}, pushtest.FCMOptions{Answer: func(r pushtest.FCMRequest) pushtest.FCMAnswer {
		if r.Message.Token != "first" {
			return pushtest.FCMAnswer{}
		}
		busy := pushtest.FCMError(503, "UNAVAILABLE", "UNAVAILABLE", "The service is currently unavailable.")
		busy.RetryAfter = "120"
		return busy
	}})
	old, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, s.config, string(old)+section)
	replicas := []*gateway{startGateway(t, s.client, "-config", s.config), startGateway(t, s.client, "-config", s.config)}
	post := func(replica int, token string) (int, string) {
		t.Helper()
		status, answer, err := replicas[replica].notify(t.Context(), fmt.Sprintf(
			`{"notification":{"event_id":"$e","room_id":"!r:x","type":"m.room.message","devices":[{"app_id":"org.example.android","pushkey":%q}]}}`, token))
		if err != nil {
			t.Fatal(err)
		}
		return status, answer
	}
	if status, answer := post(0, "first"); status != 502 {
		t.Errorf("the device that was refused: %d %s", status, answer)
	}
	if status, answer := post(1, "second"); status != 429 || !strings.Contains(answer, "M_LIMIT_EXCEEDED") || !strings.Contains(answer, `"retry_after_ms":`) {
		t.Errorf("another device at the other replica: %d %s", status, answer)
	}
	if n := len(s.fcm.Requests()); n != 1 {
		t.Errorf("FCM was asked %d times, want once", n)
	}
	// A homeserver goes on until its push is the one that finds out that it is
	// over, which ends it for all.
	until200 := func(replica int, token string) {
		t.Helper()
		for t.Context().Err() == nil {
			if status, _ := post(replica, token); status == 200 {
				return
			}
			<-time.After(100 * time.Millisecond)
		}
	}
	until200(1, "second")
	until200(0, "third")
	if metrics := replicas[1].get(t, replicas[1].admin+"/metrics"); !strings.Contains(metrics, `herald_push_paused_until_timestamp_seconds{app="org.example.android*",provider="fcm"} 0`) {
		t.Error("/metrics shows a pause that is over")
	}
}
