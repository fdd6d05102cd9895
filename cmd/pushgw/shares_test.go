package main

import (
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/matrix-herald/herald/push/pushtest"
)

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
	writeFile(t, s.config, strings.Replace(string(config), "http:\n", "http:\n  trusted_proxies: [127.0.0.1]\n", 1)+
		fmt.Sprintf("  org.example.small: {type: fcm, service_account_file: firebase.json, endpoint: %q, max_in_flight: 4}\n", s.fcm.URL()))
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
