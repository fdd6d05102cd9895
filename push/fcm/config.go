package fcm

import (
	"fmt"
	"net/url"
	"time"

	"firebase.google.com/go/v4/messaging"

	"github.com/matrix-herald/herald/internal/conf"
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
	maxTTL             = 2419200 * time.Second
	defaultConnections = 4
	maxConnections     = 100
)

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
	// TTL is how long FCM keeps a message for a device that is away, 0s to
	// 2419200s in whole or broken seconds; 0s is "now or never"; default: FCM's
	// own, four weeks.
	TTL *conf.Duration `yaml:"ttl"`
	// Collapse is CollapseRoom to let a newer message of a room replace one that
	// still waits for the device, or CollapseNone, the default. FCM keeps at
	// most four such messages for a device.
	Collapse string `yaml:"collapse"`

	// SendBadgeCounts sends the counts of unread messages and missed calls;
	// default true.
	SendBadgeCounts *bool `yaml:"send_badge_counts"`
	// SendBadgeZero sends also counts of 0, so that apps can clear their badge.
	SendBadgeZero bool `yaml:"send_badge_zero"`
	// Tweaks sends the sound and highlight of the push rule that matched.
	Tweaks bool `yaml:"tweaks"`
	// RejectSenderMismatch rejects a pushkey that belongs to another project's
	// sender; default true. When false it is a fault of the configuration.
	RejectSenderMismatch *bool `yaml:"reject_sender_mismatch"`

	// Endpoint is the https URL of another host that speaks FCM's protocol, for
	// tests and relays; default https://fcm.googleapis.com.
	Endpoint string `yaml:"endpoint"`
	// MaxConnections bounds the connections to FCM, 1 to 100; default 4. Apps of
	// one service account that agree on it share them.
	MaxConnections int `yaml:"max_connections"`
}

// Validate adds every fault of c to p, under path.
func (c Config) Validate(path string, p *conf.Problems) { c.resolve(path, p) }

// settings are a Config that has been checked, with the defaults in place.
type settings struct {
	account        account
	projectID      string
	endpoint       *url.URL
	maxConnections int
	payload        Payload
	rejectMismatch bool
}

// resolve checks c and adds its faults to p; without any the settings work.
func (c Config) resolve(path string, p *conf.Problems) settings {
	s := settings{
		projectID:      c.ProjectID,
		maxConnections: c.MaxConnections,
		rejectMismatch: c.RejectSenderMismatch == nil || *c.RejectSenderMismatch,
		endpoint:       c.checkEndpoint(path+".endpoint", p),
		payload: Payload{
			CollapseRoom: c.Collapse == CollapseRoom,
			BadgeCounts:  c.SendBadgeCounts == nil || *c.SendBadgeCounts,
			BadgeZero:    c.SendBadgeZero,
			Tweaks:       c.Tweaks,
		},
	}
	switch {
	case c.ServiceAccount != "":
		s.account = parseAccount(path+".service_account", c.ServiceAccount.Reveal(), c.Endpoint != "", p)
		if s.projectID == "" {
			s.projectID = s.account.projectID
		}
	case c.ServiceAccountFile == "": // else whoever could not read it has said so
		p.Add(path+".service_account", nil, "is missing: write the service account's JSON key here or its file's name in "+
			"service_account_file (Firebase console, Project settings, Service accounts)")
	}
	if !projectPattern.MatchString(s.projectID) && (s.projectID != "" || c.ServiceAccount != "") {
		p.Add(path+".project_id", s.projectID, "must be the Firebase project's id (Firebase console, Project settings)")
	}
	if c.MaxConnections < 0 || c.MaxConnections > maxConnections {
		p.Add(path+".max_connections", c.MaxConnections, fmt.Sprintf("must be from 1 to %d", maxConnections))
	} else if c.MaxConnections == 0 {
		s.maxConnections = defaultConnections
	}
	if c.SendBadgeZero && !s.payload.BadgeCounts {
		p.Add(path+".send_badge_zero", c.SendBadgeZero, "needs send_badge_counts")
	}
	c.checkLifespan(path, &s.payload, p)
	return s
}

// checkLifespan checks what the options and fcm_options can both say.
func (c Config) checkLifespan(path string, payload *Payload, p *conf.Problems) {
	if c.Options != nil {
		payload.Base = decodeOptions(path+".fcm_options", c.Options, p)
	}
	var android messaging.AndroidConfig
	if payload.Base != nil && payload.Base.Android != nil {
		android = *payload.Base.Android
	}
	if c.TTL != nil {
		ttl := c.TTL.Std()
		payload.TTL = &ttl
		if ttl < 0 || ttl > maxTTL {
			p.Add(path+".ttl", *c.TTL, "must be from 0s to 2419200s, which is four weeks")
		}
		if android.TTL != nil {
			p.Add(path+".ttl", *c.TTL, "is set in fcm_options.android.ttl too; keep one")
		}
	}
	if android.TTL != nil && *android.TTL > maxTTL {
		p.Add(path+".fcm_options.android.ttl", *android.TTL, "must be at most 2419200s, which is four weeks")
	}
	switch c.Collapse {
	case "", CollapseNone:
	case CollapseRoom:
		if android.CollapseKey != "" {
			p.Add(path+".collapse", c.Collapse, "contradicts fcm_options.android.collapse_key; keep one")
		}
	default:
		p.Add(path+".collapse", c.Collapse, `must be "none" or "room"`)
	}
}

// checkEndpoint returns the host to talk to.
func (c Config) checkEndpoint(path string, p *conf.Problems) *url.URL {
	endpoint := c.Endpoint
	if endpoint == "" {
		endpoint = googleEndpoint
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
		p.Add(path, nil, "must be an https URL of a host and perhaps a port, such as https://fcm.example.org:8443")
		return nil
	}
	u.Path = ""
	return u
}
