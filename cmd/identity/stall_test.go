package main

import (
	"strings"
	"testing"

	"github.com/matrix-herald/herald/internal/cmdtest"
)

func TestARequestThatStallsIsAnsweredWith408(t *testing.T) {
	t.Parallel()
	s := startHere(t, ephemeral("IDENTITY_SERVER_NAME=id.example.org", "IDENTITY_PUBLIC_BASE_URL=https://id.example.org",
		"IDENTITY_DATA_DIR="+t.TempDir(), "IDENTITY_HTTP_DRAIN_DELAY=0s", "IDENTITY_HTTP_READ_TIMEOUT=300ms"))
	cmdtest.TestStall(t, strings.TrimPrefix(s.API, "http://"), "/_matrix/identity/v2/account/register")
}

func TestADeadLogReaderStopsNothing(t *testing.T) {
	t.Parallel()
	cmdtest.TestDeadLogReader(t, envPrefix)
}
