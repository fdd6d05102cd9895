package fcm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/matrix-herald/herald/internal/h2pool"
	"github.com/matrix-herald/herald/push"
)

const (
	// quotaRetryAfter and failureRetryAfter are the waits Google asks for when
	// an answer names none (Firebase, "Scale FCM": at least a minute after
	// 429, ten seconds after 500 and 503).
	quotaRetryAfter   = time.Minute
	failureRetryAfter = 10 * time.Second
	// maxRetryAfter bounds what an answer may ask for.
	maxRetryAfter = time.Hour
)

// FCM's error codes that decide more than the status does (Firebase,
// "ErrorCode").
const (
	codeUnregistered   = "UNREGISTERED"
	codeSenderMismatch = "SENDER_ID_MISMATCH"
	codeThirdParty     = "THIRD_PARTY_AUTH_ERROR"
)

// answer is what FCM said.
type answer struct {
	status int
	// fcm says that the body has the form of FCM's errors; a proxy's page has
	// not.
	fcm bool
	// code is FCM's errorCode, else Google's status, such as UNREGISTERED.
	code string
	// blamesToken says that the request was refused because of its token.
	blamesToken bool
	// ofProject says that it is the project's quota that is used up.
	ofProject  bool
	retryAfter time.Duration // 0 when not said
}

func parseAnswer(status int, header http.Header, body []byte, now time.Time) answer {
	a := answer{status: status, retryAfter: parseRetryAfter(header.Get("Retry-After"), now)}
	var parsed struct {
		Error *struct {
			Status  string `json:"status"`
			Message string `json:"message"`
			Details []struct {
				Type       string `json:"@type"`
				ErrorCode  string `json:"errorCode"`
				Violations []struct {
					Field string `json:"field"`
				} `json:"fieldViolations"`
				Metadata json.RawMessage `json:"metadata"`
			} `json:"details"`
		} `json:"error"`
	}
	if json.Unmarshal(body, &parsed) != nil || parsed.Error == nil {
		return a
	}
	a.fcm = true
	a.code = code(parsed.Error.Status)
	a.blamesToken = strings.Contains(parsed.Error.Message, "registration token is not a valid FCM registration token")
	for _, d := range parsed.Error.Details {
		if strings.HasSuffix(d.Type, "/google.firebase.fcm.v1.FcmError") && d.ErrorCode != "" {
			a.code = code(d.ErrorCode)
		}
		for _, v := range d.Violations {
			a.blamesToken = a.blamesToken || v.Field == "message.token"
		}
		var info struct { // Google's ErrorInfo
			QuotaUnit string `json:"quota_unit"` // such as 1/min/{project}
		}
		if json.Unmarshal(d.Metadata, &info) == nil {
			a.ofProject = a.ofProject || strings.HasSuffix(info.QuotaUnit, "/{project}")
		}
	}
	return a
}

// outcome is the one place that says what an answer other than 200 means.
func (a answer) outcome(rejectMismatch bool) push.Outcome {
	out := push.Outcome{Status: a.status, Detail: a.code}
	switch {
	case a.code == codeThirdParty:
		out.Kind, out.Reason = push.Temporary, push.ReasonThirdParty // the project's APNs or Web Push key, of which Android knows nothing
	case a.status == http.StatusBadRequest && a.blamesToken:
		out.Kind, out.Reason = push.Rejected, push.ReasonBadToken
	case a.status == http.StatusBadRequest && a.fcm:
		out.Kind, out.Reason = push.Dropped, push.ReasonBadMessage
	case a.status == http.StatusUnauthorized:
		out.Kind, out.Reason = push.Temporary, push.ReasonCredentials
	case a.status == http.StatusForbidden && a.code == codeSenderMismatch && rejectMismatch:
		out.Kind, out.Reason = push.Rejected, push.ReasonSenderMismatch
	case a.status == http.StatusForbidden && a.code == codeSenderMismatch:
		out.Kind, out.Reason = push.Temporary, push.ReasonConfig
	case a.status == http.StatusForbidden:
		out.Kind, out.Reason = push.Temporary, push.ReasonCredentials
	case a.status == http.StatusNotFound && a.code == codeUnregistered:
		out.Kind, out.Reason = push.Rejected, push.ReasonUnregistered
	case a.status == http.StatusNotFound:
		out.Kind, out.Reason = push.Temporary, push.ReasonConfig // no such project
	case a.status == http.StatusRequestEntityTooLarge:
		out.Kind, out.Reason = push.Dropped, push.ReasonTooLarge
	case a.status == http.StatusTooManyRequests:
		out.Kind, out.Reason, out.RetryAfter = push.Temporary, push.ReasonRateLimited, quotaRetryAfter
	case a.status >= http.StatusInternalServerError:
		out.Kind, out.Reason, out.RetryAfter = push.Temporary, push.ReasonUnavailable, failureRetryAfter
	default:
		out.Kind, out.Reason = push.Temporary, push.ReasonUnavailable
	}
	if out.Kind != push.Temporary {
		return out
	}
	if a.retryAfter > 0 {
		out.RetryAfter = a.retryAfter
	}
	switch {
	case a.ofProject, a.fcm && a.status >= http.StatusInternalServerError && a.retryAfter > 0:
		out.Reach = push.ReachQuota
	case out.Reason == push.ReasonRateLimited, a.retryAfter > 0:
		out.Reach = push.ReachUnclear // a device has a quota too, and a proxy may speak for itself
	}
	out.Err = errors.New(strings.TrimSpace(fmt.Sprintf("fcm answered %d %s", a.status, a.code)))
	return out
}

// failure is what it means that there was no answer. reached says that the
// request was handed to FCM's connections.
func failure(ctx context.Context, err error, reached bool, now time.Time) push.Outcome {
	out := push.Outcome{Kind: push.Temporary, Err: err}
	token, noToken := errors.AsType[*tokenError](err)
	_, answered := errors.AsType[*tokenAnswer](err)
	switch {
	case noToken && token.refused:
		out.Reason, out.RetryAfter = push.ReasonCredentials, token.wait(now)
	case noToken && answered:
		out.Reason, out.RetryAfter = push.ReasonUnavailable, token.wait(now)
	case reached && !h2pool.Unprocessed(err):
		out.Reason = push.ReasonUncertain
	case ctx.Err() != nil:
		out.Reason, out.Unprocessed = push.ReasonTimeout, true
	default:
		out.Reason, out.Unprocessed = push.ReasonConnection, true
	}
	return out
}

// parseRetryAfter reads both forms of Retry-After (RFC 9110, section 10.2.3);
// 0 for anything else and for the past.
func parseRetryAfter(text string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseInt(text, 10, 64); err == nil {
		return time.Duration(max(0, min(seconds, int64(maxRetryAfter/time.Second)))) * time.Second
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	return max(0, min(at.Sub(now), maxRetryAfter))
}

// code returns text if it has the form of one of Google's error codes, else "":
// it goes into logs, and an answer may come from anywhere.
func code(text string) string {
	return only(text, func(r rune) bool { return r == '_' || r >= 'A' && r <= 'Z' })
}

// oauthCode does the same for the error codes of RFC 6749, such as invalid_grant.
func oauthCode(text string) string {
	return only(text, func(r rune) bool { return r == '_' || r >= 'a' && r <= 'z' })
}

func only(text string, letter func(rune) bool) string {
	if len(text) > 64 || strings.ContainsFunc(text, func(r rune) bool { return !letter(r) }) {
		return ""
	}
	return text
}
