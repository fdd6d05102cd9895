package email

import (
	"net/url"
	"time"

	"github.com/matrix-herald/herald/threepid"
	"github.com/matrix-herald/herald/threepid/templates"
)

// verificationName is the name of the templates of Verification.
const verificationName = "verification"

// Verification is what the templates "verification" are about. The link verifies
// the address.
type Verification struct {
	Common

	// Token is the secret inside Link. The built-in templates do not show it: the
	// link does the same, and a code is easily talked out of people.
	Token string
	// Hours and Minutes are how long the link works, each the whole time rounded
	// down.
	Hours, Minutes int
}

func verificationKind() templates.Kind {
	long := Verification{
		Common: Common{"alice@example.org", "https://id.example.org/verify?sample", "id.example.org", "en"},
		Token:  "SAMPLETOKEN", Hours: 24, Minutes: 24 * 60,
	}
	short := long
	short.Hours, short.Minutes = 0, 30
	return templates.Kind{Name: verificationName, Subject: true, HTML: true, Samples: []any{long, short}, Shows: []string{"Link"}}
}

// verification words the mail of a challenge. Its link submits the token (Identity
// Service API, "GET /_matrix/identity/v2/validate/email/submitToken").
func (s *Sender) verification(c threepid.Challenge) (message, error) {
	return s.compose(letter{
		template: verificationName, to: c.To, brand: c.Brand, language: c.Language,
		path:  "_matrix/identity/v2/validate/email/submitToken",
		query: url.Values{"token": {c.Token}, "client_secret": {c.ClientSecret}, "sid": {c.SID}},
	}, func(about Common) any {
		return Verification{about, templates.Clean(c.Token, maxParameter), int(c.ValidFor / time.Hour), int(c.ValidFor / time.Minute)}
	})
}
