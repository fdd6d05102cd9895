package main

import (
	"testing"

	"github.com/matrix-herald/herald/internal/harness"
)

func TestARequestThatStallsIsAnsweredWith408(t *testing.T) {
	t.Parallel()
	s := startHere(t, ephemeral("IDENTITY_SERVER_NAME=id.example.org", "IDENTITY_PUBLIC_BASE_URL=https://id.example.org",
		"IDENTITY_DATA_DIR="+t.TempDir(), "IDENTITY_HTTP_TEST_DRAIN_DELAY=0s", "IDENTITY_HTTP_TEST_READ_TIMEOUT=300ms"))
	harness.TestStall(t, s.API, "/_matrix/identity/v2/account/register")
}

func TestADeadLogReaderStopsNothing(t *testing.T) {
	t.Parallel()
	harness.TestDeadLogReader(t, envPrefix)
}
