package telemetry_test

import (
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matrix-herald/herald/internal/telemetry"
)

// writes remembers what each call of Write brought.
type writes []string

func (w *writes) Write(p []byte) (int, error) {
	*w = append(*w, string(p))
	return len(p), nil
}

func bufferedLogger(t *testing.T, w *writes) (*slog.Logger, func()) {
	t.Helper()
	log, flush, err := telemetry.NewBufferedLogger(w, telemetry.LogConfig{Level: "info", Format: "text"})
	if err != nil {
		t.Fatal(err)
	}
	return log, flush
}

func TestLinesAreWrittenTogetherAndSoon(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var w writes
		log, flush := bufferedLogger(t, &w)
		log.Info("one")
		log.With("a", 1).WithGroup("g").Info("two", "b", 2)
		log.Debug("none")
		synctest.Wait()
		if len(w) != 0 {
			t.Fatalf("written at once: %q", w)
		}
		late := time.After(100 * time.Millisecond)
		<-late
		synctest.Wait()
		if len(w) != 1 || strings.Count(w[0], "\n") != 2 || !strings.Contains(w[0], "a=1 g.b=2") {
			t.Errorf("written: %q", w)
		}
		flush()
		if len(w) != 1 {
			t.Errorf("nothing was left, but %q", w[1:])
		}
	})
}

func TestWarningsDoNotWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var w writes
		log, _ := bufferedLogger(t, &w)
		log.Info("before")
		log.With("a", 1).Warn("now")
		if len(w) != 1 || !strings.Contains(w[0], "before") || !strings.Contains(w[0], "now") {
			t.Errorf("written: %q", w)
		}
	})
}

func TestTheEndWritesWhatIsLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var w writes
		log, flush := bufferedLogger(t, &w)
		log.Info("last")
		flush()
		if len(w) != 1 {
			t.Errorf("written: %q", w)
		}
	})
}

func TestWaitingLinesAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var w writes
		log, flush := bufferedLogger(t, &w)
		for range 3 {
			log.Info("long", "text", strings.Repeat("x", 30<<10))
		}
		if len(w) != 1 || len(w[0]) > 64<<10 {
			t.Errorf("%d writes before the third long line", len(w))
		}
		flush()
	})
}

func TestABufferedLoggerRefusesWhatALoggerRefuses(t *testing.T) {
	t.Parallel()
	if _, _, err := telemetry.NewBufferedLogger(&writes{}, telemetry.LogConfig{Level: "loud"}); err == nil {
		t.Error("no error")
	}
}
