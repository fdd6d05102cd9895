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

// Values of Config.Collapse.
const (
	CollapseNone = "none"
	CollapseRoom = "room"
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
	// ProjectID is the Firebase project; default: the service account's.
	ProjectID string `yaml:"project_id"`
	// ServiceAccount is the JSON key of a service account that may send
	// messages in the project. ServiceAccountFile is the file that holds it.
	ServiceAccount     conf.Secret `yaml:"service_account"`
	ServiceAccountFile string      `yaml:"service_account_file"`

	// Options is what every message starts from: the blocks notification,
	// android, apns, webpush and fcm_options of FCM's message. Its
	// android.priority is overridden by each push.
	Options map[string]any `yaml:"fcm_options"`
	// TTL is how long FCM keeps a message for a device that is offline, 0s to
	// 2419200s in whole or broken seconds; 0s is "now or never"; default: FCM's
	// own, four weeks.
	TTL *conf.Duration `yaml:"ttl"`
	// Collapse is CollapseRoom to let a newer message of a room replace one that
	// still waits for the device, or CollapseNone, the default. FCM keeps at
	// most four such messages for a device.
	Collapse string `yaml:"collapse"`

	// Target says what pushkeys are: "token" for registration tokens, "fid" for
	// installation IDs, or "auto", the default, for either, told by their form.
	Target string `yaml:"target"`
	// SendBadgeCounts sends the counts of unread messages and missed calls;
	// default true.
	SendBadgeCounts *bool `yaml:"send_badge_counts"`
	// SendBadgeZero sends also counts of 0 with events.
	SendBadgeZero bool `yaml:"send_badge_zero"`
	// SendBadgeAlone also sends counts that come without an event, as when
	// messages were read elsewhere; default true.
	SendBadgeAlone *bool `yaml:"send_badge_alone"`
	// Payload is "sygnal", the default; with fcm also "dart" for data as
	// matrix-dart-sdk reads it, on which FluffyChat is built; with webpush also
	// "declarative" for what Safari shows without a service worker.
	Payload string `yaml:"payload"`
	// Tweaks sends the sound and highlight of the push rule that matched.
	Tweaks bool `yaml:"tweaks"`
	// RejectSenderMismatch rejects a pushkey that belongs to another project's
	// sender; default true. When false homeservers keep it, and try again.
	RejectSenderMismatch *bool `yaml:"reject_sender_mismatch"`

	// UnifiedPush has pushkeys that are https URLs served as endpoints of
	// UnifiedPush. AllowedEndpoints, DeniedEndpoints and AllowNetworks are then
	// those of an app of type unifiedpush. This package does nothing about it.
	UnifiedPush      bool     `yaml:"unifiedpush"`
	AllowedEndpoints []string `yaml:"allowed_endpoints"`
	DeniedEndpoints  []string `yaml:"denied_endpoints"`
	AllowNetworks    []string `yaml:"allow_networks"`

	// Endpoint is the https URL of another host that speaks FCM's protocol, for
	// tests and relays; default https://fcm.googleapis.com.
	Endpoint string `yaml:"endpoint"`
}

// Validate adds every fault of c to p, under path.
func (c Config) Validate(path string, p *conf.Problems) { c.resolve(path, p) }

// settings are a Config that has been checked, with the defaults in place.
type settings struct {
	account        account
	projectID      string
	endpoint       *url.URL
	payload        Payload
	rejectMismatch bool
}

// resolve checks c and adds its faults to p; without any the settings work.
func (c Config) resolve(path string, p *conf.Problems) settings {
	s := settings{
		projectID:      c.ProjectID,
		rejectMismatch: c.RejectSenderMismatch == nil || *c.RejectSenderMismatch,
		payload: Payload{
			Target:       cmp.Or(c.Target, TargetAuto),
			CollapseRoom: c.Collapse == CollapseRoom,
			BadgeCounts:  c.SendBadgeCounts == nil || *c.SendBadgeCounts,
			BadgeAlone:   c.SendBadgeAlone == nil || *c.SendBadgeAlone,
			BadgeZero:    c.SendBadgeZero,
			Tweaks:       c.Tweaks,
			Dart:         c.Payload == PayloadDart,
		},
	}
	var err error
	if s.endpoint, err = outbound.ParseHost(cmp.Or(c.Endpoint, googleEndpoint)); err != nil {
		p.Add(path+".endpoint", nil, "must be an https URL of a host and perhaps a port, such as https://fcm.example.org:8443")
	}
	switch {
	case c.ServiceAccount != "":
		s.account = parseAccount(path+".service_account", c.ServiceAccount.Reveal(), c.Endpoint != "", p)
		s.projectID = cmp.Or(s.projectID, s.account.projectID)
	case c.ServiceAccountFile == "": // else whoever could not read it has said so
		p.Add(path+".service_account", nil, "is missing: write the service account's JSON key here or its file's name in "+
			"service_account_file (Firebase console, Project settings, Service accounts)")
	}
	if !projectPattern.MatchString(s.projectID) && (s.projectID != "" || c.ServiceAccount != "") {
		p.Add(path+".project_id", s.projectID, "must be the Firebase project's id (Firebase console, Project settings)")
	}
	p.OneOf(path+".target", c.Target, `must be "auto", "token" or "fid"`, "", TargetAuto, TargetToken, TargetFID)
	p.OneOf(path+".payload", c.Payload, `must be "sygnal" or "dart"`, "", PayloadSygnal, PayloadDart)
	if c.SendBadgeZero && !s.payload.BadgeCounts {
		p.Add(path+".send_badge_zero", c.SendBadgeZero, "needs send_badge_counts")
	}
	c.checkLifespan(path, checkOptions(path+".fcm_options", c.Options, p).Android, p)
	s.payload.start(c.Options, c.TTL)
	return s
}

// checkLifespan checks what the options and fcm_options.android can both say.
func (c Config) checkLifespan(path string, android *messaging.AndroidConfig, p *conf.Problems) {
	android = cmp.Or(android, new(messaging.AndroidConfig))
	if c.TTL != nil {
		if ttl := c.TTL.Std(); ttl < 0 || ttl > maxTTL {
			p.Add(path+".ttl", *c.TTL, "must be from 0s to 2419200s, which is four weeks")
		}
		if android.TTL != nil {
			p.Add(path+".ttl", *c.TTL, "is set in fcm_options.android.ttl too; keep one")
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
