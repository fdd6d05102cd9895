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

func TestTroubleshootingExplainsEveryReason(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../../docs/troubleshooting.md")
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
		Log: slog.New(slog.DiscardHandler), Metrics: push.NewMetrics(registry), UnknownApp: push.UnknownAppKeep,
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
			for _, pair := range series.GetLabel() {
				if pair.GetName() == "reason" && !strings.Contains(string(data), "`"+pair.GetValue()+"`") {
					t.Errorf("docs/troubleshooting.md does not explain the reason %s", pair.GetValue())
				}
			}
			explained++
		}
	}
	if explained < 20 {
		t.Errorf("%d reasons", explained)
	}
}
