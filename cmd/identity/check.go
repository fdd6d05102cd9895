package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"

	"github.com/matrix-herald/herald/identity/homeserver"
	"github.com/matrix-herald/herald/identity/httpapi"
	"github.com/matrix-herald/herald/internal/cmdline"
	"github.com/matrix-herald/herald/internal/telemetry"
)

// check says whether the configuration is good. It talks to nobody.
func (p *program) check(f cmdline.Line) error {
	cfg, err := loadConfig(f.Config, p.environ, f.Dev)
	if err != nil {
		return err
	}
	env := environment{log: slog.New(slog.DiscardHandler), reg: telemetry.NewRegistry("identity", version)}
	made, err := newParts(cfg, env, newMessengers)
	if err != nil {
		return err
	}
	for _, w := range slices.Concat(cfg.warnings(), made.messengers.warnings) {
		fmt.Fprintln(p.stderr, "warning:", w)
	}
	_, err = fmt.Fprintf(p.stdout, "The configuration is good: %s at %s.\n", cfg.ServerName, cfg.PublicBaseURL)
	return err
}

// parts are what is made of a configuration without touching the data.
type parts struct {
	messengers  *messengers
	homeservers homeserver.Options
	pages       *httpapi.Pages
}

func newParts(cfg *Config, env environment, messengers func(*Config, *httpapi.Pages, environment) (*messengers, error)) (parts, error) {
	var made parts
	var errs [2]error
	made.pages, errs[0] = httpapi.LoadPages(cfg.Pages)
	made.messengers, errs[1] = messengers(cfg, made.pages, env)
	made.homeservers = newHomeservers(cfg, env.log)
	return made, errors.Join(errs[:]...)
}

// warnings say what of the configuration works but should not stay so.
func (c *Config) warnings() []string {
	found := slices.Clone(c.Warnings)
	u, err := url.Parse(c.PublicBaseURL)
	if err == nil && u.Scheme == "http" && !isLoopbackHost(u.Hostname()) {
		found = append(found, "public_base_url: it is not https, so tokens and codes can be read on their way")
	}
	if c.trustsThisMachine() {
		found = append(found, "trusted_homeservers: it names this machine. If a proxy here passes requests on, "+
			"everybody may speak for the homeserver unless http.trusted_proxies names the proxy")
	}
	if host, taken := c.hostIsHomeserver(); taken && c.delegate() != "" {
		found = append(found, "public_base_url: "+host+" is the name of a homeserver too, which is left to answer /.well-known/matrix/server. "+
			"Dendrite asks for this service where that leads to: pass /_matrix/identity on from there, or give the service a host of its own")
	}
	return found
}
