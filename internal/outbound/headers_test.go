package outbound_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/matrix-herald/herald/internal/outbound"
)

// Conformance (APNs): Retry-After in seconds or as a date | at most an hour
func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for header, want := range map[string]time.Duration{
		"":                               0,
		"0":                              0,
		"7":                              7 * time.Second,
		"2000000000":                     time.Hour,
		"9999999999999999999999":         0,
		"-1":                             0,
		"1.5":                            0,
		"soon":                           0,
		"Fri, 02 Jan 2026 03:05:05 GMT":  time.Minute,
		"Friday, 02-Jan-26 03:05:05 GMT": time.Minute,
		"Fri, 02 Jan 2099 03:05:05 GMT":  time.Hour,
		"Sun, 06 Nov 1994 08:49:37 GMT":  0,
	} {
		if got := outbound.RetryAfter(header, now); got != want {
			t.Errorf("%q: %v, want %v", header, got, want)
		}
	}
}

func TestClockError(t *testing.T) {
	t.Parallel()
	for date, want := range map[string]string{
		"Fri, 02 Jan 2026 03:51:05 GMT": "the clock is 47 minutes slow",
		"Fri, 02 Jan 2026 01:04:00 GMT": "the clock is 120 minutes fast",
		"Fri, 02 Jan 2026 03:05:30 GMT": "<nil>",
		"":                              "<nil>",
		"now":                           "<nil>",
	} {
		if got := fmt.Sprint(outbound.ClockError(date, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))); got != want {
			t.Errorf("%q: %s, want %s", date, got, want)
		}
	}
}
