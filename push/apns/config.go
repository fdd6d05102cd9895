package apns

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/sideshow/apns2"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/internal/outbound"
)

// Values of the options of Config that are one of a few words.
const (
	PlatformProduction = "production"
	PlatformSandbox    = "sandbox"

	CollapseNone  = "none"
	CollapseRoom  = "room"
	CollapseEvent = "event"

	BadgeAll        = "all"
	BadgeWithEvents = "with_events"
	BadgeOff        = "off"
)

const (
	// maxKeepFor is how long Apple keeps a notification for a device that
	// is offline.
	maxKeepFor = 30 * 24 * time.Hour
	voipSuffix = ".voip"
)

// Config are the settings of one app that is reached through APNs. It has
// either a token (Key, KeyID, TeamID) or a certificate (CertFile).
type Config struct {
	// Platform is where device tokens come from: "production" (the default; App
	// Store, TestFlight) or "sandbox" (run from Xcode).
	Platform string `yaml:"platform"`

	// Key is the text of KeyFile, the .p8 file of an APNs authentication key.
	Key conf.Secret `yaml:"key" conf:"file"`
	// KeyFile is the .p8 file of an APNs authentication key.
	KeyFile string `yaml:"key_file"`
	// KeyID is the key's id, ten characters.
	KeyID string `yaml:"key_id"`
	// TeamID is the team's id, ten characters.
	TeamID string `yaml:"team_id"`

	// CertFile is a certificate with its private key, in PEM or PKCS #12 (.p12), in
	// place of a key.
	CertFile string `yaml:"cert_file"`
	// CertPassword decrypts a .p12 file.
	CertPassword     conf.Secret `yaml:"cert_password"`
	CertPasswordFile string      `yaml:"cert_password_file"`

	// Topic is the app's bundle id, with .voip for VoIP pushes. Default: the one in
	// the certificate.
	Topic string `yaml:"topic"`
	// PushType is the apns-push-type of every push. By default topic and payload
	// decide.
	PushType string `yaml:"push_type"`
	// Badge says which counts are sent: "all" (the default), "with_events" for none
	// without an event, or "off".
	Badge string `yaml:"badge"`
	// SoundAndHighlight sends sound and highlight of the push rule.
	SoundAndHighlight bool `yaml:"sound_and_highlight"`
	// DefaultSound is the sound of an event_id_only push whose default_payload shows
	// an alert without one.
	DefaultSound string `yaml:"default_sound"`
	// KeepFor is how long the service keeps a push for a device that is offline:
	// apns 0s to 30d, fcm 0s to 28d, hms 1s to 15d, others 1s to 28d; 0s is now or
	// never. By default Apple and Google decide, else a day.
	KeepFor *conf.Duration `yaml:"keep_for"`
	// Collapse lets a push replace an earlier one of the same "room" or (apns)
	// "event". Default "none".
	Collapse string `yaml:"collapse"`
	// Endpoint is the https URL of another host than the platform's. It is for
	// tests.
	Endpoint string `yaml:"endpoint" conf:"hidden"`
}

var (
	tenCharacters = regexp.MustCompile(`^[A-Z0-9]{10}$`)
	bundleID      = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.-]{0,254}$`)
	pushTypes     = []apns2.EPushType{apns2.PushTypeAlert, apns2.PushTypeBackground, apns2.PushTypeLocation, apns2.PushTypeVOIP,
		apns2.PushTypeComplication, apns2.PushTypeFileProvider, apns2.PushTypeMDM, apns2.PushTypeLiveActivity, apns2.PushTypePushToTalk,
		"widgets", "controls"}
)

// Validate adds all faults of the settings at path to p. It opens no file:
// what is wrong inside a certificate is found by Connections.Open.
func (c Config) Validate(path string, p *conf.Problems) {
	add := func(option string, value any, remedy string) { p.Add(path+"."+option, value, remedy) }
	c.validateCredentials(path, p)
	c.validateTopic(path, p)
	p.OneOf(path+".platform", c.Platform, "use production or sandbox", "", PlatformProduction, PlatformSandbox)
	p.OneOf(path+".badge", c.Badge, "use all, with_events or off", "", BadgeAll, BadgeWithEvents, BadgeOff)
	p.OneOf(path+".collapse", c.Collapse, "use none, room or event", "", CollapseNone, CollapseRoom, CollapseEvent)
	if encodedLen(c.DefaultSound) > maxSound {
		add("default_sound", nil, "use the name of a sound file in the app, or default")
	}
	if c.KeepFor != nil && (c.KeepFor.Std() < 0 || c.KeepFor.Std() > maxKeepFor) {
		add("keep_for", *c.KeepFor, "use a time from 0s to 30d")
	}
	if _, err := c.host(); err != nil {
		add("endpoint", nil, "use a URL such as https://api.push.apple.com:2197, without a path")
	}
}

func (c Config) validateCredentials(path string, p *conf.Problems) {
	hasKey := c.Key != "" || c.KeyFile != ""
	switch {
	case hasKey && c.CertFile != "":
		p.Add(path+".cert_file", nil, "set either key_file (with key_id and team_id) or cert_file, not both")
		return
	case !hasKey && c.CertFile == "":
		p.Add(path+".key_file", nil, "set key_file, key_id and team_id (or cert_file) to the credentials from Apple's developer site")
		return
	case !hasKey:
		if c.KeyID != "" || c.TeamID != "" {
			p.Add(path+".key_id", nil, "leave key_id and team_id out, or set key_file instead of cert_file")
		}
		return
	}
	if c.Key != "" {
		if _, err := parseKey(c.Key.Reveal()); err != nil {
			p.Add(path+".key_file", nil, err.Error()+"; use the .p8 file as it came from Apple")
		}
	}
	if !tenCharacters.MatchString(c.KeyID) {
		p.Add(path+".key_id", c.KeyID, "use the key's id, ten capital letters and digits")
	}
	if !tenCharacters.MatchString(c.TeamID) {
		p.Add(path+".team_id", c.TeamID, "use the team's id, ten capital letters and digits")
	}
	if c.CertPassword != "" || c.CertPasswordFile != "" {
		p.Add(path+".cert_file", nil, "set it, or leave cert_password out")
	}
}

func (c Config) validateTopic(path string, p *conf.Problems) {
	switch {
	case c.Topic == "" && c.CertFile == "":
		p.Add(path+".topic", nil, "set it to the app's bundle id")
	case c.Topic != "" && !bundleID.MatchString(c.Topic):
		p.Add(path+".topic", c.Topic, "use the app's bundle id: letters, digits, dots and hyphens")
	}
	switch {
	case c.PushType == "":
	case !slices.Contains(pushTypes, apns2.EPushType(c.PushType)):
		p.Add(path+".push_type", c.PushType, "use one of Apple's push types, such as alert, background or voip, or leave it out")
	case c.PushType == string(apns2.PushTypeVOIP) && c.Topic != "" && !strings.HasSuffix(c.Topic, voipSuffix):
		p.Add(path+".topic", c.Topic, "append .voip: VoIP pushes have a topic of their own")
	}
}

// host returns the base URL to send to.
func (c Config) host() (*url.URL, error) {
	base := c.Endpoint
	switch {
	case base != "":
	case c.Platform == PlatformSandbox:
		base = apns2.HostDevelopment
	default:
		base = apns2.HostProduction
	}
	return outbound.ParseHost(base)
}
