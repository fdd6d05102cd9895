package apns

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/sideshow/apns2"

	"github.com/matrix-herald/herald/internal/h2pool"
	"github.com/matrix-herald/herald/internal/outbound"
	"github.com/matrix-herald/herald/push"
)

// Reasons that apns2 has no names for ("Handling notification responses from
// APNs").
const (
	reasonUnrelatedKey     = "UnrelatedKeyIdInToken"
	reasonWrongPlatformKey = "BadEnvironmentKeyIdInToken"
)

// rule says what a response in Apple's own form means.
type rule struct {
	status   int    // 0 is any
	reasons  string // one or more; "" is any
	kind     push.Kind
	why      push.Reason
	evidence push.Evidence
	// unprocessed: the same push may be sent again at once, because Apple
	// cannot have taken it.
	unprocessed bool
}

const certificateReasons = "BadCertificate BadCertificateEnvironment"

// rules holds every response of Apple's that we know; the first that fits
// counts. Only what Apple says about the device token itself rejects a pushkey:
// all else is about the push or about us. And what a token, a payload or one
// app's settings can cause says nothing against Apple or our credentials, which
// a team's other apps use as well.
var rules = []rule{
	{200, "", push.Accepted, push.ReasonSent, push.EvidenceWorks, false},

	{400, apns2.ReasonBadDeviceToken, push.Rejected, push.ReasonBadToken, push.EvidenceWorks, false},
	{400, apns2.ReasonDeviceTokenNotForTopic, push.Rejected, push.ReasonWrongTopic, push.EvidenceWorks, false},
	{400, apns2.ReasonPayloadEmpty, push.Dropped, push.ReasonBadMessage, push.EvidenceWorks, false},
	{400, apns2.ReasonIdleTimeout, push.Temporary, push.ReasonConnection, push.EvidenceNone, true},
	{400, certificateReasons, push.Temporary, push.ReasonCredentials, push.EvidenceRefused, false},
	{400, "", push.Temporary, push.ReasonConfig, push.EvidenceNone, false}, // TopicDisallowed, BadTopic, BadPriority and the like

	{403, certificateReasons + " ExpiredProviderToken InvalidProviderToken MissingProviderToken Forbidden UnrelatedKeyIdInToken BadEnvironmentKeyIdInToken",
		push.Temporary, push.ReasonCredentials, push.EvidenceRefused, false},
	{403, "", push.Temporary, push.ReasonCredentials, push.EvidenceNone, false},

	{404, "", push.Temporary, push.ReasonConfig, push.EvidenceNone, false},
	{405, "", push.Temporary, push.ReasonConfig, push.EvidenceNone, false},

	{410, "Unregistered ExpiredToken", push.Rejected, push.ReasonUnregistered, push.EvidenceWorks, false},

	{413, "", push.Dropped, push.ReasonTooLarge, push.EvidenceWorks, false},

	{429, apns2.ReasonTooManyProviderTokenUpdates, push.Temporary, push.ReasonRateLimited, push.EvidenceQuota, false},
	{429, apns2.ReasonTooManyRequests, push.Temporary, push.ReasonRateLimited, push.EvidenceNone, false}, // of one device token
	{429, "", push.Temporary, push.ReasonRateLimited, push.EvidenceThrottled, false},

	{500, "", push.Temporary, push.ReasonUnavailable, push.EvidenceUnreachable, true},
	{503, "", push.Temporary, push.ReasonUnavailable, push.EvidenceUnreachable, true},
	{0, "", push.Temporary, push.ReasonUnavailable, push.EvidenceNone, false},
}

// tokenRetryAfter is how long a team whose provider token changes too often
// leaves APNs alone when that names no time.
const tokenRetryAfter = time.Minute

// maxResponse bounds what is read of a response's body; Apple's have about 50
// bytes.
const maxResponse = 4 << 10

// response is what APNs, or something in its place, answered.
type response struct {
	status     int
	own        bool   // it has the form of Apple's: no proxy's page, for example
	reason     string // one of Apple's words, else ""
	timestamp  int64  // of a 410, in milliseconds
	retryAfter string // the headers Retry-After and Date
	date       string
}

func readResponse(res *http.Response) response {
	r := response{status: res.StatusCode, retryAfter: res.Header.Get("Retry-After"), date: res.Header.Get("Date")}
	body, _ := io.ReadAll(io.LimitReader(res.Body, maxResponse)) // what breaks off still has a status
	r.parse(body)
	return r
}

// parse reads a body, as far as it is one of Apple's: a JSON object with a
// reason, or nothing where the push was taken. Each member is read for itself,
// so that a timestamp of another form does not hide the reason.
func (r *response) parse(body []byte) {
	if len(body) == 0 {
		r.own = r.status == http.StatusOK
		return
	}
	var members map[string]json.RawMessage
	if json.Unmarshal(body, &members) != nil || members == nil {
		return
	}
	if json.Unmarshal(members["reason"], &r.reason) != nil || !isReason(r.reason) {
		r.reason = ""
	}
	if json.Unmarshal(members["timestamp"], &r.timestamp) != nil {
		r.timestamp = 0
	}
	r.own = r.reason != "" || r.status == http.StatusOK
}

// isReason reports whether s looks like one of Apple's reasons. Nothing else is
// repeated in logs: a response from elsewhere might repeat the request.
func isReason(s string) bool {
	return len(s) <= 40 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
}

// rule returns what r means. Whatever is not in Apple's own form was said by
// something on the way, and means that Apple could not be reached.
func (r *response) rule() rule {
	if !r.own {
		failed := r.status == http.StatusInternalServerError || r.status == http.StatusServiceUnavailable
		return rule{r.status, "", push.Temporary, push.ReasonUnavailable, push.EvidenceUnreachable, failed}
	}
	for _, rule := range rules {
		if (rule.status == r.status || rule.status == 0) && (rule.reasons == "" || slices.Contains(strings.Fields(rule.reasons), r.reason)) {
			return rule
		}
	}
	return rules[len(rules)-1]
}

// outcome says what r means for a device.
func (r *response) outcome(d *push.Device, now time.Time) push.Outcome {
	rule := r.rule()
	out := push.Outcome{Kind: rule.kind, Reason: rule.why, Evidence: rule.evidence, Status: r.status, Detail: r.reason}
	if r.status == http.StatusGone && out.Kind == push.Rejected && stale(r.timestamp, d.PushKeyTS) {
		out.Kind, out.Reason = push.Temporary, push.ReasonStaleReport
	}
	if out.Kind != push.Temporary {
		return out
	}
	out.RetryAfter = outbound.RetryAfter(r.retryAfter, now)
	if out.Evidence == push.EvidenceQuota {
		out.RetryAfter = cmp.Or(out.RetryAfter, tokenRetryAfter)
	}
	// After a Retry-After Apple is not asked again within a request.
	out.Unprocessed = rule.unprocessed && r.retryAfter == ""
	if r.reason == apns2.ReasonExpiredProviderToken || r.reason == apns2.ReasonInvalidProviderToken {
		out.Err = outbound.ClockError(r.date, now)
	}
	return out
}

// stale reports whether a token was reported dead, timestamp in milliseconds,
// not after it was registered again, registered in seconds. 0 is unknown.
func stale(timestamp, registered int64) bool {
	// timestamp <= registered*1000, which could overflow.
	return timestamp > 0 && registered > 0 && (timestamp-1)/1000 < registered
}

// failure says what a transport error means.
func failure(ctx context.Context, err error) push.Outcome {
	out := push.NoAnswer(ctx, err, h2pool.Unprocessed(err))
	var last response // Apple's last words on the connection
	if goAway, left := errors.AsType[*h2pool.GoAwayError](err); left {
		last.status = http.StatusForbidden
		last.parse([]byte(goAway.Debug))
		out.Detail = last.reason
	}
	if out.Reason == push.ReasonConnection && (last.own && last.rule().evidence == push.EvidenceRefused || certificateRefused(err)) {
		out.Reason, out.Evidence = push.ReasonCredentials, push.EvidenceRefused
	}
	return out
}

// certificateRefused reports whether the server ended the TLS handshake over
// the provider's certificate. crypto/tls has no exported type for the alerts of
// the other side, but the operation of their errors is their own.
func certificateRefused(err error) bool {
	alert, ok := errors.AsType[*net.OpError](err)
	return ok && alert.Op == "remote error" && strings.Contains(alert.Err.Error(), "certificate")
}
