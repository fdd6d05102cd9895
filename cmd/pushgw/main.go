// Command pushgw is a Matrix Push Gateway: it takes notifications from
// homeservers and delivers them to phones through APNs and FCM, and to browsers.
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
		p := program{stdout: os.Stdout, stderr: os.Stderr, environ: os.Environ(), abort: s.Abort, reload: s.Hangup}
		return p.run(ctx, os.Args[1:])
	})
}
