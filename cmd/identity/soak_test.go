package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/matrix-herald/herald/identity/storetest"
)

// BenchmarkSoak has the running binary look ten million hashes up, a thousand in
// each request, in a directory of ten thousand bindings in SQLite. Its metrics
// are the resident memory of the process after the first million and at the end,
// in MB, and their ratio. It takes a minute, so it waits for HERALD_SOAK=1.
func BenchmarkSoak(b *testing.B) {
	if os.Getenv("HERALD_SOAK") != "1" {
		b.Skip("run make soak")
	}
	const each, million = 1000, 1_000_000
	a := newArena(b, storetest.SQLite(b), smallDirectory)
	a.connect(b)
	all := a.questions(b, each)
	lookUp := func(hashes int) {
		for i := range hashes / each {
			a.askService(b, all[i%len(all)])
		}
	}
	for range b.N {
		lookUp(million)
		first := a.node.resident(b)
		lookUp(9 * million)
		last := a.node.resident(b)
		b.ReportMetric(first, "first-MB")
		b.ReportMetric(last, "last-MB")
		b.ReportMetric(last/first, "ratio")
	}
}

// resident returns the resident memory of the process in MB.
func (n *node) resident(b *testing.B) float64 {
	b.Helper()
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", n.Cmd.Process.Pid))
	if err != nil {
		b.Skip("there is no /proc: ", err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(statm))[1])
	if err != nil {
		b.Fatal(err)
	}
	return float64(pages*os.Getpagesize()) / 1e6
}
