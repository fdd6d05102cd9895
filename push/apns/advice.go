package apns

import (
	"strings"

	"github.com/sideshow/apns2"

	"github.com/matrix-herald/herald/push"
)

const (
	adviseTopic    = "set topic to the bundle id of the app that registered the device token, and use credentials that are for it"
	adviseKey      = "check that key_file, key_id and team_id belong together, that the key was not revoked, and that the clock is right"
	adviseCert     = "get a new certificate for the topic from Apple's developer site"
	advisePlatform = "the credentials are for Apple's other environment: change platform, or use others"
)

// advice is what can be done about Apple's reasons.
var advice = map[string]string{
	apns2.ReasonDeviceTokenNotForTopic:    adviseTopic,
	apns2.ReasonTopicDisallowed:           adviseTopic,
	apns2.ReasonBadTopic:                  adviseTopic,
	apns2.ReasonMissingTopic:              adviseTopic,
	apns2.ReasonInvalidPushType:           "set push_type to one of the topic, or leave it out",
	apns2.ReasonBadPriority:               "look at content-available in the pusher's default_payload, and leave push_type out",
	apns2.ReasonExpiredProviderToken:      adviseKey,
	apns2.ReasonInvalidProviderToken:      adviseKey,
	apns2.ReasonMissingProviderToken:      "set key_file, key_id and team_id, or a cert_file that is for the topic",
	apns2.ReasonForbidden:                 adviseCert,
	apns2.ReasonBadCertificate:            adviseCert,
	apns2.ReasonBadCertificateEnvironment: advisePlatform,
	reasonWrongPlatformKey:                advisePlatform,
	reasonUnrelatedKey:                    "the key is not for this topic: use one that is for the team, or for the topic",
	apns2.ReasonUnregistered:              "the app was removed from the device, or has registered again: take the pushkey that it has now",
	apns2.ReasonExpiredToken:              "the app was removed from the device, or has registered again: take the pushkey that it has now",
}

// Advice says in a sentence what an operator can do about an outcome, "" where
// there is nothing to be done here.
func (p *Provider) Advice(out push.Outcome) string {
	switch {
	case out.Kind == push.Accepted:
		return ""
	case out.Reason == push.ReasonMalformedPushKey:
		return "take the device token as the app registered it: base64, or 64 or more hexadecimal digits"
	case out.Detail == apns2.ReasonBadDeviceToken && strings.HasPrefix(p.url, apns2.HostDevelopment):
		return "set platform: production if the app comes from the App Store or TestFlight: only builds run from Xcode have device tokens of the sandbox"
	case out.Detail == apns2.ReasonBadDeviceToken:
		return "set platform: sandbox if the app is a build run from Xcode: its device tokens are not those of production"
	case out.Reason == push.ReasonCredentials && out.Detail == "":
		return adviseCert
	case out.Reason == push.ReasonConnection:
		return "check that this machine reaches " + strings.TrimSuffix(p.url, "/3/device/") + ", with proxy and ca_file as they are set"
	case out.Reason == push.ReasonUnavailable && out.Detail == "":
		return "something that is not Apple answered: check endpoint and proxy"
	}
	return advice[out.Detail]
}
