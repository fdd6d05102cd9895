package email

import (
	"net/url"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/matrix-herald/herald/threepid"
	"github.com/matrix-herald/herald/threepid/wording"
)

// verificationName is the name of the templates of Verification.
const verificationName = "verification"

// maxParameter is the longest part of a link in characters, as the
// specification has it for tokens, secrets and session IDs.
const maxParameter = 255

// Verification is what the templates "verification" are about.
type Verification struct {
	// Address is the address to be verified.
	Address string
	// Link verifies it. A mail must show it.
	Link string
	// Token is the secret inside Link. The built-in templates do not show it: the
	// link does the same, and a code is easily talked out of people.
	Token string
	// Service is the host name of this service.
	Service string
	// Hours and Minutes are how long the link works, each the whole time rounded
	// down.
	Hours, Minutes int
	// Language is the BCP 47 tag of the template.
	Language string
}

func verificationKind() wording.Kind {
	long := Verification{
		Address: "alice@example.org", Link: "https://id.example.org/verify?sample", Token: "SAMPLETOKEN",
		Service: "id.example.org", Hours: 24, Minutes: 24 * 60, Language: "en",
	}
	short := long
	short.Hours, short.Minutes = 0, 30
	shows := []string{long.Link}
	return wording.Kind{
		Name: verificationName, Subject: true, HTML: true,
		Samples: []wording.Sample{{Data: long, Shows: shows}, {Data: short, Shows: shows}},
	}
}

// verification words the mail of a challenge.
func (s *Sender) verification(c threepid.Challenge) (message, error) {
	// Whatever gets here is mailed to, so it is read once more: one address in its
	// canonical form and nothing beside it.
	address, err := threepid.ParseEmail(c.To)
	if err != nil || address.MailAddress() != c.To {
		return message{}, &failure{outcomeInvalid, "this is no address to send mail to"}
	}
	link, ok := s.link(c)
	if !ok {
		return message{}, &failure{outcomeInvalid, "the session does not fit into a link"}
	}
	t := s.templates.Choose(verificationName, c.Brand, c.Language)
	m, err := t.Render(Verification{
		Address: wording.Clean(address.ID().Address, threepid.MaxEmailBytes),
		Link:    link,
		Token:   wording.Clean(c.Token, maxParameter),
		Service: wording.Clean(s.base.Host, maxParameter),
		Hours:   int(c.ValidFor / time.Hour), Minutes: int(c.ValidFor / time.Minute),
		Language: t.Language(),
	})
	if err != nil {
		return message{}, &failure{outcomeInvalid, err.Error()}
	}
	return message{sender: s.from(c.Brand, c.Homeserver), to: c.To, subject: m.Subject, text: m.Text, html: m.HTML, language: t.Language()}, nil
}

// from returns who a mail is from: the brand's sender, or the homeserver's, or the
// one of all others.
func (s *Sender) from(brand, homeserver string) sender {
	var from sender
	if brand != "" {
		from = s.senders[brand]
	}
	return from.or(s.servers[homeserver]).or(s.senders[""])
}

// link returns the URL that submits a challenge's token (Identity Service API,
// "GET /_matrix/identity/v2/validate/email/submitToken").
func (s *Sender) link(c threepid.Challenge) (string, bool) {
	for _, part := range []string{c.Token, c.ClientSecret, c.SID} {
		if part == "" || utf8.RuneCountInString(part) > maxParameter {
			return "", false
		}
	}
	u := s.base.JoinPath("_matrix/identity/v2/validate/email/submitToken")
	u.RawQuery = s.withBrand(url.Values{"token": {c.Token}, "client_secret": {c.ClientSecret}, "sid": {c.SID}}, c.Brand).Encode()
	return u.String(), true
}

// withBrand adds the brand to the query of a link if there are pages of it.
func (s *Sender) withBrand(query url.Values, brand string) url.Values {
	if slices.Contains(s.pages, brand) {
		query.Set("brand", brand)
	}
	return query
}
