package apns

import (
	"cmp"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/sideshow/apns2"

	"github.com/matrix-herald/herald/internal/h2pool"
	"github.com/matrix-herald/herald/push"
)

// Reasons that apns2 has no names for ("Handling notification responses from
// APNs").
const (
	reasonUnrelatedKey     = "UnrelatedKeyIdInToken"
	reasonWrongPlatformKey = "BadEnvironmentKeyIdInToken"
)

// rule says what an answer means.
type rule struct {
	status int    // 0 is any
	reason string // "" is any
	kind   push.Kind
	why    push.Reason
	// unprocessed: the same push may be sent again at once, because Apple
	// cannot have taken it.
	unprocessed bool
}

// rules holds every answer of Apple's that we know; the first that fits counts.
// Only what Apple says about the device token itself rejects a pushkey: all
// else is about the push or about us.
var rules = []rule{
	{200, "", push.Accepted, push.ReasonSent, false},

	{400, apns2.ReasonBadDeviceToken, push.Rejected, push.ReasonBadToken, false},
	{400, apns2.ReasonDeviceTokenNotForTopic, push.Rejected, push.ReasonWrongTopic, false},
	{400, apns2.ReasonPayloadEmpty, push.Dropped, push.ReasonBadMessage, false},
	{400, apns2.ReasonIdleTimeout, push.Temporary, push.ReasonConnection, true},
	{400, apns2.ReasonBadCertificate, push.Temporary, push.ReasonCredentials, false},
	{400, apns2.ReasonBadCertificateEnvironment, push.Temporary, push.ReasonCredentials, false},
	{400, "", push.Temporary, push.ReasonConfig, false}, // TopicDisallowed, BadTopic, InvalidPushType and the like

	{403, "", push.Temporary, push.ReasonCredentials, false},
	{404, "", push.Temporary, push.ReasonConfig, false},
	{405, "", push.Temporary, push.ReasonConfig, false},

	{410, apns2.ReasonUnregistered, push.Rejected, push.ReasonUnregistered, false},
	{410, apns2.ReasonExpiredToken, push.Rejected, push.ReasonUnregistered, false},

	{413, "", push.Dropped, push.ReasonTooLarge, false},
	{429, "", push.Temporary, push.ReasonRateLimited, false},

	{500, "", push.Temporary, push.ReasonUnavailable, true},
	{503, "", push.Temporary, push.ReasonUnavailable, true},
	{0, "", push.Temporary, push.ReasonUnavailable, false}, // nothing that APNs says: a proxy, perhaps
}

func ruleFor(status int, reason string) rule {
	for _, r := range rules {
		if (r.status == status || r.status == 0) && (r.reason == reason || r.reason == "") {
			return r
		}
	}
	return rules[len(rules)-1]
}

// answer is the body of an answer that is not 200.
type answer struct {
	Reason    string `json:"reason"`
	Timestamp int64  `json:"timestamp"` // of a 410, in milliseconds
}

// outcome says what the answer in x means for a device.
func (x *exchange) outcome(d *push.Device, now time.Time, rejectTopic bool) push.Outcome {
	a := parseAnswer(x.body)
	r := ruleFor(x.status, a.Reason)
	out := push.Outcome{Kind: r.kind, Reason: r.why, Status: x.status, Detail: a.Reason}
	switch {
	case x.status == http.StatusGone && r.kind == push.Rejected && stale(a.Timestamp, d.PushKeyTS):
		out.Kind, out.Reason = push.Temporary, push.ReasonStaleReport
	case rejectTopic && a.Reason == apns2.ReasonTopicDisallowed:
		out.Kind, out.Reason = push.Rejected, push.ReasonWrongTopic
	}
	if out.Kind == push.Temporary {
		out.RetryAfter = push.RetryAfter(x.retryAfter, now)
		// Apple that asks for patience is not asked again within a request.
		out.Unprocessed = r.unprocessed && x.retryAfter == ""
		out.Reach, out.RetryAfter = reach(a.Reason, out.RetryAfter)
	}
	return out
}

// tokenRetryAfter is how long a team whose provider token changes too often
// leaves APNs alone when that names no time.
const tokenRetryAfter = time.Minute

// reach says whose matter an answer's Retry-After is, and how long it is.
func reach(reason string, after time.Duration) (push.Reach, time.Duration) {
	switch {
	case reason == apns2.ReasonTooManyProviderTokenUpdates:
		return push.ReachQuota, cmp.Or(after, tokenRetryAfter)
	case after == 0, reason == apns2.ReasonTooManyRequests: // the latter is about one device token
		return push.ReachDevice, after
	}
	return push.ReachUnclear, after // of a server, perhaps, of which there are many
}

// parseAnswer reads the body of an answer, as far as it is one. Each member is
// read for itself, so that a timestamp of another form does not hide the
// reason.
func parseAnswer(body []byte) answer {
	var members map[string]json.RawMessage
	if len(body) == 0 || json.Unmarshal(body, &members) != nil {
		return answer{}
	}
	var a answer
	if json.Unmarshal(members["reason"], &a.Reason) != nil || !isReason(a.Reason) {
		a.Reason = ""
	}
	if json.Unmarshal(members["timestamp"], &a.Timestamp) != nil {
		a.Timestamp = 0
	}
	return a
}

// isReason reports whether s looks like one of Apple's reasons. Nothing else is
// repeated in logs: an answer from elsewhere might repeat the request.
func isReason(s string) bool {
	return len(s) <= 40 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
}

// stale reports whether a token was reported dead, timestamp in milliseconds,
// not after it was registered again, registered in seconds. 0 is unknown.
func stale(timestamp, registered int64) bool {
	// timestamp <= registered*1000, which could overflow.
	return timestamp > 0 && registered > 0 && (timestamp-1)/1000 < registered
}

// failure says what a transport error means. ended is the error of the
// context of the request, if it has ended.
func failure(err, ended error) push.Outcome {
	out := push.Outcome{Kind: push.Temporary, Reason: push.ReasonUncertain, Err: err}
	goAway, left := errors.AsType[*h2pool.GoAwayError](err)
	if left {
		out.Detail = parseAnswer([]byte(goAway.Debug)).Reason
	}
	if !h2pool.Unprocessed(err) {
		return out
	}
	out.Unprocessed = true
	switch {
	case ended != nil:
		out.Reason = push.ReasonTimeout
	case isCredential(out.Detail), certificateRefused(err):
		out.Reason = push.ReasonCredentials
	default:
		out.Reason = push.ReasonConnection
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

// isCredential reports whether a reason is about the provider's credentials.
func isCredential(reason string) bool {
	switch reason {
	case apns2.ReasonBadCertificate, apns2.ReasonBadCertificateEnvironment, apns2.ReasonForbidden,
		apns2.ReasonExpiredProviderToken, apns2.ReasonInvalidProviderToken, apns2.ReasonMissingProviderToken,
		reasonUnrelatedKey, reasonWrongPlatformKey:
		return true
	}
	return false
}
