package webpush

import "github.com/matrix-herald/herald/push"

// advice is what can be done about an outcome.
var advice = map[push.Reason]string{
	push.ReasonMalformedPushKey: "take the pushkey as the app registered it: the p256dh of the subscription, or the endpoint of UnifiedPush",
	push.ReasonMalformedData:    "the pusher's data needs endpoint, an https URL, and auth, 16 bytes in base64url; default_payload is an object, and leaves room",
	push.ReasonNotAllowed:       "list the host in allowed_endpoints, with its port unless that is 443, and its private network in allow_networks",
	push.ReasonUnregistered:     "the subscription is gone: take the one that the app has now",
	push.ReasonSenderMismatch:   "add the key that the subscription was made with to vapid_key_file",
	push.ReasonCredentials:      "check the clock, vapid_contact, and that vapid_key_file holds the key that the subscription was made with",
	push.ReasonConfig:           "add the key that the subscription was made with to vapid_key_file; or something that is not a push server answers",
	push.ReasonConnection:       "check that this machine reaches the host, with proxy and ca_file as they are set",
}

// Advice says in a sentence what an operator can do about an outcome, "" where
// there is nothing to be done here.
func (*Provider) Advice(out push.Outcome) string { return advice[out.Reason] }
