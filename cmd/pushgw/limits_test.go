package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/matrix-herald/herald/push/pushtest"
)

func TestReplicasShareLimits(t *testing.T) {
	t.Parallel()
	section := redisSection(t)
	s := startServices(t, pushtest.APNsOptions{}, pushtest.FCMOptions{})
	replicas := s.startReplicas(t, section+"limits: {app: 2/30d}\n")
	for i, want := range []int{200, 200, 429, 429} {
		status, answer, err := replicas[i%2].notify(t.Context(), fmt.Sprintf(
			`{"notification":{"event_id":"$%d","devices":[{"app_id":%q,"pushkey":%q}]}}`, i, iosApp, iosKey(i)))
		if err != nil {
			t.Fatal(err)
		}
		if status != want || want == 429 && !strings.Contains(answer, "M_LIMIT_EXCEEDED") {
			t.Errorf("request %d: %d %s", i+1, status, answer)
		}
	}
	if n := len(s.apns.Requests()); n != 2 {
		t.Errorf("APNs has seen %d pushes, want 2", n)
	}
}
