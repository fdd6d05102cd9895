package hms

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/matrix-herald/herald/internal/outbound"
	"github.com/matrix-herald/herald/push"
)

// busyRetryAfter is the wait where an answer that wants fewer messages names none.
const busyRetryAfter = time.Minute

// Codes of Huawei's that decide more than the table does.
const (
	codeSuccess   = "80000000"
	codePartly    = "80100000" // some of the tokens are illegal
	codeSensitive = "80100016"
	codeTooLarge  = "80300008"
	codeNotUrgent = "80300011"
)

// meaning is what a code means.
type meaning struct {
	kind     push.Kind
	why      push.Reason
	evidence push.Evidence
}

var (
	badToken    = meaning{push.Rejected, push.ReasonBadToken, push.EvidenceWorks}
	badMessage  = meaning{push.Dropped, push.ReasonBadMessage, push.EvidenceWorks}
	config      = meaning{push.Temporary, push.ReasonConfig, push.EvidenceWorks}
	refused     = meaning{push.Temporary, push.ReasonCredentials, push.EvidenceRefused}
	unavailable = meaning{push.Temporary, push.ReasonUnavailable, push.EvidenceUnreachable}
	limited     = meaning{push.Temporary, push.ReasonRateLimited, push.EvidenceThrottled}
)

// meanings holds what Huawei's codes mean, and those statuses that come without one.
// What a token or a message can cause says nothing against Huawei or the project.
var meanings = map[string]meaning{
	codeSuccess: {push.Accepted, push.ReasonSent, push.EvidenceWorks},

	codePartly: badToken, "80300007": badToken, // for the one token of each message
	"80100001": badMessage, "80100003": badMessage, codeSensitive: badMessage,
	codeTooLarge: {push.Dropped, push.ReasonTooLarge, push.EvidenceWorks},

	// Also where a token of HarmonyOS 5 comes to an older interface.
	"80200001": {push.Temporary, push.ReasonCredentials, push.EvidenceNone},
	// The access token has expired, could not be checked, or lives too long.
	"80200003": refused, "80200005": refused, "80300036": refused, "80600003": refused, "401": refused,

	// Members that each message has: ttl, collapse_key, images, how many tokens, the receipt.
	"80100004": config, "80100013": config, "80100022": config, "80300010": config, "80300013": config,
	// Rights, reviews, penalties and tests, and an address that is not there.
	"80100018": config, "80300002": config, codeNotUrgent: config, "80300029": config, "80300030": config, "80300037": config, "404": config,

	"81000001": unavailable, "500": unavailable, "502": unavailable, "504": unavailable,
	"429": limited, "503": limited,
}

// response is what was answered to a message.
type response struct {
	status     int
	code       string        // Huawei's, "" if it has not that form
	reason     string        // why a token of HarmonyOS is refused
	illegal    bool          // the answer lists tokens of an older system that are
	silent     bool          // it has no body
	retryAfter time.Duration // 0 when not said
	clock      error         // this machine's is wrong
}

// Only what has one of these forms goes from an answer into logs.
var (
	codeForm   = regexp.MustCompile(`^8[0-9]{7}$`)
	reasonForm = regexp.MustCompile(`^[A-Za-z]{1,64}$`)
)

func parseResponse(status int, header http.Header, body []byte, now time.Time) response {
	r := response{
		status: status, retryAfter: outbound.RetryAfter(header.Get("Retry-After"), now),
		clock: outbound.ClockError(header.Get("Date"), now), silent: len(bytes.TrimSpace(body)) == 0,
	}
	var parsed struct {
		Code    string `json:"code"`
		Message string `json:"msg"`
	}
	if json.Unmarshal(body, &parsed) != nil || !codeForm.MatchString(parsed.Code) {
		return r
	}
	r.code = parsed.Code
	var illegal struct {
		Tokens map[string]json.RawMessage `json:"illegalTokens"`
		List   []string                   `json:"illegal_tokens"` // v1 and v2
	}
	_ = json.Unmarshal([]byte(parsed.Message), &illegal) // most are words
	r.illegal = len(illegal.List) > 0                    // each message has one
	for reason := range illegal.Tokens {
		if reasonForm.MatchString(reason) && reason > r.reason {
			r.reason = reason
		}
	}
	return r
}

// outcome says what r means for the push.
func (r response) outcome(harmonyOS bool) push.Outcome {
	m, known := meanings[r.code]
	byStatus, knownStatus := meanings[strconv.Itoa(r.status)]
	switch {
	case byStatus == limited && r.code != "": // whichever
		m = limited
		if r.retryAfter > 0 {
			m.evidence = push.EvidenceQuota
		}
	case r.status == http.StatusServiceUnavailable && r.silent: // flow control needs no words
		m = limited
	case r.code == "", r.code == codeSuccess && r.status != http.StatusOK: // something else answers
		m = unavailable
	case !known && knownStatus:
		m = byStatus
	case !known:
		m = meaning{push.Temporary, push.ReasonUnavailable, push.EvidenceNone}
	case r.code == codePartly && !harmonyOS && !r.illegal:
		m = config
	case m == badToken && harmonyOS && r.reason != "tokenFormatError" && r.reason != "tokenPlatformNotSupport":
		m = config // such as a right that the app has not, or another project's token
	}
	return r.as(m)
}

// as is the outcome of a push whose answer has that meaning.
func (r response) as(m meaning) push.Outcome {
	out := push.Outcome{Kind: m.kind, Reason: m.why, Evidence: m.evidence, Status: r.status, Detail: strings.TrimSpace(r.code + " " + r.reason)}
	if r.code == codeSuccess {
		out.Detail = ""
	}
	if m.kind != push.Temporary {
		return out
	}
	if out.RetryAfter = r.retryAfter; out.RetryAfter == 0 && m.why == push.ReasonRateLimited {
		out.RetryAfter = busyRetryAfter
	}
	out.Err = errors.New(strings.TrimSpace(fmt.Sprintf("huawei answered %d %s", r.status, out.Detail)))
	if m.why == push.ReasonCredentials && r.clock != nil {
		out.Err = fmt.Errorf("%w; %w", out.Err, r.clock)
	}
	return out
}
