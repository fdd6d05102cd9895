package cmdline_test

import (
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/matrix-herald/herald/internal/cmdline"
)

// TestMemoryFollowsWhatIsAlive wants little memory for little, and room for as much
// again for much: a limit below what is alive would collect all the time.
func TestMemoryFollowsWhatIsAlive(t *testing.T) { // not parallel: it is about the process
	t.Setenv("GOGC", "")
	t.Setenv("GOMEMLIMIT", "4GiB") // in place of a container's, which may be too small here
	percent, limit := debug.SetGCPercent(100), debug.SetMemoryLimit(4<<30)
	t.Cleanup(func() { debug.SetGCPercent(percent); debug.SetMemoryLimit(limit) })
	cmdline.SaveMemory()
	if got := debug.SetMemoryLimit(-1); got > 64<<20 {
		t.Errorf("limit of %d MiB at the start", got>>20)
	}
	const much = 100 << 20
	alive := make([]byte, much)
	for debug.SetMemoryLimit(-1) < 2*much {
		runtime.GC() // cleanups run some time afterwards
	}
	runtime.KeepAlive(alive)
	for debug.SetMemoryLimit(-1) > 64<<20 {
		runtime.GC()
	}
}
