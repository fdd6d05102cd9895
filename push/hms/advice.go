package hms

import "github.com/matrix-herald/herald/push"

// advice is what can be done about an outcome.
var advice = map[push.Reason]string{
	push.ReasonMalformedPushKey: "take the push token as the app got it: up to 512 letters, digits and signs",
	push.ReasonBadToken: "take the token that the app has now; a token of HarmonyOS 5 needs an app with a service account, " +
		"one of Android or older HarmonyOS one with client_id",
	push.ReasonCredentials: "check that the clock is right, and that service account or client belong to the project that the app is in",
	push.ReasonConfig: "enable Push Kit for the app in AppGallery Connect, check client_id and project_id, and the app's rights there " +
		"(noPushTypeRight, noRight: the token is another project's)",
	push.ReasonConnection:  "check that this machine reaches push-api.cloud.huawei.com and oauth-login.cloud.huawei.com, with proxy and ca_file as they are set",
	push.ReasonUnavailable: "something that is not Push Kit answered, or it is out of order: check endpoint and proxy",
}

// Advice says in a sentence what an operator can do about an outcome, "" where there
// is nothing to be done here.
func (*Provider) Advice(out push.Outcome) string { return advice[out.Reason] }
