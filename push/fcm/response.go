package fcm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/matrix-herald/herald/internal/h2pool"
	"github.com/matrix-herald/herald/internal/outbound"
	"github.com/matrix-herald/herald/push"
)

const (
	// quotaRetryAfter and failureRetryAfter are the waits Google asks for when
	// an answer names none (Firebase, "Scale FCM": at least a minute after
	// 429, ten seconds after 500 and 503).
	quotaRetryAfter   = time.Minute
	failureRetryAfter = 10 * time.Second
)

// FCM's error codes that decide more than the status does (Firebase,
// "ErrorCode"), and one of Google's other services.
const (
	codeUnregistered   = "UNREGISTERED"
	codeSenderMismatch = "SENDER_ID_MISMATCH"
	codeThirdParty     = "THIRD_PARTY_AUTH_ERROR"
	codePrecondition   = "FAILED_PRECONDITION"
)

// subject is what a response is about. Of several that it names the greatest
// counts, which costs no pushkey.
type subject int

const (
	unnamed     subject = iota // or the data of the message
	theToken                   // the device's
	theSettings                // the app's fcm_options
	theProject                 // and its quota
)

// rule says what a response in FCM's own form means.
type rule struct {
	status   int     // 0 is any
	code     string  // "" is any
	about    subject // unnamed is any
	kind     push.Kind
	why      push.Reason
	evidence push.Evidence
}

// rules holds every response of FCM's that we know but 200; the first that fits
// counts. Only what it says about the token itself rejects a pushkey. What a
// token or the data of a message can cause says nothing against FCM or the
// project.
var rules = []rule{
	// The project's key for APNs or Web Push, of which Android knows nothing.
	{0, codeThirdParty, unnamed, push.Temporary, push.ReasonThirdParty, push.EvidenceWorks},

	{400, codePrecondition, unnamed, push.Temporary, push.ReasonConfig, push.EvidenceWorks},
	{400, "", theSettings, push.Temporary, push.ReasonConfig, push.EvidenceWorks},
	{400, "", theToken, push.Rejected, push.ReasonBadToken, push.EvidenceWorks},
	{400, "", unnamed, push.Dropped, push.ReasonBadMessage, push.EvidenceWorks},

	{401, "", unnamed, push.Temporary, push.ReasonCredentials, push.EvidenceRefused},

	{403, codeSenderMismatch, unnamed, push.Rejected, push.ReasonSenderMismatch, push.EvidenceWorks},
	{403, "", unnamed, push.Temporary, push.ReasonCredentials, push.EvidenceRefused},

	{404, codeUnregistered, unnamed, push.Rejected, push.ReasonUnregistered, push.EvidenceWorks},
	// No such project, it seems; but FCM's text is that of UNREGISTERED.
	{404, "", unnamed, push.Temporary, push.ReasonConfig, push.EvidenceNone},

	{413, "", unnamed, push.Dropped, push.ReasonTooLarge, push.EvidenceWorks},

	{429, "", theProject, push.Temporary, push.ReasonRateLimited, push.EvidenceQuota},
	{429, "", unnamed, push.Temporary, push.ReasonRateLimited, push.EvidenceThrottled},

	{500, "", unnamed, push.Temporary, push.ReasonUnavailable, push.EvidenceUnreachable},
	{502, "", unnamed, push.Temporary, push.ReasonUnavailable, push.EvidenceUnreachable},
	{503, "", unnamed, push.Temporary, push.ReasonUnavailable, push.EvidenceUnreachable},
	{504, "", unnamed, push.Temporary, push.ReasonUnavailable, push.EvidenceUnreachable},
	{0, "", unnamed, push.Temporary, push.ReasonUnavailable, push.EvidenceNone},
}

// notFCM is what it means that something else answers in FCM's place, whatever
// the status: a proxy's page, or a message that was "taken" without a name.
var notFCM = rule{kind: push.Temporary, why: push.ReasonUnavailable, evidence: push.EvidenceUnreachable}

// response is what was answered to a message.
type response struct {
	status int
	taken  bool // 200, and FCM gave the message a name
	own    bool // it has the form of FCM's errors
	// code is FCM's errorCode, else Google's status, such as UNREGISTERED.
	code  string
	about subject
	// member is the path of a member that fcm_options has wrong.
	member     string
	retryAfter time.Duration // 0 when not said
}

func parseResponse(status int, header http.Header, body []byte, now time.Time) response {
	r := response{status: status, retryAfter: outbound.RetryAfter(header.Get("Retry-After"), now)}
	var parsed struct {
		Name  string `json:"name"`
		Error struct {
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
	if json.Unmarshal(body, &parsed) != nil {
		return r
	}
	r.taken = status == http.StatusOK && parsed.Name != ""
	if errorCode.MatchString(parsed.Error.Status) {
		r.code, r.own = parsed.Error.Status, true
	}
	switch text := parsed.Error.Message; { // these are not always said otherwise
	case status == http.StatusForbidden && strings.Contains(text, "SenderId mismatch"):
		r.code = codeSenderMismatch
	case strings.Contains(text, "registration token is not a valid FCM registration token"):
		r.blame("message.token")
	case strings.Contains(text, "Invalid package name"):
		r.blame("message.android.restricted_package_name")
	}
	for _, d := range parsed.Error.Details {
		if strings.HasSuffix(d.Type, "/google.firebase.fcm.v1.FcmError") && errorCode.MatchString(d.ErrorCode) {
			r.code = d.ErrorCode
		}
		for _, v := range d.Violations {
			r.blame(v.Field)
		}
		var info struct { // Google's ErrorInfo
			QuotaUnit string `json:"quota_unit"` // such as 1/min/{project}
		}
		if json.Unmarshal(d.Metadata, &info) == nil && strings.HasSuffix(info.QuotaUnit, "/{project}") {
			r.about = theProject
		}
	}
	return r
}

// Only what has one of these forms goes from a response into logs: it may come
// from anywhere.
var (
	errorCode  = regexp.MustCompile(`^[A-Z_]{1,64}$`)
	memberPath = regexp.MustCompile(`^[a-z0-9_.\[\]]{1,64}$`)
)

// blame notes the path of a member that FCM refuses.
func (r *response) blame(member string) {
	switch {
	case member == "", strings.HasPrefix(member, "message.data"):
	case member == "message.token", member == "message.fid":
		r.about = max(r.about, theToken)
	default:
		r.about = max(r.about, theSettings)
		if memberPath.MatchString(member) {
			r.member = member
		}
	}
}

// rule returns the rule that r falls under.
func (r response) rule() rule {
	if !r.own {
		return notFCM
	}
	for _, rule := range rules {
		if (rule.status == 0 || rule.status == r.status) && (rule.code == "" || rule.code == r.code) &&
			(rule.about == unnamed || rule.about == r.about) {
			return rule
		}
	}
	return notFCM // the last rule fits everything
}

// refusesToken reports whether r is about the access token, and about nothing
// else that has the same status.
func (r response) refusesToken() bool {
	return r.own && r.status == http.StatusUnauthorized && r.code != codeThirdParty
}

// outcome says what r means for the push.
func (r response) outcome() push.Outcome {
	if r.taken {
		return push.Outcome{Kind: push.Accepted, Reason: push.ReasonSent, Evidence: push.EvidenceWorks, Status: r.status}
	}
	rule := r.rule()
	if rule.kind == push.Temporary {
		return r.temporary(rule.why, rule.evidence)
	}
	return push.Outcome{Kind: rule.kind, Reason: rule.why, Evidence: rule.evidence, Status: r.status, Detail: r.code}
}

// temporary is the outcome of a push that may be tried again.
func (r response) temporary(why push.Reason, evidence push.Evidence) push.Outcome {
	out := push.Outcome{Kind: push.Temporary, Reason: why, Evidence: evidence, Status: r.status, Detail: r.code, RetryAfter: r.retryAfter}
	switch {
	case r.retryAfter > 0:
	case why == push.ReasonRateLimited:
		out.RetryAfter = quotaRetryAfter
	case r.status >= http.StatusInternalServerError:
		out.RetryAfter = failureRetryAfter
	}
	text := fmt.Sprintf("fcm answered %d %s", r.status, r.code)
	if r.member != "" {
		text += " about " + r.member
	}
	out.Err = errors.New(strings.TrimSpace(text))
	return out
}

// failure is what it means that there was no response.
func failure(ctx context.Context, err error) push.Outcome {
	return push.NoAnswer(ctx, err, h2pool.Unprocessed(err))
}
