package apns_test

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain fails when providers, connections or fakes leave goroutines behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
