package httpapi

import (
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/matrix-herald/herald/internal/mxhttp"
	"github.com/matrix-herald/herald/push"
)

// defaultRetryAfter is what a homeserver is told when the push service named
// no time. Synapse and Dendrite do not read it; a proxy or a newer homeserver
// may.
const defaultRetryAfter = 5 * time.Second

// problems say what a temporary outcome means, for people who read a
// homeserver's log. They name nothing that the gateway's operator would not
// want a stranger to know.
var problems = map[push.Reason]string{
	push.ReasonBusy:        "the gateway is at its limit for this app",
	push.ReasonInFlight:    "another request still delivers the same notification",
	push.ReasonRateLimited: "the push service asks for fewer requests",
	push.ReasonPaused:      "the push service asks for fewer requests",
	push.ReasonUnavailable: "the push service is not available",
	push.ReasonConnection:  "the push service could not be reached",
	push.ReasonUncertain:   "the push service did not answer",
	push.ReasonTimeout:     "the push service could not be reached in time",
	push.ReasonCredentials: "the push service refuses the gateway's credentials for this app",
	push.ReasonThirdParty:  "the push service cannot pass it on, because another one refuses the credentials for this app",
	push.ReasonConfig:      "the push service refuses the gateway's settings for this app",
	push.ReasonWithheld:    "the push service calls the device dead, but never accepted a push with these settings, or calls most devices of this app dead",
	push.ReasonBreaker:     "the push service has just refused the gateway's credentials or settings for this app",
	push.ReasonOutage:      "the push service does not work at the moment",
	push.ReasonStaleReport: "the push service reported an older registration of this device",
	push.ReasonInternal:    "the gateway failed",
	push.ReasonUnsupported: "the gateway cannot deliver for this app yet",
	push.ReasonUnknownApp:  "the gateway does not know this app",
}

// failure turns outcomes into the error that makes the homeserver try again,
// nil when none of them is temporary. The status is the one all temporary
// outcomes have in common, else 502.
func failure(outcomes []push.Outcome) *mxhttp.Error {
	var e *mxhttp.Error
	failed := 0
	for _, out := range outcomes {
		if out.Kind != push.Temporary {
			continue
		}
		failed++
		status, code := http.StatusBadGateway, "M_UNKNOWN"
		switch out.Reason {
		case push.ReasonBusy, push.ReasonInFlight, push.ReasonOutage:
			status = http.StatusServiceUnavailable
		case push.ReasonRateLimited, push.ReasonPaused:
			status, code = http.StatusTooManyRequests, "M_LIMIT_EXCEEDED"
		case push.ReasonInternal:
			status = http.StatusInternalServerError
		}
		if e == nil {
			e = &mxhttp.Error{Status: status, Code: code, Msg: problems[out.Reason]}
		} else if e.Status != status {
			e.Status, e.Code = http.StatusBadGateway, "M_UNKNOWN"
		}
		e.RetryAfter = max(e.RetryAfter, out.RetryAfter)
	}
	if e != nil {
		if e.RetryAfter == 0 {
			e.RetryAfter = defaultRetryAfter
		}
		e.Msg = fmt.Sprintf("%d of %d devices not notified: %s", failed, len(outcomes), e.Msg)
	}
	return e
}

// logAttrs describe a request's outcomes for its one line in the log. Requests
// of homeservers have one device; of several, the line tells those apart that
// were not notified.
func logAttrs(req *request, outcomes []push.Outcome) []slog.Attr {
	if len(outcomes) == 1 {
		out := &outcomes[0]
		attrs := []slog.Attr{
			slog.Any("device", &req.devices[0]), slog.String("outcome", out.Kind.String()), slog.String("reason", string(out.Reason)),
		}
		if out.Status != 0 {
			attrs = append(attrs, slog.Int("provider_status", out.Status))
		}
		if out.Detail != "" {
			attrs = append(attrs, slog.String("provider_detail", out.Detail))
		}
		if out.Err != nil {
			attrs = append(attrs, slog.Any("err", out.Err))
		}
		return attrs
	}
	var n [push.Dropped + 1]int
	var others []string
	for i, out := range outcomes {
		n[out.Kind]++
		if out.Kind != push.Accepted {
			others = append(others, push.Fingerprint(req.devices[i].PushKey)+" "+string(out.Reason))
		}
	}
	attrs := []slog.Attr{slog.Int("devices", len(outcomes))}
	for kind, count := range n {
		if count > 0 {
			attrs = append(attrs, slog.Int(push.Kind(kind).String(), count))
		}
	}
	if others != nil {
		attrs = append(attrs, slog.Any("not_accepted", others))
	}
	return attrs
}
