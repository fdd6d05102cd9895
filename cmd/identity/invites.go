package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"

	"go.opentelemetry.io/otel/trace"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/identity/homeserver"
	"github.com/matrix-herald/herald/identity/httpapi"
	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/threepid"
)

// clients are those that invites are accepted with.
func (c *Config) clients() []httpapi.Client {
	if len(c.Invites.Clients) == 0 {
		return []httpapi.Client{{Name: "Element", URL: "https://app.element.io"}}
	}
	return parseClients(c.Invites.Clients)
}

func (c *Config) validateInvites(p *conf.Problems) {
	if n := c.Invites.Shown; n < 1 || n > 20 {
		p.Add("invites.shown", n, "use a number from 1 to 20")
	}
	validateClients("invites.clients", c.Invites.Clients, p)
	for _, name := range sortedKeys(c.Brands) {
		validateClients(fmt.Sprintf("brands.%q.clients", name), c.Brands[name].Clients, p)
	}
}

func validateClients(path string, clients []string, p *conf.Problems) {
	for i, text := range clients {
		client := parseClient(text)
		u, err := url.Parse(client.URL)
		if client.Name == "" || err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" ||
			u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			p.Add(fmt.Sprintf("%s[%d]", path, i), text, `write what people know the client by and the https URL where it begins, such as "Element <https://app.element.io>"`)
		}
	}
}

func parseClients(texts []string) []httpapi.Client {
	clients := make([]httpapi.Client, len(texts))
	for i, text := range texts {
		clients[i] = parseClient(text)
	}
	return clients
}

// parseClient reads "Name <URL>". What is amiss has no URL.
func parseClient(text string) httpapi.Client {
	name, rest, _ := strings.Cut(text, "<")
	address, ok := strings.CutSuffix(rest, ">")
	if !ok {
		address = ""
	}
	return httpapi.Client{Name: strings.TrimSpace(name), URL: address}
}

// federation makes the homeserver client what invites and unbinding ask for.
type federation struct {
	client   *homeserver.Client
	ownNames []string
	tracer   trace.Tracer
	log      *slog.Logger
}

// OnBind implements identity.Homeservers.
func (f federation) OnBind(ctx context.Context, server string, body []byte) error {
	name, err := homeserver.ParseServerName(server)
	if err != nil {
		return &identity.RefusedError{Reason: "not the name of a homeserver"}
	}
	ctx, end := span(ctx, f.tracer, "homeserver 3pid/onbind")
	err = f.client.OnBind(ctx, name, body)
	end(err)
	if later, ok := errors.AsType[*identity.LaterError](err); ok {
		later.Err = reason(later.Err)
	}
	return err
}

// Signer implements httpapi.Homeservers. Why a signature was refused stands in
// the log alone.
func (f federation) Signer(ctx context.Context, r httpapi.SignedRequest) (string, error) {
	ctx, end := span(ctx, f.tracer, "homeserver key/server")
	origin, err := f.client.VerifyRequest(ctx, homeserver.VerifyRequest{
		Method: r.Method, URI: r.URI, Headers: r.Authorization, Content: r.Content, OwnNames: f.ownNames,
	})
	end(err)
	if err != nil {
		f.log.InfoContext(ctx, "request not taken for a homeserver's", "err", reason(err))
		return "", err
	}
	return origin.String(), nil
}

// ownNames returns what homeservers may call this service by: its name, and
// what their users may give as id_server.
func (c *Config) ownNames() []string {
	names := append([]string{c.ServerName}, c.Homeservers.OwnNames...)
	if u, err := url.Parse(c.PublicBaseURL); err == nil {
		names = append(names, u.Host)
		if path := strings.TrimRight(u.Path, "/"); path != "" {
			names = append(names, u.Host+path)
		}
	}
	return names
}

// mailer sends both kinds of mail.
type mailer interface {
	Send(ctx context.Context, c threepid.Challenge) error
	SendInvitation(ctx context.Context, i threepid.Invitation) error
}

// tracedInvitations makes a span of each invitation that is mailed.
type tracedInvitations struct {
	identity.InviteMailer
	tracer trace.Tracer
}

// SendInvitation implements identity.InviteMailer.
func (t tracedInvitations) SendInvitation(ctx context.Context, i threepid.Invitation) error {
	ctx, end := span(ctx, t.tracer, "send invitation")
	err := t.InviteMailer.SendInvitation(ctx, i)
	end(err)
	return err
}
