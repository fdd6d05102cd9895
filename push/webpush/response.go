package webpush

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/matrix-herald/herald/internal/outbound"
	"github.com/matrix-herald/herald/internal/safehttp"
	"github.com/matrix-herald/herald/push"
)

const (
	// maxResponse is how much of an answer is looked at, in bytes.
	maxResponse = 4 << 10
	// windowsRetryAfter and otherRetryAfter are the waits where an answer that
	// wants fewer notifications names none.
	windowsRetryAfter = 15 * time.Minute
	otherRetryAfter   = time.Minute
)

// Codes that answers are known by: Apple's reasons, and what others say in words.
const (
	codeOtherKey = "VapidPkHashMismatch"
	codeNoKey    = "UnauthorizedRegistration"
	codeBadTopic = "BadWebPushTopic"
	codeBadTTL   = "BadTtl"
)

var codes = []string{codeOtherKey, codeNoKey, codeBadTopic, codeBadTTL, "BadVapidPublicKey", "BadUrgency", "BadJwtToken", "BadWebPushRequest", "Unregistered", "ExpiredToken"}

// rule says what an answer means.
type rule struct {
	status   int
	details  string // one or more; "" is any
	kind     push.Kind
	why      push.Reason
	evidence push.Evidence
}

// rules holds the answers that mean the same whoever gives them; the first that fits
// counts. Whoever chose the endpoint may have caused each: none speaks against us.
var rules = []rule{
	{400, "UnauthorizedRegistration,BadVapidPublicKey,BadJwtToken", push.Temporary, push.ReasonCredentials, push.EvidenceNone},
	// Of the headers.
	{400, "BadWebPushTopic,BadTtl,BadUrgency,errno 108,errno 110,errno 111,errno 112,errno 113,errno 114", push.Temporary, push.ReasonConfig, push.EvidenceNone},
	{400, "", push.Dropped, push.ReasonBadMessage, push.EvidenceWorks},
	{401, "", push.Temporary, push.ReasonCredentials, push.EvidenceNone},
	{403, "", push.Temporary, push.ReasonCredentials, push.EvidenceNone},
	{404, "", push.Rejected, push.ReasonUnregistered, push.EvidenceWorks},
	{410, "", push.Rejected, push.ReasonUnregistered, push.EvidenceWorks},
	{413, "", push.Dropped, push.ReasonTooLarge, push.EvidenceWorks},
	{429, "", push.Temporary, push.ReasonRateLimited, push.EvidenceThrottled},
	{502, "errno 901", push.Temporary, push.ReasonThirdParty, push.EvidenceWorks},
}

var errEndpoint = errors.New("the endpoint is not a URL that can be asked")

// response is what was answered to a message.
type response struct {
	host, path string // that were asked
	written    bool   // the request was
	status     int
	code       string // one of the codes
	errno      int    // Mozilla's
	mozilla    bool   // it has the form of Mozilla's
	retryAfter time.Duration
}

// read takes from an answer what is known. The rest may come from anybody.
func (r *response) read(res *http.Response, now time.Time) {
	r.status, r.retryAfter = res.StatusCode, outbound.RetryAfter(res.Header.Get("Retry-After"), now)
	if r.taken() {
		return
	}
	if r.status == http.StatusBadRequest && strings.HasSuffix(r.host, windowsHost) && strings.Contains(res.Header.Get("X-WNS-Error-Description"), "TTL") {
		r.code = codeBadTTL
	}
	body, _ := io.ReadAll(io.LimitReader(res.Body, maxResponse)) // a part of it will do
	r.parse(body)
}

func (r *response) parse(body []byte) {
	var parsed struct {
		Code   json.Number `json:"code"`
		Errno  json.Number `json:"errno"`
		Reason string      `json:"reason"`
	}
	_ = json.Unmarshal(body, &parsed) // what is not JSON has words, or nothing
	r.mozilla = r.host == mozillaHost && parsed.Code.String() == strconv.Itoa(r.status)
	if n, err := parsed.Errno.Int64(); err == nil && n >= 100 && n <= 999 {
		r.errno = int(n)
	}
	text := string(body)
	for _, code := range codes {
		if parsed.Reason == code || code == codeNoKey && strings.Contains(text, code) {
			r.code = code
		}
	}
	if strings.Contains(text, "do not correspond") { // Google, of the keys
		r.code = codeOtherKey
	}
}

func (r *response) taken() bool { return r.status >= 200 && r.status < 300 }

// keyMismatch reports whether the subscription was made with another key.
func (r *response) keyMismatch() bool {
	return (r.status == http.StatusForbidden || r.status == http.StatusBadRequest) && r.code == codeOtherKey ||
		r.status == http.StatusUnauthorized && r.errno == 109 && strings.HasPrefix(r.path, "/wpush/v2/")
}

func (r *response) refusesTopic() bool {
	return r.status == http.StatusBadRequest && (r.code == codeBadTopic || r.errno == 113)
}

// outcome says what r means for a push.
func (r *response) outcome(unified bool) push.Outcome {
	forbidden := r.status == http.StatusUnauthorized || r.status == http.StatusForbidden
	switch {
	case r.taken():
		return push.Outcome{Kind: push.Accepted, Reason: push.ReasonSent, Evidence: push.EvidenceWorks, Status: r.status}
	case r.keyMismatch(), forbidden && unified:
		return r.temporary(push.ReasonConfig, push.EvidenceNone)
	case r.status == http.StatusNotAcceptable && strings.HasSuffix(r.host, windowsHost),
		r.status == http.StatusInsufficientStorage && unified: // ntfy's quota of one topic
		return r.temporary(push.ReasonRateLimited, push.EvidenceWorks)
	case r.status == http.StatusServiceUnavailable && r.errno == 202: // try again at once
		out := r.temporary(push.ReasonUnavailable, push.EvidenceWorks)
		out.RetryAfter, out.Unprocessed = 0, true
		return out
	}
	for _, rule := range rules {
		switch {
		case rule.status != r.status, rule.details != "" && !slices.Contains(strings.Split(rule.details, ","), r.detail()):
		case rule.kind == push.Temporary:
			return r.temporary(rule.why, rule.evidence)
		default:
			return r.final(rule.kind, rule.why, rule.evidence)
		}
	}
	switch {
	case r.status == http.StatusBadGateway && r.mozilla: // what it passes on to does not work
		return r.temporary(push.ReasonUnavailable, push.EvidenceWorks)
	case r.status >= http.StatusInternalServerError:
		return r.temporary(push.ReasonUnavailable, r.fails())
	}
	return r.temporary(push.ReasonConfig, push.EvidenceNone)
}

// fails is what it says about the host that a request failed there. Whoever sets a
// pusher chooses the path: at most hosts it may lead to anything.
func (r *response) fails() push.Evidence {
	if r.written && !slices.Contains(services, r.host) {
		return push.EvidenceNone
	}
	return push.EvidenceUnreachable
}

func (r *response) final(kind push.Kind, why push.Reason, evidence push.Evidence) push.Outcome {
	return push.Outcome{Kind: kind, Reason: why, Evidence: evidence, Status: r.status, Detail: r.detail()}
}

// temporary is the outcome of a push that may be tried again.
func (r *response) temporary(why push.Reason, evidence push.Evidence) push.Outcome {
	out := push.Outcome{Kind: push.Temporary, Reason: why, Evidence: evidence, Status: r.status, Detail: r.detail(), RetryAfter: r.retryAfter}
	if why == push.ReasonRateLimited && r.retryAfter == 0 {
		out.RetryAfter = otherRetryAfter
		if r.status == http.StatusNotAcceptable {
			out.RetryAfter = windowsRetryAfter
		}
	}
	out.Err = errors.New(strings.TrimSpace(fmt.Sprintf("%s answered %d %s", r.host, r.status, r.detail())))
	return out
}

func (r *response) detail() string {
	if r.errno != 0 {
		return fmt.Sprintf("errno %d", r.errno)
	}
	return r.code
}

// failure is what it means that there was no answer.
func (r *response) failure(ctx context.Context, err error) push.Outcome {
	switch {
	case errors.Is(err, safehttp.ErrBlocked):
		return push.Outcome{Kind: push.Dropped, Reason: push.ReasonNotAllowed, Err: err}
	case errors.Is(err, errEndpoint):
		return push.Outcome{Kind: push.Dropped, Reason: push.ReasonBadMessage, Err: err}
	}
	out := push.NoAnswer(ctx, err, !r.written)
	if out.Evidence != push.EvidenceNone {
		out.Evidence = r.fails()
	}
	return out
}
