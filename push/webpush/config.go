package webpush

import (
	"cmp"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/push"
)

// Values of options.
const (
	PayloadSygnal      = "sygnal"
	PayloadDeclarative = "declarative"
	DevicesNone        = "none"
	DevicesOwn         = "own"
)

const (
	defaultTTL = 24 * time.Hour
	// maxTTL is Google's, the shortest of the services'.
	maxTTL = 28 * 24 * time.Hour

	appleHost   = "web.push.apple.com"
	mozillaHost = "updates.push.services.mozilla.com"
	windowsHost = ".notify.windows.com"
)

// Endpoints are the options about where notifications go, which is for whoever
// sets a pusher to say.
type Endpoints struct {
	// AllowedEndpoints are globs of hosts (with their port unless it is 443)
	// that endpoints may have; none means any.
	AllowedEndpoints []string `yaml:"allowed_endpoints"`
	// DeniedEndpoints are globs of those that they may not have.
	DeniedEndpoints []string `yaml:"denied_endpoints"`
	// AllowNetworks are private networks in which endpoints may be.
	AllowNetworks []string `yaml:"allow_networks"`
}

// Common are the options of both types of apps.
type Common struct {
	Endpoints `yaml:",inline"`

	// VAPIDKeyFile holds the private key that notifications are signed with
	// ("pushgw vapid new" makes one), and after it those that older subscriptions
	// were made with. They are VAPIDKey.
	VAPIDKey conf.Secret `yaml:"vapid_key" conf:"file"`
	// VAPIDKeyFile holds the private key that signs, and after it those of older
	// subscriptions.
	VAPIDKeyFile string `yaml:"vapid_key_file"`
	// VAPIDContact is where push services reach you: a mailto: or https: URL.
	VAPIDContact string `yaml:"vapid_contact"`
	// KeepFor is how long a push service keeps a notification for a device that is
	// offline, 1s to 28d; default a day.
	KeepFor *conf.Duration `yaml:"keep_for"`
}

// Config are the options of an app of type webpush.
type Config struct {
	Common `yaml:",inline"`

	// Payload is PayloadSygnal, the default, or PayloadDeclarative, which Safari
	// shows without a service worker.
	Payload string `yaml:"payload"`
	// Navigate is the page that a declarative notification opens, with {room_id} and
	// {event_id}.
	Navigate string `yaml:"navigate"`
	// Title is the title of a declarative notification without the name of a room or
	// sender. Default Matrix.
	Title string `yaml:"title"`
}

// UnifiedPush are the options of an app of type unifiedpush.
type UnifiedPush struct {
	Common `yaml:",inline"`

	// Devices is "none" (the default), or "own" to send the device's own entry too.
	Devices string `yaml:"devices"`
}

// settings are options that have been checked, with the defaults in place.
type settings struct {
	hosts       hosts
	networks    []netip.Prefix
	keys        []vapidKey
	contact     string
	ttl         int // seconds
	unified     bool
	ownDevice   bool
	declarative bool
	page, title string
	fingerprint string
}

// Validate adds every fault of c to p, under path.
func (c Config) Validate(path string, p *conf.Problems) { c.resolve(path, p) }

// Validate adds every fault of c to p, under path.
func (c UnifiedPush) Validate(path string, p *conf.Problems) { c.resolve(path, p) }

func (c Config) resolve(path string, p *conf.Problems) settings {
	s := c.Common.resolve(path, p)
	if c.VAPIDKey == "" && c.VAPIDKeyFile == "" {
		p.Add(path+".vapid_key_file", nil, "is missing: push services take no notification without; pushgw vapid new makes one")
	}
	if c.VAPIDContact == "" {
		p.Add(path+".vapid_contact", nil, "is missing: write a mailto: or https: URL at which push services reach you")
	}
	p.OneOf(path+".payload", c.Payload, `must be "sygnal" or "declarative"`, "", PayloadSygnal, PayloadDeclarative)
	s.declarative = c.Payload == PayloadDeclarative
	s.page, s.title = c.Navigate, cmp.Or(c.Title, "Matrix")
	if u, err := url.Parse(strings.NewReplacer("{", "", "}", "").Replace(c.Navigate)); s.declarative && (err != nil || u.Scheme != "https" || u.Host == "") {
		p.Add(path+".navigate", nil, `must be an https URL such as "https://app.example.org/#/room/{room_id}/{event_id}" for declarative payloads`)
	}
	s.fingerprint = fingerprint("webpush", s.keys)
	return s
}

func (c UnifiedPush) resolve(path string, p *conf.Problems) settings {
	s := c.Common.resolve(path, p)
	p.OneOf(path+".devices", c.Devices, `must be "none" or "own"`, "", DevicesNone, DevicesOwn)
	s.unified, s.ownDevice = true, c.Devices == DevicesOwn
	s.fingerprint = fingerprint("unifiedpush", s.keys)
	return s
}

// Preview returns the text that d gets from an app with these options, for people
// who write the app. Without one the outcome says why.
func (c Config) Preview(d push.Delivery, now time.Time) ([]byte, push.Outcome) {
	return c.resolve("", new(conf.Problems)).preview(d, now)
}

// Preview returns the text that d gets from an app with these options, for people
// who write the app. Without one the outcome says why.
func (c UnifiedPush) Preview(d push.Delivery, now time.Time) ([]byte, push.Outcome) {
	return c.resolve("", new(conf.Problems)).preview(d, now)
}

func (s settings) preview(d push.Delivery, now time.Time) ([]byte, push.Outcome) {
	t, out := s.target(d.Device)
	if t == nil {
		return nil, out
	}
	m, out := s.message(d, t.endpoint, t.limit, false, now)
	if m == nil {
		return nil, out
	}
	return m.plain, out
}

func (c Common) resolve(path string, p *conf.Problems) settings {
	s := settings{hosts: newHosts(c.AllowedEndpoints, c.DeniedEndpoints), contact: c.VAPIDContact, ttl: int(defaultTTL / time.Second)}
	if c.VAPIDKey != "" {
		var err error
		if s.keys, err = parseVAPIDKeys(c.VAPIDKey.Reveal()); err != nil {
			p.Add(path+".vapid_key_file", nil, err.Error())
		}
	}
	if c.VAPIDContact != "" && !checkContact(c.VAPIDContact) {
		p.Add(path+".vapid_contact", nil, "must be mailto: and an address, or an https URL, on a public domain: Apple refuses others")
	}
	if c.KeepFor != nil {
		if ttl := c.KeepFor.Std(); ttl < time.Second || ttl > maxTTL {
			p.Add(path+".keep_for", *c.KeepFor, "must be from 1s to 28d: Windows takes no shorter one, and Google keeps nothing longer")
		}
		s.ttl = int(c.KeepFor.Std() / time.Second)
	}
	for i, text := range c.AllowNetworks {
		network, err := conf.ParseNetwork(text)
		if err != nil {
			p.Add(fmt.Sprintf("%s.allow_networks[%d]", path, i), text, "use an address or a range such as 10.0.0.0/8")
		}
		s.networks = append(s.networks, network)
	}
	for option, list := range map[string][]string{"allowed_endpoints": c.AllowedEndpoints, "denied_endpoints": c.DeniedEndpoints} {
		for i, text := range list {
			if text == "" || strings.ContainsAny(text, "/ @") {
				p.Add(fmt.Sprintf("%s.%s[%d]", path, option, i), nil, "must be a host such as fcm.googleapis.com or *.notify.windows.com, with its port unless that is 443")
			}
		}
	}
	return s
}

// fingerprint stands for what it depends on whether a pushkey is one of the
// app's.
func fingerprint(kind string, list []vapidKey) string {
	parts := []string{kind}
	for _, k := range list {
		parts = append(parts, k.public)
	}
	return push.Fingerprint(strings.Join(parts, "\n"))
}
