package hms

import (
	"cmp"
	"regexp"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/internal/outbound"
	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/accesstoken"
)

const (
	huaweiEndpoint = "https://push-api.cloud.huawei.com"
	huaweiLogin    = "https://oauth-login.cloud.huawei.com"
	tokenPath      = "/oauth2/v3/token"

	defaultTTL = 24 * time.Hour
	maxTTL     = 15 * 24 * time.Hour // Huawei keeps nothing longer
)

// idPattern is an app's or a project's id. It becomes a part of the URL's path.
var idPattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// Config is one app that is reached through Push Kit. Its credentials say where it
// runs: a service account reaches HarmonyOS 5 and later (v3 of the interface), an
// OAuth client Android with HMS Core and older HarmonyOS (v1, v2).
type Config struct {
	// ServiceAccountFile holds the JSON key of a service account, as AppGallery
	// Connect's API console makes it, which is ServiceAccount.
	ServiceAccount     conf.Secret `yaml:"service_account" conf:"file"`
	ServiceAccountFile string      `yaml:"service_account_file"`
	// ClientID is the app's id (AppGallery Connect, Project settings, OAuth 2.0
	// client ID).
	ClientID     string      `yaml:"client_id"`
	ClientSecret conf.Secret `yaml:"client_secret" conf:"file"`
	// ClientSecretFile is a file with its secret.
	ClientSecretFile string `yaml:"client_secret_file"`
	// ProjectID is the project; default: the service account's. With an OAuth
	// client it is the project that is asked (v2) in place of the app (v1).
	ProjectID string `yaml:"project_id"`
	// KeepFor is how long Push Kit keeps a message for a device that is offline, 1s to
	// 15d; default a day.
	KeepFor *conf.Duration `yaml:"keep_for"`
	// Endpoint is the https URL of another host that speaks Huawei's protocols. It is
	// for tests.
	Endpoint string `yaml:"endpoint" conf:"hidden"`
}

// Validate adds every fault of c to p, under path.
func (c Config) Validate(path string, p *conf.Problems) { c.resolve(path, time.Now, p) }

// settings are a Config that has been checked, with the defaults in place.
type settings struct {
	account accesstoken.Account
	payload Payload
	url     string // of messages
	id      string // stands for url and account; shows nothing of them
}

// resolve checks c and adds its faults to p; without any the settings work.
func (c Config) resolve(path string, now func() time.Time, p *conf.Problems) settings {
	s := settings{payload: Payload{TTL: defaultTTL, HarmonyOS: c.ClientID == ""}}
	host, err := outbound.ParseHost(cmp.Or(c.Endpoint, huaweiEndpoint))
	if err != nil {
		p.Add(path+".endpoint", nil, "must be an https URL of a host and perhaps a port, such as https://push.example.org:8443")
		return s
	}
	s.url = host.String()
	project, secrets := c.ProjectID, []string{c.ClientID, c.ClientSecret.Reveal(), c.ServiceAccount.Reveal()}
	switch {
	case c.ServiceAccount != "" && c.ClientID != "":
		p.Add(path+".client_id", c.ClientID, "contradicts service_account_file: keep the one for the systems that the app runs on, and make two apps for both")
	case c.ServiceAccount != "":
		key := parseAccount(path+".service_account_file", c.ServiceAccount.Reveal(), p)
		project, key.now = cmp.Or(project, key.ProjectID), now
		s.account, s.url = key, s.url+"/v3/"+project
	case c.ClientID != "":
		cfg := &clientcredentials.Config{ClientID: c.ClientID, ClientSecret: c.ClientSecret.Reveal(), TokenURL: huaweiLogin + tokenPath, AuthStyle: oauth2.AuthStyleInParams}
		if c.Endpoint != "" {
			cfg.TokenURL = host.String() + tokenPath
		}
		if c.ClientSecret != "" {
			s.account = client{cfg}
		} else if c.ClientSecretFile == "" { // else whoever could not read it has said so
			p.Add(path+".client_secret_file", nil, "is missing: name the file that holds it (AppGallery Connect, Project settings)")
		}
		s.url += "/v1/" + c.ClientID
		if project != "" {
			s.url = host.String() + "/v2/" + project
		}
	case c.ServiceAccountFile == "":
		p.Add(path+".service_account_file", nil, "is missing: name a service account's JSON key in service_account_file for HarmonyOS 5 and later, "+
			"or client_id and client_secret_file for Android with HMS Core")
	}
	for option, value := range map[string]string{".client_id": c.ClientID, ".project_id": project} {
		if value != "" && !idPattern.MatchString(value) {
			p.Add(path+option, value, "must be the id that AppGallery Connect shows in Project settings")
		}
	}
	if c.KeepFor != nil {
		s.payload.TTL = c.KeepFor.Std()
		if s.payload.TTL < time.Second || s.payload.TTL > maxTTL {
			p.Add(path+".keep_for", *c.KeepFor, "must be from 1s to 15d: Huawei keeps nothing longer")
		}
	}
	s.url += "/messages:send"
	s.id = push.Fingerprint(strings.Join(append(secrets, s.url), "\n"))
	return s
}
