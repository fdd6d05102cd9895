package sms

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/nyaruka/phonenumbers"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/threepid/sending"
)

// Values of Config.Provider.
const (
	ProviderTwilio  = "twilio"
	ProviderWebhook = "webhook"
)

// anywhere stands for every region in Config.Countries, and not begins one that
// nothing is sent to.
const (
	anywhere = "*"
	not      = "!"
)

// defaultOriginator is the key of the originator for all other numbers.
const defaultOriginator = "default"

var (
	originatorDigits = regexp.MustCompile(`^[1-9][0-9]{0,14}$`)
	originator       = regexp.MustCompile(`^(\+?[0-9]{3,15}|[A-Za-z0-9 ]{1,11}|MG[0-9a-f]{32})$`)
)

// Config says who sends text messages, where to and from whom. An option that
// is absent has its default. Without a provider no message is sent.
type Config struct {
	// Provider is "twilio" or "webhook". Without one no text message is sent.
	Provider string        `yaml:"provider"`
	Twilio   TwilioConfig  `yaml:"twilio"`
	Webhook  WebhookConfig `yaml:"webhook"`

	// Countries lists the regions that messages are sent to, as ISO 3166-1 alpha-2
	// codes such as GB, 001 for numbers of no region, or "*" for all, but for those
	// behind a "!": ["*", "!IE"]. It is the region of the number itself that counts.
	// A provider needs it: numbers of expensive networks are what fraud is about.
	Countries []string `yaml:"countries"`

	// Originators is who messages are from, by country ("CA"), first digits ("44")
	// or "default": a number, a short code, up to 11 letters and digits, or a
	// messaging service of Twilio (MG…).
	Originators map[string]string `yaml:"from"`

	// Config are the options that mails have too.
	sending.Config `yaml:",inline"`
}

// Validate adds every fault of c to p, under path. Templates are checked by New.
func (c Config) Validate(path string, p *conf.Problems) { c.resolve(path, p) }

// Warnings names what works but is probably not meant.
func (c Config) Warnings() []string {
	switch {
	case c.Provider == "":
		return []string{"no SMS provider is configured (provider): requests to validate a telephone number are refused"}
	case slices.Contains(c.Countries, anywhere):
		return []string{`text messages go to every country (countries: "*"): fraudsters run up bills with numbers of expensive networks`}
	case c.Provider == ProviderWebhook && strings.HasPrefix(c.Webhook.URL, "http://"):
		return []string{"codes go to the SMS gateway without encryption (webhook.url): whoever can read along can take over accounts"}
	}
	return nil
}

// resolve checks c and adds its faults to p; without any the Config it returns
// has the defaults in place.
func (c Config) resolve(path string, p *conf.Problems) Config {
	switch c.Provider {
	case "":
	case ProviderTwilio:
		c.Twilio.validate(path+".twilio", p)
	case ProviderWebhook:
		c.Webhook.validate(path+".webhook", p)
	default:
		p.Add(path+".provider", c.Provider, `must be "twilio" or "webhook"`)
	}
	c.checkCountries(path, p)
	c.checkOriginators(path, p)
	c.Config = c.WithDefaults()
	c.Config.Validate(path, p)
	return c
}

func (c Config) checkCountries(path string, p *conf.Problems) {
	known := phonenumbers.GetSupportedRegions()
	some := false
	for _, s := range c.Countries {
		region, rejected := strings.CutPrefix(s, not)
		some = some || !rejected
		if !known[region] && region != phonenumbers.REGION_CODE_FOR_NON_GEO_ENTITY && s != anywhere {
			p.Add(path+".countries", s, `must be "*" or an ISO 3166-1 alpha-2 code in capitals, such as GB, or "!GB" for all but that`)
		}
	}
	if !some && (c.Provider != "" || len(c.Countries) > 0) {
		p.Add(path+".countries", nil, `is missing: list the countries that messages may be sent to, such as [GB, IE] or ["*", "!IE"], because premium numbers elsewhere attract fraud`)
	}
}

func (c Config) checkOriginators(path string, p *conf.Problems) {
	known := phonenumbers.GetSupportedRegions()
	for key, from := range c.Originators {
		if key != defaultOriginator && key != phonenumbers.REGION_CODE_FOR_NON_GEO_ENTITY && !known[key] && !originatorDigits.MatchString(key) {
			p.Add(path+".from", key, `must be a country such as GB, the first digits of a number without "+" such as 44, or default`)
		}
		if !originator.MatchString(from) {
			p.Add(path+".from."+key, from, "must be a telephone number, a short code, or up to 11 letters and digits")
		}
	}
	if c.Provider == ProviderTwilio && c.Originators[defaultOriginator] == "" {
		p.Add(path+".from.default", nil, "is missing: Twilio needs a number, a sender ID or a messaging service (MG…) to send from")
	}
}

// allowed reports whether messages are sent to a region. A number of unknown
// region is not sent to.
func (c Config) allowed(region string) bool {
	return region != "" && !slices.Contains(c.Countries, not+region) &&
		(slices.Contains(c.Countries, region) || slices.Contains(c.Countries, anywhere))
}

// originatorFor returns who a message to a number of a region is from, "" to
// leave it to the provider.
func (c Config) originatorFor(number, region string) string {
	callingCode := len(strconv.Itoa(phonenumbers.GetCountryCodeForRegion(region)))
	for n := len(number); n > 0; n-- {
		if from, ok := c.Originators[region]; ok && n == callingCode {
			return from
		}
		if from, ok := c.Originators[number[:n]]; ok {
			return from
		}
	}
	return c.Originators[defaultOriginator]
}
