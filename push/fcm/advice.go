package fcm

import (
	"net/http"

	"github.com/matrix-herald/herald/push"
)

// advice is what can be done about an outcome.
var advice = map[push.Reason]string{
	push.ReasonMalformedPushKey: "take the registration token or installation ID as the app registered it: up to 512 letters, digits and signs",
	push.ReasonBadToken:         "take the pushkey that the app has now; whether it is an installation ID, target can say",
	push.ReasonUnregistered: "the app was removed from the device, or has registered again: take the pushkey that it has now. An installation ID " +
		"is that of an app that registers installation IDs, not tokens, with Firebase",
	push.ReasonSenderMismatch: "use the project_id and the service account of the Firebase project that the app was built for (its google-services.json)",
	push.ReasonThirdParty:     "upload the key for Apple's or the web's push service: Firebase console, Project settings, Cloud Messaging",
	push.ReasonCredentials:    "check that the service account still exists and the clock is right, or make a new key for service_account_file",
	push.ReasonConfig:         "correct what the answer names of fcm_options, or the project",
	push.ReasonConnection:     "check that this machine reaches FCM and the service account's token_uri, with proxy and ca_file as they are set",
}

// Advice says in a sentence what an operator can do about an outcome, "" where
// there is nothing to be done here.
func (*Provider) Advice(out push.Outcome) string {
	switch {
	case out.Status == http.StatusForbidden && out.Reason == push.ReasonCredentials:
		return "give the service account the role Firebase Cloud Messaging API Admin in project_id, and enable that API there"
	case out.Status == http.StatusNotFound && out.Reason == push.ReasonConfig:
		return "set project_id to the project's id: Firebase console, Project settings"
	case out.Reason == push.ReasonUnavailable && out.Detail == "":
		return "something that is not FCM answered: check endpoint and proxy"
	}
	return advice[out.Reason]
}
