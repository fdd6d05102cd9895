package email

import (
	"net/url"
	"time"
	"unicode/utf8"

	"github.com/matrix-herald/herald/threepid"
	"github.com/matrix-herald/herald/threepid/wording"
)

// invitationName is the name of the templates of Invitation.
const invitationName = "invitation"

// Invitation is what the templates "invitation" are about.
type Invitation struct {
	// Address is the address that is invited.
	Address string
	// Inviter is what the sender calls themselves and Room what the room is
	// called; both are strangers' words and may be empty.
	Inviter, Room string
	// Sender is the sender's user ID. It is theirs for certain, but they or their
	// homeserver chose it.
	Sender string
	// Space says that the room is a space.
	Space bool
	// Link leads to a page of this service, which offers clients to accept the
	// invitation with. A mail must show it.
	Link string
	// Service is the host name of this service.
	Service string
	// Days is how long the invitation can be accepted, rounded down, at least 1.
	Days int
	// Language is the BCP 47 tag of the template.
	Language string
}

func invitationKind() wording.Kind {
	full := Invitation{
		Address: "alice@example.org", Inviter: "Bob", Room: "Tea", Sender: "@bob:example.org",
		Link: "https://id.example.org/invite?sample", Service: "id.example.org", Days: 90, Language: "en",
	}
	kind := wording.Kind{Name: invitationName, Subject: true, HTML: true}
	for _, names := range [][2]string{{"Bob", "Tea"}, {"Bob", ""}, {"", "Tea"}, {"", ""}} {
		for _, space := range []bool{false, true} {
			sample := full
			sample.Inviter, sample.Room, sample.Space = names[0], names[1], space
			kind.Samples = append(kind.Samples, wording.Sample{Data: sample, Shows: []string{sample.Link, sample.Sender}})
		}
	}
	return kind
}

// invitation words the mail of an invitation.
func (s *Sender) invitation(i threepid.Invitation) (message, error) {
	address, err := threepid.ParseEmail(i.To)
	if err != nil || address.MailAddress() != i.To {
		return message{}, &failure{outcomeInvalid, "this is no address to send mail to"}
	}
	link, ok := s.inviteLink(i)
	if !ok {
		return message{}, &failure{outcomeInvalid, "the invitation does not fit into a link"}
	}
	t := s.templates.Choose(invitationName, i.Brand, i.Language)
	m, err := t.Render(Invitation{
		Address: wording.Clean(address.ID().Address, threepid.MaxEmailBytes),
		Inviter: wording.Name(i.SenderName, wording.MaxInviter), Room: wording.Name(i.RoomName, wording.MaxRoom),
		Sender: wording.UserID(i.Sender), Space: i.Space,
		Link: link, Service: wording.Clean(s.base.Host, maxParameter),
		Days: max(1, int(i.ValidFor/(24*time.Hour))), Language: t.Language(),
	})
	if err != nil {
		return message{}, &failure{outcomeInvalid, err.Error()}
	}
	return message{
		sender: s.from(i.Brand, i.Homeserver), to: i.To, subject: m.Subject, text: m.Text, html: m.HTML, language: t.Language(),
	}, nil
}

// inviteLink returns the URL of the page about an invitation.
func (s *Sender) inviteLink(i threepid.Invitation) (string, bool) {
	for _, part := range []string{i.Token, i.PrivateKey} {
		if part == "" || utf8.RuneCountInString(part) > maxParameter {
			return "", false
		}
	}
	u := s.base.JoinPath("_matrix/identity/herald/v1/invite")
	u.RawQuery = s.withBrand(url.Values{"token": {i.Token}, "private_key": {i.PrivateKey}}, i.Brand).Encode()
	return u.String(), true
}
