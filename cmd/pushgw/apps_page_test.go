package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/dedup"
	"github.com/matrix-herald/herald/push/health"
	"github.com/matrix-herald/herald/push/httpapi"
)

// recorder is a provider that keeps what it is to send.
type recorder struct {
	*printer

	last push.Delivery
}

func (r *recorder) Send(_ context.Context, d push.Delivery) push.Outcome {
	r.last = d
	return push.Outcome{Reason: push.ReasonSent}
}

// delivery is a notification as it comes to a provider when a homeserver posts it.
func delivery(t *testing.T, notification, device map[string]any) push.Delivery {
	t.Helper()
	r := new(recorder)
	apps, err := push.NewApps([]push.App{{Name: "*", Provider: r, MaxInFlight: 1, PassOn: []string{"ciphertext", "ephemeral", "mac"}}})
	if err != nil {
		t.Fatal(err)
	}
	registry, log := prometheus.NewRegistry(), slog.New(slog.DiscardHandler)
	memory, err := dedup.NewMemory(dedup.Options{Events: dedup.MinEvents})
	if err != nil {
		t.Fatal(err)
	}
	g, err := push.NewGateway(apps, push.Options{
		Log: log, Metrics: push.NewMetrics(registry), UnknownApp: push.UnknownAppKeep, Dedup: memory, Health: health.New(health.Options{}),
	})
	if err != nil {
		t.Fatal(err)
	}
	api, err := httpapi.New(httpapi.Options{Gateway: g, Log: log, Registerer: registry, Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	device["app_id"] = "org.example.chat"
	notification = maps.Clone(notification)
	notification["devices"] = []any{device}
	if data, _ := device["data"].(map[string]any); data["format"] == "event_id_only" {
		maps.DeleteFunc(notification, func(name string, _ any) bool {
			return name != "event_id" && name != "room_id" && name != "prio" && name != "counts" && name != "devices"
		})
	}
	body, _ := json.Marshal(map[string]any{"notification": notification})
	w := httptest.NewRecorder()
	api.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "POST", notifyPath, strings.NewReader(string(body))))
	if w.Code != 200 || r.last.Device == nil {
		t.Fatalf("%d %s for %s", w.Code, w.Body, body)
	}
	return r.last
}

var block = regexp.MustCompile("(?ms)^```(json|js) ([a-z]+)\n(.*?)^```$")

// blocks are the examples of docs/apps.md, each with its kind.
func blocks(t *testing.T) [][]string {
	t.Helper()
	page, err := os.ReadFile("../../docs/apps.md")
	if err != nil {
		t.Fatal(err)
	}
	return block.FindAllStringSubmatch(string(page), -1)
}

// TestPageOfApps compares the examples that app developers read with what the
// program makes of the notification and the device before them.
func TestPageOfApps(t *testing.T) {
	t.Parallel()
	shown := make(map[string]bool)
	var notification, device map[string]any
	for _, b := range blocks(t) {
		kind, text := b[2], []byte(b[3])
		if b[1] != "json" {
			continue
		}
		var want map[string]any
		if err := json.Unmarshal(text, &want); err != nil {
			t.Fatalf("%s: %v in %s", kind, err, text)
		}
		switch kind {
		case "notification":
			notification = want
		case "device":
			device = want
		default:
			shown[kind] = true
			d := delivery(t, notification, device)
			if !slices.Contains(kindsOf(d.Device), kind) {
				t.Errorf("%s is not what -dev prints for %s", kind, d.Device.PushKey)
			}
			payload, out := preview(kind, d, time.Now())
			var got map[string]any
			if err := json.Unmarshal(payload, &got); err != nil {
				t.Fatalf("%s: %+v", kind, out)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s (-page +program):\n%s", kind, diff)
			}
		}
	}
	for _, kind := range []string{"apns", "fcm", "dart", "webpush", "declarative", "unifiedpush", "hms", "harmonyos"} {
		if !shown[kind] {
			t.Errorf("no example of %s", kind)
		}
	}
}
