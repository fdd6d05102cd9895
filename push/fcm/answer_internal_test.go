package fcm

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/matrix-herald/herald/push"
)

// FuzzAnswer reads answers of whoever pretends to be FCM. Only what FCM says of
// a token gives a pushkey up, and nothing of the answer is repeated but a code.
func FuzzAnswer(f *testing.F) {
	for _, body := range []string{
		``, `<html>`, `null`, `[]`, `{"error":null}`, `{"error":{"status":"NOT_FOUND","details":[{"@type":"type.googleapis.com/google.firebase.fcm.v1.FcmError","errorCode":"UNREGISTERED"}]}}`,
		`{"error":{"status":"INVALID_ARGUMENT","message":"The registration token is not a valid FCM registration token","details":[{"fieldViolations":[{"field":"message.token"}]}]}}`,
		`{"error":{"status":"RESOURCE_EXHAUSTED","details":[{"metadata":{"quota_unit":"1/min/{project}"}}]}}`, `{"error":{"status":"token abc","details":[{"metadata":7}]}}`,
	} {
		for _, status := range []int{200, 302, 400, 401, 403, 404, 429, 500, 503} {
			f.Add(status, body, "7")
		}
	}
	now := time.Unix(1_800_000_000, 0)
	f.Fuzz(func(t *testing.T, status int, body, retryAfter string) {
		for _, rejectMismatch := range []bool{false, true} {
			out := parseAnswer(status, http.Header{"Retry-After": {retryAfter}}, []byte(body), now).outcome(rejectMismatch)
			if out.Kind == push.Rejected && status != 400 && status != 403 && status != 404 || out.Kind == push.Accepted {
				t.Errorf("%d %q: %v", status, body, out.Kind)
			}
			if strings.Trim(out.Detail, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") != "" || len(out.Detail) > 64 {
				t.Errorf("%d %q: tells %q", status, body, out.Detail)
			}
			if out.RetryAfter < 0 || out.RetryAfter > 24*time.Hour {
				t.Errorf("%q: wait %v", retryAfter, out.RetryAfter)
			}
		}
	})
}
