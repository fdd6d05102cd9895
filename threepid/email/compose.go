package email

import (
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/matrix-herald/herald/threepid"
	"github.com/matrix-herald/herald/threepid/sending"
	"github.com/matrix-herald/herald/threepid/templates"
)

// maxParameter is the longest part of a link in characters, as the
// specification has it for tokens, secrets and session IDs.
const maxParameter = 255

// Common is what all templates know.
type Common struct {
	// Address is the address that the mail is about and goes to.
	Address string
	// Link is what the mail is for. A mail must show it.
	Link string
	// Service is the host name of this service.
	Service string
	// Language is the BCP 47 tag of the template.
	Language string
}

// letter is what there is to know of a mail before it is worded.
type letter struct {
	template            string
	to, brand, language string
	// path and query are where its link leads.
	path  string
	query url.Values
}

// compose words a mail about what data returns.
func (s *Sender) compose(l letter, data func(Common) any) (message, error) {
	// Whatever gets here is mailed to, so it is read once more: one address in its
	// canonical form and nothing beside it.
	address, err := threepid.ParseEmail(l.to)
	if err != nil || address.MailAddress() != l.to {
		return message{}, sending.Failed(sending.Invalid, "this is not an address to send mail to")
	}
	local, domain, _ := strings.Cut(l.to, "@")
	name, _, _ := strings.Cut(local, "+")
	private := []string{local, name, domain}
	for _, value := range l.query {
		if value[0] == "" || utf8.RuneCountInString(value[0]) > maxParameter {
			return message{}, sending.Failed(sending.Invalid, "it does not fit into a link")
		}
		private = append(private, value[0])
	}
	if slices.Contains(s.pages, l.brand) { // for which the link leads to pages of its own
		l.query.Set("brand", l.brand)
	}
	link := s.base.JoinPath(l.path)
	link.RawQuery = l.query.Encode()
	t := s.templates.Choose(l.template, l.brand, l.language)
	m, err := t.Render(data(Common{
		Address: templates.Clean(address.ID().Address, threepid.MaxEmailBytes), Link: link.String(),
		Service: templates.Clean(s.base.Host, maxParameter), Language: t.Language(),
	}))
	if err != nil {
		return message{}, sending.Failed(sending.Invalid, err.Error())
	}
	return message{
		sender: s.from(l.brand), to: l.to, subject: m.Subject, text: m.Text, html: m.HTML,
		language: t.Language(), private: private,
	}, nil
}

// from returns who a mail is from: the brand's sender, or the one of all others.
func (s *Sender) from(brand string) sender { return s.senders[brand].or(s.senders[""]) }
