package push

import (
	"context"
	"errors"
	"time"
)

// Kind is what became of a delivery.
type Kind uint8

const (
	// Accepted: the push service took the notification, or there was nothing
	// to send.
	Accepted Kind = iota
	// Rejected: the pushkey is dead; the homeserver must stop using it.
	Rejected
	// Temporary: trying the same again later may help.
	Temporary
	// Dropped: this message can never be delivered to this device, and the
	// pushkey is alive. The homeserver must not retry.
	Dropped
)

// String returns the name of the kind as metrics and logs show it.
func (k Kind) String() string { return [...]string{"accepted", "rejected", "temporary", "dropped"}[k] }

// Reason says why a delivery ended as it did. The set is closed: a Reason is a
// metric label.
type Reason string

// Reasons of accepted deliveries.
const (
	ReasonSent          Reason = "sent"
	ReasonNothingToSend Reason = "nothing_to_send" // neither event nor badge
	ReasonDuplicate     Reason = "duplicate"       // the device has had this event
)

// Reasons of rejected deliveries. The push service's own come first.
const (
	ReasonUnregistered     Reason = "unregistered"      // the push service says the token is no longer valid
	ReasonBadToken         Reason = "bad_token"         // the push service does not know such a token
	ReasonWrongTopic       Reason = "wrong_topic"       // the token belongs to another app
	ReasonSenderMismatch   Reason = "sender_mismatch"   // the token belongs to another FCM sender
	ReasonMalformedPushKey Reason = "malformed_pushkey" // our own check refused the pushkey
	ReasonMalformedData    Reason = "malformed_data"    // default_payload is not an object or leaves no room
	ReasonRemembered       Reason = "remembered"        // it was rejected before, for any of the reasons above
	ReasonUnknownApp       Reason = "unknown_app"       // no app is configured for the app_id
)

// Reasons of temporary outcomes. ReasonUnknownApp is one of them too.
const (
	ReasonBusy        Reason = "busy"         // the app's concurrency is reached, or this source's share of it
	ReasonInFlight    Reason = "in_flight"    // another request still delivers the same, and this one's time is over
	ReasonRateLimited Reason = "rate_limited" // the push service wants fewer pushes (429)
	ReasonPaused      Reason = "paused"       // it has just sent Retry-After for all who share the app's quota, and is not asked
	ReasonUnavailable Reason = "unavailable"  // the push service failed (5xx or an answer that makes no sense)
	ReasonConnection  Reason = "connection"   // the push service could not be reached, or refused the stream
	ReasonUncertain   Reason = "uncertain"    // cut after the request was written: it may have been accepted
	ReasonTimeout     Reason = "timeout"      // our own deadline passed before the request was written
	ReasonCredentials Reason = "credentials"  // the push service refuses the app's credentials
	ReasonThirdParty  Reason = "third_party"  // the push service cannot pass it on, because another one refuses the app's credentials there
	ReasonConfig      Reason = "config"       // the push service refuses the app's settings (topic, project, environment)
	ReasonWithheld    Reason = "withheld"     // the push service calls the pushkey dead and is not believed
	ReasonBreaker     Reason = "breaker"      // the push service refused the app several times and is left alone for a while
	ReasonOutage      Reason = "outage"       // the push service failed so often that it is left alone for a while
	ReasonStaleReport Reason = "stale_report" // the token was reported dead before it was registered again
	ReasonInternal    Reason = "internal"     // a fault of ours
	ReasonUnsupported Reason = "unsupported"  // the app is configured as one we cannot deliver for
)

// Reasons of dropped deliveries.
const (
	ReasonTooLarge   Reason = "too_large"   // the push service finds the payload too large
	ReasonBadMessage Reason = "bad_message" // the push service finds the payload invalid
	ReasonNotAllowed Reason = "not_allowed" // the operator does not let notifications go to the endpoint's host
)

// Evidence is what an answer says about the push service and our account with
// it, beside what became of the one push. State that holds back other people's
// pushes is fed by nothing else. So whatever a token, a payload or an endpoint
// of somebody's choice can cause is EvidenceNone or EvidenceWorks.
type Evidence uint8

const (
	// EvidenceNone: the answer says nothing, or nobody was asked.
	EvidenceNone Evidence = iota
	// EvidenceWorks: the push service answered in its own words, and did not
	// refuse our credentials.
	EvidenceWorks
	// EvidenceRefused: it refused our credentials.
	EvidenceRefused
	// EvidenceUnreachable: it could not be reached, it failed (500, 503), or
	// something else answered in its place.
	EvidenceUnreachable
	// EvidenceThrottled: it wants fewer pushes (429), and does not say whether
	// of this device or of all.
	EvidenceThrottled
	// EvidenceQuota: it says that a quota is used up which all devices of the
	// destination share. RetryAfter says for how long.
	EvidenceQuota
)

// Outcome is what came of one attempt, or in the end of one delivery.
type Outcome struct {
	Kind   Kind
	Reason Reason
	// RetryAfter is how long the push service asked to be left alone; 0 when it
	// did not say. It is only set with Temporary.
	RetryAfter time.Duration
	// Evidence is what the answer says about the push service.
	Evidence Evidence
	// Unprocessed says that the push service cannot have accepted the
	// notification, so that another attempt within the same request repeats
	// nothing. It is only set with Temporary.
	Unprocessed bool
	// Status and Detail are the push service's own answer (HTTP status and
	// reason code, such as 410 and "Unregistered") for people who debug; 0 and
	// "" when there was none. Detail never holds a pushkey or message text.
	Status int
	Detail string
	// Err is the error behind an outcome that is not Accepted, for the request's
	// line in the log; it holds no pushkey, token or message text.
	Err error
}

// NoAnswer is what it means for a push that an attempt within ctx ended with err
// and without an answer. With unprocessed the push service cannot have accepted it.
func NoAnswer(ctx context.Context, err error, unprocessed bool) Outcome {
	out := Outcome{Kind: Temporary, Reason: ReasonConnection, Evidence: EvidenceUnreachable, Unprocessed: unprocessed, Err: err}
	switch {
	case !unprocessed:
		out.Reason = ReasonUncertain
	case ctx.Err() != nil:
		out.Reason = ReasonTimeout
	}
	if errors.Is(ctx.Err(), context.Canceled) { // whoever asked has gone
		out.Evidence = EvidenceNone
	}
	return out
}
