package fcm

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/matrix-herald/herald/push"
)

// FuzzResponse reads responses of whoever pretends to be FCM. Only what FCM says
// of a token gives a pushkey up; only what it says of our account speaks against
// that; what is not FCM's own says no more than that FCM is not there; and
// nothing of a response is repeated but a code.
func FuzzResponse(f *testing.F) {
	for _, body := range []string{
		``, `<html>`, `null`, `[]`, `{"error":null}`, `{"error":{"status":"NOT_FOUND","details":[{"@type":"type.googleapis.com/google.firebase.fcm.v1.FcmError","errorCode":"UNREGISTERED"}]}}`,
		`{"error":{"status":"INVALID_ARGUMENT","message":"The registration token is not a valid FCM registration token","details":[{"fieldViolations":[{"field":"message.token"}]}]}}`,
		`{"error":{"status":"RESOURCE_EXHAUSTED","details":[{"metadata":{"quota_unit":"1/min/{project}"}}]}}`, `{"error":{"status":"token abc","details":[{"metadata":7}]}}`,
		`{"error":{"status":"INVALID_ARGUMENT","message":"Invalid value at 'message.android.ttl'","details":[{"fieldViolations":[{"field":"message.data[0].value"}]}]}}`,
	} {
		for _, status := range []int{200, 302, 400, 401, 403, 404, 429, 500, 503} {
			f.Add(status, body, "7")
		}
	}
	now := time.Unix(1_800_000_000, 0)
	f.Fuzz(func(t *testing.T, status int, body, retryAfter string) {
		r := parseResponse(status, http.Header{"Retry-After": {retryAfter}}, []byte(body), now)
		out := r.outcome()
		switch {
		case out.Kind == push.Rejected && !slices.Contains([]int{400, 403, 404}, status), out.Kind == push.Accepted && status != 200:
			t.Errorf("%d %q: %v", status, body, out.Kind)
		case out.Evidence == push.EvidenceRefused && !slices.Contains([]int{401, 403}, status),
			out.Evidence == push.EvidenceQuota && status != 429,
			!r.own && !r.taken && (out.Evidence != push.EvidenceUnreachable || out.Reason != push.ReasonUnavailable):
			t.Errorf("%d %q: evidence %d (%s)", status, body, out.Evidence, out.Reason)
		case out.Detail != "" && !errorCode.MatchString(out.Detail):
			t.Errorf("%d %q: tells %q", status, body, out.Detail)
		case out.RetryAfter < 0 || out.RetryAfter > time.Hour:
			t.Errorf("%q: wait %v", retryAfter, out.RetryAfter)
		}
	})
}
