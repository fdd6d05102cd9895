package fcm

import (
	"cmp"
	"net/url"
	"regexp"
	"time"

	"firebase.google.com/go/v4/messaging"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/internal/outbound"
)

// Values of Config.Payload.
const (
	PayloadSygnal = "sygnal"
	PayloadDart   = "dart"
)

// Values of the options of Config that are one of a few words.
const (
	CollapseNone = "none"
	CollapseRoom = "room"

	BadgeNonzero    = "nonzero"
	BadgeAll        = "all"
	BadgeWithEvents = "with_events"
	BadgeOff        = "off"
)

const (
	googleEndpoint = "https://fcm.googleapis.com"
	// maxTTL is the longest FCM keeps a message (Firebase, "Set the lifespan of
	// a message").
	maxTTL = 2419200 * time.Second
)

// projectPattern is a Google Cloud project id or number. It becomes a part of
// the URL's path.
var projectPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9.:-]{0,62}$`)

// Config is one app that is reached through a Firebase project. An option that
// is absent has its default.
type Config struct {
	// ProjectID is the project. Default: the service account's.
	ProjectID string `yaml:"project_id"`
	// ServiceAccountFile holds the JSON key of a service account that may send
	// messages in the project, which is ServiceAccount.
	ServiceAccount conf.Secret `yaml:"service_account" conf:"file"`
	// ServiceAccountFile is the JSON key of a service account of Firebase, or (hms)
	// of Huawei's API console.
	ServiceAccountFile string `yaml:"service_account_file"`

	// Options is what every message starts from: FCM's blocks notification, android,
	// apns, webpush and fcm_options. Each push sets android.priority.
	Options map[string]any `yaml:"fcm_options"`
	// KeepFor is how long FCM keeps a message for a device that is offline, 0s to 28d;
	// 0s is "now or never"; default: FCM's own, four weeks.
	KeepFor *conf.Duration `yaml:"keep_for"`
	// Collapse is CollapseRoom to let a newer message of a room replace one that
	// still waits for the device, or CollapseNone, the default. FCM keeps at
	// most four such messages for a device.
	Collapse string `yaml:"collapse"`

	// Target says what pushkeys are: "token", "fid" for installation IDs, or "auto"
	// (the default), told by their form.
	Target string `yaml:"target"`
	// Badge is which counts of unread messages and missed calls are sent: "nonzero"
	// (the default), "all" for those of 0 with events too, "with_events" for none
	// that come without an event, as when messages were read elsewhere, or "off".
	Badge string `yaml:"badge"`
	// Payload is "sygnal" (the default), "dart" for matrix-dart-sdk (fcm), or
	// "declarative" for Safari without a service worker (webpush).
	Payload string `yaml:"payload"`
	// SoundAndHighlight sends the sound and highlight of the push rule that matched.
	SoundAndHighlight bool `yaml:"sound_and_highlight"`

	// UnifiedPush serves pushkeys that are https URLs as endpoints of an app of type
	// unifiedpush.
	UnifiedPush bool `yaml:"unifiedpush"`
	// AllowedEndpoints are globs of the hosts that endpoints may have, with their
	// port unless it is 443. Default: any.
	AllowedEndpoints []string `yaml:"allowed_endpoints"`
	// DeniedEndpoints are globs of hosts that they may not have.
	DeniedEndpoints []string `yaml:"denied_endpoints"`
	// AllowNetworks are private networks that endpoints may be in.
	AllowNetworks []string `yaml:"allow_networks"`

	// Endpoint is the https URL of another host that speaks FCM's protocol. It is for
	// tests.
	Endpoint string `yaml:"endpoint" conf:"hidden"`
}

// Validate adds every fault of c to p, under path.
func (c Config) Validate(path string, p *conf.Problems) { c.resolve(path, p) }

// settings are a Config that has been checked, with the defaults in place.
type settings struct {
	account   account
	projectID string
	endpoint  *url.URL
	payload   Payload
}

// resolve checks c and adds its faults to p; without any the settings work.
func (c Config) resolve(path string, p *conf.Problems) settings {
	s := settings{
		projectID: c.ProjectID,
		payload: Payload{
			Target:       cmp.Or(c.Target, TargetAuto),
			CollapseRoom: c.Collapse == CollapseRoom,
			BadgeCounts:  c.Badge != BadgeOff,
			BadgeAlone:   c.Badge != BadgeOff && c.Badge != BadgeWithEvents,
			BadgeZero:    c.Badge == BadgeAll,
			Tweaks:       c.SoundAndHighlight,
			Dart:         c.Payload == PayloadDart,
		},
	}
	var err error
	if s.endpoint, err = outbound.ParseHost(cmp.Or(c.Endpoint, googleEndpoint)); err != nil {
		p.Add(path+".endpoint", nil, "must be an https URL of a host and perhaps a port, such as https://fcm.example.org:8443")
	}
	switch {
	case c.ServiceAccount != "":
		s.account = parseAccount(path+".service_account_file", c.ServiceAccount.Reveal(), c.Endpoint != "", p)
		s.projectID = cmp.Or(s.projectID, s.account.projectID)
	case c.ServiceAccountFile == "": // else whoever could not read it has said so
		p.Add(path+".service_account_file", nil, "is missing: name the file with the service account's JSON key "+
			"(Firebase console, Project settings, Service accounts)")
	}
	if !projectPattern.MatchString(s.projectID) && (s.projectID != "" || c.ServiceAccount != "") {
		p.Add(path+".project_id", s.projectID, "must be the Firebase project's id (Firebase console, Project settings)")
	}
	p.OneOf(path+".target", c.Target, `must be "auto", "token" or "fid"`, "", TargetAuto, TargetToken, TargetFID)
	p.OneOf(path+".payload", c.Payload, `must be "sygnal" or "dart"`, "", PayloadSygnal, PayloadDart)
	p.OneOf(path+".badge", c.Badge, "use nonzero, all, with_events or off", "", BadgeNonzero, BadgeAll, BadgeWithEvents, BadgeOff)
	c.checkLifespan(path, checkOptions(path+".fcm_options", c.Options, p).Android, p)
	s.payload.start(c.Options, c.KeepFor)
	return s
}

// checkLifespan checks what the options and fcm_options.android can both say.
func (c Config) checkLifespan(path string, android *messaging.AndroidConfig, p *conf.Problems) {
	android = cmp.Or(android, new(messaging.AndroidConfig))
	if c.KeepFor != nil {
		if ttl := c.KeepFor.Std(); ttl < 0 || ttl > maxTTL {
			p.Add(path+".keep_for", *c.KeepFor, "must be from 0s to 2419200s, which is four weeks")
		}
		if android.TTL != nil {
			p.Add(path+".keep_for", *c.KeepFor, "is set in fcm_options.android.ttl too; keep one")
		}
	}
	if android.TTL != nil && *android.TTL > maxTTL {
		p.Add(path+".fcm_options.android.ttl", *android.TTL, "must be at most 2419200s, which is four weeks")
	}
	p.OneOf(path+".collapse", c.Collapse, `must be "none" or "room"`, "", CollapseNone, CollapseRoom)
	if c.Collapse == CollapseRoom && android.CollapseKey != "" {
		p.Add(path+".collapse", c.Collapse, "contradicts fcm_options.android.collapse_key; keep one")
	}
}
