// Command identity is a Matrix Identity Service: it proves that people own an
// email address or telephone number, binds it to their Matrix ID and answers
// lookups.
package main

import (
	"context"
	"os"

	"github.com/matrix-herald/herald/internal/cmdline"
)

// version is set by the linker.
var version = "devel"

func main() {
	cmdline.Main(func(ctx context.Context, s cmdline.Signals) int {
		p := program{stdout: os.Stdout, stderr: os.Stderr, environ: os.Environ(), abort: s.Abort, hangup: s.Hangup}
		return p.run(ctx, os.Args[1:])
	})
}
