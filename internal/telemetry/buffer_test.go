package telemetry_test

import (
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matrix-herald/herald/internal/telemetry"
)

// writes remembers what each call of Write brought.
type writes struct {
	mu    sync.Mutex
	texts []string
}

func (w *writes) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.texts = append(w.texts, string(p))
	return len(p), nil
}

func (w *writes) all() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.texts)
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
		if got := w.all(); len(got) != 0 {
			t.Fatalf("written at once: %q", got)
		}
		late := time.After(100 * time.Millisecond)
		<-late
		synctest.Wait()
		if got := w.all(); len(got) != 1 || strings.Count(got[0], "\n") != 2 || !strings.Contains(got[0], "a=1 g.b=2") {
			t.Errorf("written: %q", got)
		}
		flush()
		if got := w.all(); len(got) != 1 {
			t.Errorf("nothing was left, but %q", got[1:])
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
		if got := w.all(); len(got) != 1 || !strings.Contains(got[0], "before") || !strings.Contains(got[0], "now") {
			t.Errorf("written: %q", got)
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
		if got := w.all(); len(got) != 1 {
			t.Errorf("written: %q", got)
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
		if got := w.all(); len(got) != 1 || len(got[0]) > 64<<10 {
			t.Errorf("%d writes before the third long line", len(got))
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
