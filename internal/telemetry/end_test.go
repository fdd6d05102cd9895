package telemetry_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matrix-herald/herald/internal/telemetry"
)

func TestTheEndWaitsForACollectorForThreeSeconds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var logged bytes.Buffer
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		start := time.Now()
		telemetry.End(ended, func(ctx context.Context) error {
			<-ctx.Done() // a collector that never answers
			return ctx.Err()
		}, slog.New(slog.NewTextHandler(&logged, nil)))
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("took %s", took)
		}
		if !strings.Contains(logged.String(), "the last traces are lost") {
			t.Errorf("log: %s", &logged)
		}
	})
}
