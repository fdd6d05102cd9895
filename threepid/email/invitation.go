package email

import (
	"net/url"
	"time"

	"github.com/matrix-herald/herald/threepid"
	"github.com/matrix-herald/herald/threepid/templates"
)

// invitationName is the name of the templates of Invitation.
const invitationName = "invitation"

// Invitation is what the templates "invitation" are about. The link leads to a page
// of this service, which offers clients to accept the invitation with.
type Invitation struct {
	Common

	// Inviter is what the sender calls themselves and Room what the room is
	// called; both are strangers' words and may be empty.
	Inviter, Room string
	// Sender is the sender's user ID. It is theirs for certain, but they or their
	// homeserver chose it.
	Sender string
	// Space says that the room is a space.
	Space bool
	// Days is how long the invitation can be accepted, rounded down, at least 1.
	Days int
}

func invitationKind() templates.Kind {
	full := Invitation{
		Common: Common{"alice@example.org", "https://id.example.org/invite?sample", "id.example.org", "en"},
		Sender: "@bob:example.org", Days: 90,
	}
	kind := templates.Kind{Name: invitationName, Subject: true, HTML: true, Shows: []string{"Link", "Sender"}}
	for _, names := range [][2]string{{"Bob", "Tea"}, {"Bob", ""}, {"", "Tea"}, {"", ""}} {
		for _, space := range []bool{false, true} {
			sample := full
			sample.Inviter, sample.Room, sample.Space = names[0], names[1], space
			kind.Samples = append(kind.Samples, sample)
		}
	}
	return kind
}

// invitation words the mail of an invitation.
func (s *Sender) invitation(i threepid.Invitation) (message, error) {
	return s.compose(letter{
		template: invitationName, to: i.To, brand: i.Brand, language: i.Language,
		path:  "_matrix/identity/herald/v1/invite",
		query: url.Values{"token": {i.Token}, "private_key": {i.PrivateKey}},
	}, func(about Common) any {
		return Invitation{
			Common: about, Inviter: templates.Name(i.SenderName, templates.MaxInviter), Room: templates.Name(i.RoomName, templates.MaxRoom),
			Sender: templates.UserID(i.Sender), Space: i.Space, Days: max(1, int(i.ValidFor/(24*time.Hour))),
		}
	})
}
