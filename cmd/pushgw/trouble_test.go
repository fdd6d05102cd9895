package main

import (
	"fmt"
	"net/http"
	"os"
	"regexp"
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
	replicas := s.startReplicas(t, section)
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
	if metrics := replicas[1].get(t, replicas[1].Admin+"/metrics"); !strings.Contains(metrics, `herald_push_paused_until_timestamp_seconds{app="org.example.android*",provider="fcm"} 0`) {
		t.Error("/metrics shows a pause that is over")
	}
}

// A homeserver that has all places of an app must not keep another one out.
func TestAHomeserverGetsItsShareOfAFullApp(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	s := startServices(t, pushtest.APNsOptions{}, pushtest.FCMOptions{Answer: func(pushtest.FCMRequest) pushtest.FCMAnswer {
		<-hold
		return pushtest.FCMAnswer{}
	}})
	config, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, s.config, strings.Replace(string(config), "http:\n", "delivery: {fair_share: true}\nhttp:\n  trusted_proxies: [127.0.0.1]\n", 1)+
		fmt.Sprintf("  org.example.small: {type: fcm, service_account_file: firebase.json, endpoint: %q, max_in_flight: 2}\n", s.fcm.URL()))
	g := startGateway(t, s.client, "-config", s.config)
	post := func(homeserver string, n int) <-chan int {
		status := make(chan int, 1)
		go func() {
			defer close(status)
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.API+"/_matrix/push/v1/notify", strings.NewReader(
				fmt.Sprintf(`{"notification":{"event_id":"$%d","devices":[{"app_id":"org.example.small","pushkey":"%d"}]}}`, n, n)))
			if err != nil {
				t.Error(err)
				return
			}
			r.Header.Set("X-Forwarded-For", homeserver)
			res, err := g.client.Do(r)
			if err != nil {
				t.Error(err)
				return
			}
			defer res.Body.Close()
			status <- res.StatusCode
		}()
		return status
	}
	first, second := post("192.0.2.1", 1), post("192.0.2.1", 2)
	if err := s.fcm.Wait(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	if status := <-post("192.0.2.1", 3); status != 503 {
		t.Errorf("one more of the homeserver that has all places: %d", status)
	}
	other := post("192.0.2.2", 4)
	inFlight := regexp.MustCompile(`(?m)^herald_http_requests_in_flight(\{.*\})? 3$`)
	for !inFlight.MatchString(g.get(t, g.Admin+"/metrics")) {
		select {
		case status := <-other:
			t.Fatalf("another homeserver does not wait for a place: %d", status)
		default:
		}
	}
	close(hold)
	for what, status := range map[string]<-chan int{"the first": first, "the second": second, "another homeserver's": other} {
		if got := <-status; got != 200 {
			t.Errorf("%s: %d", what, got)
		}
	}
}
