package main

import (
	"testing"

	"github.com/matrix-herald/herald/internal/harness"
)

func TestARequestThatStallsIsAnsweredWith408(t *testing.T) {
	t.Parallel()
	s := pushgw.Serve(t, ephemeral("PUSHGW_HTTP_TEST_DRAIN_DELAY=0s", "PUSHGW_HTTP_TEST_READ_TIMEOUT=300ms"), "-dev")
	harness.TestStall(t, s.API, "/_matrix/push/v1/notify")
}

// Conformance (pushgw): whoever reads the log may end: the service does not
func TestADeadLogReaderStopsNothing(t *testing.T) {
	t.Parallel()
	harness.TestDeadLogReader(t, envPrefix)
}
