package push

import (
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
