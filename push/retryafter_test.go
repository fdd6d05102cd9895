package push_test

import (
	"testing"
	"time"

	"github.com/matrix-herald/herald/push"
)

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
		if got := push.RetryAfter(header, now); got != want {
			t.Errorf("%q: %v, want %v", header, got, want)
		}
	}
}
