package main

import (
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/health"
)

func TestOperationsPageExplainsEveryReason(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	apps, err := push.NewApps([]push.App{{Name: "app", ProviderName: "apns", Provider: unsupported{}, MaxInFlight: 1}})
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	remembered, err := newDedup(defaultConfig(), nil)
	if err != nil {
		t.Fatal(err)
	}
	options := push.Options{
		Log: slog.New(slog.DiscardHandler), Metrics: push.NewMetrics(registry), UnknownApp: push.UnknownAppFail,
		Dedup: remembered, Health: health.New(health.Options{}),
	}
	gateway, err := push.NewGateway(apps, options)
	if err != nil {
		t.Fatal(err)
	}
	gateway.Deliver(t.Context(), new(push.Notification), []push.Device{{AppID: "other", PushKey: "k"}}) // of no app
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	explained := 0
	for _, family := range families {
		if family.GetName() != "herald_push_outcomes_total" {
			continue
		}
		for _, series := range family.GetMetric() {
			label := make(map[string]string)
			for _, pair := range series.GetLabel() {
				label[pair.GetName()] = pair.GetValue()
			}
			_, row, found := strings.Cut(string(data), "\n| `"+label["outcome"]+"` |")
			row, _, _ = strings.Cut(row, "\n")
			if !found || !strings.Contains(row, "`"+label["reason"]+"`") {
				t.Errorf("docs/operations.md does not name %s of %s", label["reason"], label["outcome"])
			}
			explained++
		}
	}
	if explained < 20 {
		t.Errorf("%d reasons", explained)
	}
}
