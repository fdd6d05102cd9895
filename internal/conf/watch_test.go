package conf_test

import (
	"context"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matrix-herald/herald/internal/conf"
)

// watched runs Watch in a synctest bubble, whose clock moves only in wait.
type watched struct {
	*testing.T
	dir     string
	files   atomic.Pointer[[]string]
	changes atomic.Int32
	losses  atomic.Int32
}

const interval = time.Second

func watch(t *testing.T, test func(w *watched)) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := &watched{T: t, dir: dir} // atomics, because a bubble's clock orders no memory accesses
		w.write("a", "one")
		w.list("a")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			conf.Watch(ctx, interval, func() []string { return *w.files.Load() }, func() { w.changes.Add(1) })
		}()
		go conf.WatchLoss(ctx, interval, func() []string { return *w.files.Load() }, func(error) { w.losses.Add(1) })
		synctest.Wait()
		test(w)
		cancel()
		<-done // Watch returns when its context ends
	})
}

func (w *watched) path(name string) string { return filepath.Join(w.dir, name) }

// list sets the files that are watched.
func (w *watched) list(names ...string) {
	var paths []string
	for _, name := range names {
		paths = append(paths, w.path(name))
	}
	w.files.Store(&paths)
}

func (w *watched) write(name, content string) { writeFile(w, w.path(name), content) }

func (w *watched) remove(name string) {
	if err := os.Remove(w.path(name)); err != nil {
		w.Fatal(err)
	}
}

// wait lets n intervals pass and compares the number of changes since the last wait.
func (w *watched) wait(n, want int) {
	w.Helper()
	<-time.After(time.Duration(n) * interval)
	synctest.Wait()
	if got := int(w.changes.Swap(0)); got != want {
		w.Errorf("after %d intervals there were %d changes, want %d", n, got, want)
	}
}

func TestWatchReportsAChangeOnceItIsStable(t *testing.T) {
	watch(t, func(w *watched) {
		w.wait(3, 0)
		w.write("a", "two")
		w.wait(1, 0) // may still be being written
		w.write("a", "three")
		w.wait(1, 0)
		w.wait(1, 1)
		w.wait(5, 0)
		w.write("a", "four!") // of the same size as three, perhaps at the same time
		w.wait(5, 1)
	})
}

func TestWatchReportsALossOnce(t *testing.T) {
	watch(t, func(w *watched) {
		lost := func(want int) {
			t.Helper()
			if got := int(w.losses.Swap(0)); got != want {
				w.Errorf("%d losses were reported, want %d", got, want)
			}
		}
		w.remove("a")
		w.wait(1, 0)
		lost(0) // may be being replaced
		w.wait(9, 0)
		lost(1)
		w.write("a", "one")
		w.wait(3, 0)
		w.remove("a")
		w.wait(3, 0)
		lost(1)
	})
}

func TestWatchIgnoresAChangeThatIsTakenBack(t *testing.T) {
	watch(t, func(w *watched) {
		w.write("a", "two")
		w.wait(1, 0)
		w.write("a", "one")
		w.wait(5, 0)
	})
}

func TestWatchIgnoresTheSameContentWrittenAgain(t *testing.T) {
	watch(t, func(w *watched) {
		w.remove("a")
		w.write("a", "one")
		w.wait(5, 0)
	})
}

func TestWatchWaitsForAMissingFile(t *testing.T) {
	watch(t, func(w *watched) {
		w.remove("a")
		w.wait(5, 0)
		w.write("a", "one")
		w.wait(5, 0)
		w.remove("a")
		w.wait(5, 0)
		w.write("a", "two")
		w.wait(5, 1)
	})
}

func TestWatchReportsAListedFileThatComesIntoBeing(t *testing.T) {
	watch(t, func(w *watched) {
		w.list("a", "b")
		w.wait(2, 0)
		w.write("b", "new")
		w.wait(2, 1)
	})
}

func TestWatchDoesNotReportAChangedList(t *testing.T) {
	watch(t, func(w *watched) {
		w.write("b", "b")
		w.list("b")
		w.wait(5, 0)
		w.write("a", "no longer watched")
		w.wait(5, 0)
		w.write("b", "changed")
		w.wait(5, 1)
	})
}

// Kubernetes mounts a secret as key -> ..data/key with ..data -> ..2026_01,
// and renames a new link over ..data.
func TestWatchFollowsSwappedLinks(t *testing.T) {
	watch(t, func(w *watched) {
		for generation, content := range map[string]string{"..1": "old", "..2": "new"} {
			if err := os.Mkdir(w.path(generation), 0o700); err != nil {
				w.Fatal(err)
			}
			w.write(filepath.Join(generation, "key"), content)
		}
		for link, target := range map[string]string{"..data": "..1", "..next": "..2", "key": "..data/key"} {
			if err := os.Symlink(target, w.path(link)); err != nil {
				w.Fatal(err)
			}
		}
		w.list("key")
		w.wait(2, 0)
		if err := os.Rename(w.path("..next"), w.path("..data")); err != nil {
			w.Fatal(err)
		}
		w.wait(2, 1)
	})
}

func TestWatchIgnoresWhatIsNoFile(t *testing.T) {
	watch(t, func(w *watched) {
		w.remove("a")
		if err := os.Mkdir(w.path("a"), 0o700); err != nil {
			w.Fatal(err)
		}
		w.wait(5, 0)
	})
}
