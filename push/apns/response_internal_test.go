package apns

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/matrix-herald/herald/push"
)

// FuzzResponse reads responses of whoever pretends to be APNs. Only what Apple says of
// a token gives a pushkey up, and nothing of the response is repeated but a reason.
func FuzzResponse(f *testing.F) {
	for _, body := range []string{
		``, `null`, `[]`, `<html>`, `{"reason":"Unregistered","timestamp":1800000000000}`, `{"reason":"Unregistered","timestamp":"1"}`, `{"reason":"BadDeviceToken"}`,
		`{"reason":"TopicDisallowed"}`, `{"reason":"TooManyProviderTokenUpdates"}`, `{"reason":{}}`, `{"reason":"abc def","timestamp":-9223372036854775808}`,
	} {
		for _, status := range []int{200, 400, 403, 410, 413, 429, 500, 503, 999} {
			f.Add(status, body, "7", int64(1_700_000_000))
		}
	}
	now := time.Unix(1_800_000_000, 0)
	f.Fuzz(func(t *testing.T, status int, body, retryAfter string, registered int64) {
		r := response{status: status, retryAfter: retryAfter}
		r.parse([]byte(body))
		out := r.outcome(&push.Device{PushKeyTS: registered}, now)
		if out.Kind == push.Rejected && status != http.StatusBadRequest && status != http.StatusGone {
			t.Errorf("%d %q: rejected", status, body)
		}
		if out.Kind == push.Accepted && status != http.StatusOK {
			t.Errorf("%d %q: accepted", status, body)
		}
		if out.Evidence != push.EvidenceUnreachable && !json.Valid([]byte(body)) && body != "" {
			t.Errorf("%d %q: taken for Apple's own", status, body)
		}
		if !isReason(out.Detail) {
			t.Errorf("%d %q: tells %q", status, body, out.Detail)
		}
		if out.RetryAfter < 0 || out.RetryAfter > time.Hour {
			t.Errorf("%q: wait %v", retryAfter, out.RetryAfter)
		}
	})
}
