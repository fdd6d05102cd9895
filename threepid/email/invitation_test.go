package email_test

import (
	"errors"
	"html"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/matrix-herald/herald/threepid"
	"github.com/matrix-herald/herald/threepid/email"
	"github.com/matrix-herald/herald/threepid/threepidtest"
)

func invitation() threepid.Invitation {
	return threepid.Invitation{
		ID: threepid.ID{Medium: threepid.MediumEmail, Address: "alice@bücher.example"}, To: "alice@xn--bcher-kva.example",
		Token: "TOKEN", PrivateKey: "s3cret-key_", Sender: "@bob:example.org", SenderName: "Bob", RoomName: "Tea",
		ValidFor: 90 * 24 * time.Hour,
	}
}

// halves sends an invitation and returns both halves of the mail.
func halves(t *testing.T, i threepid.Invitation) (m threepidtest.Message, text, htm string) {
	t.Helper()
	relay := threepidtest.NewSMTP(t, threepidtest.SMTPOptions{})
	s := newSender(t, config(relay))
	if err := s.SendInvitation(t.Context(), i); err != nil {
		t.Fatal(err)
	}
	s.outcomes(t, "sent", 1)
	m = relay.Wait(t, 1)[0]
	return m, m.Text(t), html.UnescapeString(m.HTML(t))
}

// Conformance (invites): the mail: room or space, with names or without, English and German (also TestTheMailIsReadable)
// Conformance (invites): a Matrix ID in a mail or on a page | whole, with nothing put into it; names written from right to left are set apart (also TestName)
func TestInvitationsSayWhoInvitesWhereto(t *testing.T) {
	t.Parallel()
	const link = "https://id.example.org/_matrix/identity/herald/v1/invite?private_key=s3cret-key_&token=TOKEN"
	for name, c := range map[string]struct {
		change  func(*threepid.Invitation)
		subject string
		shows   []string
		hides   []string
	}{
		"to a room with a name": {
			func(*threepid.Invitation) {}, "Bob invites you to Tea",
			[]string{"Bob (@bob:example.org) invites you to a room", "Tea", "90 days"}, []string{"space"},
		},
		"to a space with a name": {
			func(i *threepid.Invitation) { i.Space = true }, "Bob invites you to Tea",
			[]string{"invites you to a space", "Tea"}, []string{"a room"},
		},
		"to a room without a name": {
			func(i *threepid.Invitation) { i.RoomName = "" }, "Bob invites you to a conversation",
			[]string{"invites you to a room on Matrix"}, []string{"Tea"},
		},
		"to a space without a name": {
			func(i *threepid.Invitation) { i.RoomName, i.Space = "", true }, "Bob invites you to a space",
			[]string{"invites you to a space on Matrix"}, []string{"Tea"},
		},
		"by somebody to somewhere with names as long as they are shown": {
			func(i *threepid.Invitation) {
				i.SenderName, i.RoomName = strings.Repeat("é", 20), strings.Repeat("ö", 30)
			},
			strings.Repeat("é", 20) + " invites you to " + strings.Repeat("ö", 30),
			[]string{strings.Repeat("é", 20) + " (@bob:example.org)"}, []string{"…"},
		},
		"by somebody to somewhere with longer names": {
			func(i *threepid.Invitation) {
				i.SenderName, i.RoomName = strings.Repeat("é", 21), strings.Repeat("ö", 31)
			},
			strings.Repeat("é", 19) + "… invites you to " + strings.Repeat("ö", 29) + "…",
			[]string{strings.Repeat("é", 19) + "… (@bob:example.org)"}, []string{strings.Repeat("é", 20), strings.Repeat("ö", 30)},
		},
		"by somebody without a name": {
			func(i *threepid.Invitation) { i.SenderName = "" }, "You are invited to Tea",
			[]string{"@bob:example.org invites you to a room"}, []string{"Bob ("},
		},
		"by nobody in particular to nowhere in particular": {
			func(i *threepid.Invitation) { i.SenderName, i.RoomName = "", "" }, "You are invited to a conversation",
			[]string{"@bob:example.org invites you to a room"}, []string{"Tea", "Bob ("},
		},
		"in German": {
			func(i *threepid.Invitation) { i.Language = "de-AT,en;q=0.5" }, "Bob lädt Sie ein: Tea",
			[]string{"lädt Sie in einen Raum", "90 Tage"}, []string{"invites"},
		},
		"for less than a day": {
			func(i *threepid.Invitation) { i.ValidFor = time.Hour }, "Bob invites you to Tea", []string{"one day"}, []string{"0 days"},
		},
		"by somebody with a long ID, which can be copied": {
			func(i *threepid.Invitation) { i.Sender = "@" + strings.Repeat("bob.", 50) + "/=:sub.example.org:8448" }, "Bob invites you to Tea",
			[]string{"Bob (@" + strings.Repeat("bob.", 50) + "/=:sub.example.org:8448) invites you"}, nil,
		},
		"by somebody with a name in Hebrew": {
			func(i *threepid.Invitation) { i.SenderName = "שלום" }, "\u2068שלום\u2069 invites you to Tea",
			[]string{"\u2068שלום\u2069 (@bob:example.org) invites you to a room"}, nil,
		},
		"by names that are only spaces": {
			func(i *threepid.Invitation) { i.SenderName, i.RoomName = "\u00a0 \u2009", " " }, "You are invited to a conversation",
			nil, []string{"Bob ("},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i := invitation()
			c.change(&i)
			m, text, htm := halves(t, i)
			if got := m.Header(t, "Subject"); got != c.subject {
				t.Errorf("subject %q, want %q", got, c.subject)
			}
			if len(m.To) != 1 || m.To[0] != i.To || m.Header(t, "Auto-Submitted") != "auto-generated" {
				t.Errorf("envelope to %q", m.To)
			}
			for half, body := range map[string]string{"text": text, "HTML": htm} {
				for _, want := range append(c.shows, link, "alice@bücher.example", "id.example.org") {
					if !strings.Contains(body, want) {
						t.Errorf("the %s does not show %q:\n%s", half, want, body)
					}
				}
				for _, not := range c.hides {
					if strings.Contains(body, not) {
						t.Errorf("the %s shows %q:\n%s", half, not, body)
					}
				}
			}
		})
	}
}

// TestStrangersWordsInInvitations is about what a spammer would put into the
// names that others get mailed.
func TestStrangersWordsInInvitations(t *testing.T) {
	t.Parallel()
	for name, words := range map[string]string{
		"a link":                   "http://evil.example/",
		"a bare domain":            "visit evil.example",
		"an address":               "call me@evil.example",
		"markup":                   `<a href=//evil.example>x</a>`,
		"an attribute":             `" onmouseover="evil()`,
		"a template":               "{{.Link}} {{/* evil */}}",
		"a header":                 "Bob\r\nBcc: evil@evil.example",
		"lines":                    "Bob\n\nDear customer,\nevil.example",
		"a reversed text":          "\u202eelpmaxe.live",
		"a text without end":       strings.Repeat("evil.example ", 1000),
		"four bytes per character": strings.Repeat("𝔢", 1000),
		"a broken encoding":        "evil\xff\xfe.example",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i := invitation()
			i.SenderName, i.RoomName = words, words
			m, text, htm := halves(t, i)
			if m.Header(t, "Bcc") != "" || len(m.To) != 1 {
				t.Error("a header was added")
			}
			raw := m.HTML(t)
			for _, bad := range []string{"<a href=//", "onmouseover=\"evil", "<script"} {
				if strings.Contains(raw, bad) {
					t.Errorf("%s in:\n%s", bad, raw)
				}
			}
			links := regexp.MustCompile(`<[^>]*(?:href|src)\s*=\s*"([^"]*)`).FindAllStringSubmatch(raw, -1)
			if len(links) != 2 {
				t.Errorf("links %q", links)
			}
			for _, l := range links {
				if !strings.HasPrefix(l[1], "https://id.example.org/") {
					t.Errorf("leads to %s", l[1])
				}
			}
			// No part of it looks like a link to a mail program.
			looks := regexp.MustCompile(`evil\.example|live\.example|https?://[^i]|\S@evil`)
			for half, body := range map[string]string{"subject": m.Header(t, "Subject"), "text": text, "HTML": htm} {
				if found := looks.FindString(body); found != "" {
					t.Errorf("%q in the %s:\n%s", found, half, body)
				}
				if strings.Contains(body, "\u202e") || !utf8.ValidString(body) || len(body) > 8<<10 {
					t.Errorf("the %s has %d bytes:\n%s", half, len(body), body)
				}
			}
		})
	}
}

func TestInvitationsThatAreNotSent(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change  func(*threepid.Invitation)
		outcome string
	}{
		"no recipient":            {func(i *threepid.Invitation) { i.To = "" }, "invalid"},
		"two recipients":          {func(i *threepid.Invitation) { i.To = "a@b.example,c@d.example" }, "invalid"},
		"a recipient not as such": {func(i *threepid.Invitation) { i.To = "Alice@example.org" }, "invalid"},
		"no token":                {func(i *threepid.Invitation) { i.Token = "" }, "invalid"},
		"no key":                  {func(i *threepid.Invitation) { i.PrivateKey = "" }, "invalid"},
		"an endless token":        {func(i *threepid.Invitation) { i.Token = strings.Repeat("x", 256) }, "invalid"},
		"no relay":                {func(*threepid.Invitation) {}, "disabled"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSender(t, email.Config{})
			i := invitation()
			c.change(&i)
			err := s.SendInvitation(t.Context(), i)
			if !errors.Is(err, threepid.ErrSend) || strings.Contains(err.Error(), "lice") || strings.Contains(err.Error(), "TOKEN") {
				t.Errorf("got %v", err)
			}
			s.outcomes(t, c.outcome, 1)
		})
	}
}
