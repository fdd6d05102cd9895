package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/text/language"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/identity/homeserver"
	"github.com/matrix-herald/herald/identity/httpapi"
	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/threepid"
	"github.com/matrix-herald/herald/threepid/templates"
	"github.com/matrix-herald/herald/threepid/validation"
)

// HomeserverSettings are what differs for the users of one homeserver. What is
// absent is as for all others, and what a client asks for goes before it.
type HomeserverSettings struct {
	// Brand is whose words, pages, sender and clients its users get.
	Brand string `yaml:"brand"`
	// Language is the BCP 47 tag of their language, unless they ask for another.
	Language string `yaml:"language"`
}

// validateSettings checks which homeservers there are, and their settings.
func (h HomeserversConfig) validateSettings(known []string, p *conf.Problems) {
	const aName = "use the server name that user IDs end in, such as example.org"
	for i, name := range h.Allow {
		if _, err := homeserver.ParseServerName(name); err != nil {
			p.Add(fmt.Sprintf("homeservers.allow[%d]", i), name, aName)
		}
	}
	for _, name := range sortedKeys(h.Settings) {
		path, s := fmt.Sprintf("homeservers.settings.%q", name), h.Settings[name]
		if _, err := homeserver.ParseServerName(name); err != nil {
			p.Add(path, nil, aName)
		} else if !h.allows(name) {
			p.Add(path, nil, "is not in homeservers.allow: add it there, or remove this")
		}
		if s.Brand != "" && !slices.Contains(known, s.Brand) {
			p.Add(path+".brand", s.Brand, "there is no such brand: name it in brands, or give it a folder among the templates or the pages; "+
				"known here: "+cmp.Or(strings.Join(known, ", "), "none"))
		}
		if s.Language != "" {
			if _, err := language.Parse(s.Language); err != nil {
				p.Add(path+".language", s.Language, "use a BCP 47 tag, such as en or pt-BR")
			}
		}
	}
}

// allows reports whether the users of a homeserver may use the service.
func (h HomeserversConfig) allows(name string) bool {
	return len(h.Allow) == 0 || slices.Contains(h.Allow, name)
}

// namedHomeservers returns those that the configuration names.
func (c *Config) namedHomeservers() []string {
	names := slices.Concat(c.Homeservers.Allow, sortedKeys(c.Homeservers.Settings))
	for _, s := range sortedKeys(c.TrustedHomeservers) {
		names = append(names, c.TrustedHomeservers[s]...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// brands returns those that have a sender, clients, words or pages of their own.
func (c *Config) brands() []string {
	known := sortedKeys(c.Brands)
	for _, dir := range []string{c.Email.Templates, c.SMS.Templates, c.Pages} {
		if dir == "" {
			continue
		}
		entries, _ := os.ReadDir(dir) // what is wrong with it is reported by whom it belongs to
		for _, e := range entries {
			info, err := os.Stat(filepath.Join(dir, e.Name())) // follows links
			if err == nil && info.IsDir() && !strings.HasPrefix(e.Name(), ".") {
				known = append(known, e.Name())
			}
		}
	}
	slices.Sort(known)
	return slices.Compact(known)
}

// clientsOf are the clients of homeservers whose brand has some.
func (c *Config) clientsOf() map[string][]httpapi.Client {
	clients := make(map[string][]httpapi.Client)
	for name, s := range c.Homeservers.Settings {
		if own := c.Brands[s.Brand].Clients; len(own) > 0 {
			clients[name] = parseClients(own)
		}
	}
	return clients
}

// words choose how the users of homeservers are spoken to.
type words struct {
	settings map[string]HomeserverSettings
	brands   []string // all that there are
}

func (c *Config) words() words { return words{c.Homeservers.Settings, c.brands()} }

// choose returns the brand and the languages of a message to a user of a
// homeserver, or to somebody whom one invites: what was asked for, as far as there
// is such a brand, and the homeserver's own behind it.
func (w words) choose(homeserver, brand, preferences string) (string, string) {
	s := w.settings[homeserver]
	if s.Brand != "" && !slices.Contains(w.brands, brand) {
		brand = s.Brand
	}
	return brand, templates.Prefer(preferences, s.Language)
}

// branded sends messages in the words of the homeserver whose user asked for them.
type branded struct {
	validation.Messenger
	words words
}

// Send implements validation.Messenger.
func (b branded) Send(ctx context.Context, c threepid.Challenge) error {
	c.Brand, c.Language = b.words.choose(c.Homeserver, c.Brand, c.Language)
	return b.Messenger.Send(ctx, c)
}

// brandedInvitations words invitations as the homeserver of the sender has it.
type brandedInvitations struct {
	identity.InviteMailer
	words words
}

// SendInvitation implements identity.InviteMailer.
func (b brandedInvitations) SendInvitation(ctx context.Context, i threepid.Invitation) error {
	i.Brand, i.Language = b.words.choose(i.Homeserver, i.Brand, i.Language)
	return b.InviteMailer.SendInvitation(ctx, i)
}
