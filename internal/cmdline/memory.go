package cmdline

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

const (
	// gcPercent lets the heap grow to five times what is alive before it is
	// collected. What is alive is a few MB, so this costs little memory; it saves a
	// tenth of pushgw's CPU time and of a lookup of a thousand hashes.
	gcPercent = 400
	// cheapMemory is how much memory may be spent on that, in bytes.
	cheapMemory = 56 << 20
)

// SaveMemory has the garbage collector keep the process small: it may grow to
// cheapMemory, or to twice what is alive, and to nine tenths of what its container
// may have. The environment variables GOGC and GOMEMLIMIT say otherwise.
func SaveMemory() {
	most, _ := memlimit.Set() // without a container there is no limit
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
		followHeap(most)
	}
}

// followHeap sets the memory limit, to most at most, and again after each
// collection.
func followHeap(most int64) {
	alive := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	metrics.Read(alive)
	const overhead = 8 << 20 // what the runtime needs for itself
	debug.SetMemoryLimit(min(most, max(cheapMemory, overhead+2*int64(alive[0].Value.Uint64()+alive[1].Value.Uint64()))))
	type garbage struct{ _ *byte }
	runtime.AddCleanup(new(garbage), followHeap, most) // which the next collection finds
}
