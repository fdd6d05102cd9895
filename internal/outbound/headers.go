// Package outbound holds what packages that ask outside services share: options
// of connections, and reading the headers of answers. It opens no connection.
package outbound

import (
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// maxRetryAfter bounds what an answer may ask for.
const maxRetryAfter = time.Hour

// RetryAfter reads a push service's header Retry-After, in seconds or as a date
// (RFC 9110, section 10.2.3): at most an hour, and 0 for anything else and for
// the past.
func RetryAfter(header string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(header, 10, 31); err == nil {
		return min(time.Duration(seconds)*time.Second, maxRetryAfter)
	}
	date, err := http.ParseTime(header)
	if err != nil {
		return 0
	}
	return min(max(date.Sub(now), 0), maxRetryAfter)
}

// ClockError compares this machine's clock, now, with a push service's, as its
// header Date shows it: a wrong clock makes tokens that are refused. It is nil
// where they agree within two minutes, and where there is no date.
func ClockError(date string, now time.Time) error {
	theirs, err := http.ParseTime(date)
	if err != nil {
		theirs = now // there is nothing to compare with
	}
	wrong := now.Sub(theirs).Round(time.Minute)
	switch {
	case wrong.Abs() < 2*time.Minute:
		return nil
	case wrong < 0:
		return fmt.Errorf("the clock is %.0f minutes slow", -wrong.Minutes())
	}
	return fmt.Errorf("the clock is %.0f minutes fast", wrong.Minutes())
}
