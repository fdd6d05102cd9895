package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/matrix-herald/herald/identity/homeserver"
	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/internal/safehttp"
	"github.com/matrix-herald/herald/threepid/validation"
)

// exampleSecret begins the secrets of deploy/secrets, which everybody knows.
const exampleSecret = "change-me"

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

func (c *Config) validate(p *conf.Problems) {
	c.validateNames(p)
	c.HTTP.Validate("http", p)
	c.validateDatabase(p)
	c.Email.Validate("email", p)
	c.SMS.Validate("sms", p)
	c.validateSessions(p)
	c.validateInvites(p)
	c.validateHomeservers(p)
	if c.Templates != "" {
		if info, err := os.Stat(c.Templates); err != nil || !info.IsDir() {
			p.Add("templates", nil, "name a folder with folders named mail, sms or pages in it")
		}
	}
	c.loadRoots(p)
	c.Limits.validate("limits", p)
	c.Redis.Validate("redis", p)
	c.Homeservers.validateSettings(c.brands(), p)
	c.validateV1(p)
	c.Log.Validate("log", p)
	c.Tracing.Validate("tracing", p)
	c.validateTerms(p)
}

// validateNames refuses to guess what others will know the service by.
func (c *Config) validateNames(p *conf.Problems) {
	const why = `: it defaults to the first listener only if all listen on the loopback and its port is not 0`
	switch _, err := homeserver.ParseServerName(c.ServerName); {
	case c.ServerName == "":
		p.Add("server_name", nil, "is missing: name the host of the service, such as id.example.org"+why)
	case err != nil:
		p.Add("server_name", c.ServerName, "use a host name, with a port if need be, such as id.example.org")
	}
	u, err := url.Parse(c.PublicBaseURL)
	switch {
	case c.PublicBaseURL == "":
		p.Add("public_base_url", nil, "is missing: say where clients and browsers reach the service, such as https://id.example.org"+why)
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" ||
		u.User != nil || u.RawQuery != "" || u.Fragment != "":
		p.Add("public_base_url", nil, "use an https URL without user, query and fragment, such as https://id.example.org")
	case strings.Contains(u.Path, "/_matrix"):
		p.Add("public_base_url", c.PublicBaseURL, "leave out /_matrix and what follows it: clients add that themselves")
	}
}

func (c *Config) validateDatabase(p *conf.Problems) {
	if n := len(c.CodeKey.Reveal()); n > 0 && n < validation.MinCodeKey {
		p.Add("secret_key", nil, fmt.Sprintf("use at least %d characters, such as the output of: openssl rand -base64 32", validation.MinCodeKey))
	}
	if strings.HasPrefix(c.CodeKey.Reveal(), exampleSecret) {
		p.Add("secret_key", nil, "is the published example: use a secret of your own, such as the output of: openssl rand -base64 32")
	}
	if !c.usesPostgres() {
		if c.DataDir == "" {
			p.Add("data_dir", nil, "is missing: name a folder for the database and the keys")
		}
		return
	}
	u := c.Database.URL.Reveal()
	_, err := pgxpool.ParseConfig(u) // its error may quote the password
	if err != nil || !strings.HasPrefix(u, "postgres://") && !strings.HasPrefix(u, "postgresql://") {
		p.Add("database.url", nil, "use a URL such as postgres://user:password@host:5432/database?sslmode=verify-full, whose files exist")
	}
	if c.CodeKey == "" {
		p.Add("secret_key", nil, "is missing: with PostgreSQL every replica needs the same key. "+
			"Write the output of openssl rand -base64 32 to a file and name it in secret_key_file")
	}
}

func (c *Config) validateSessions(p *conf.Problems) {
	for i, host := range c.Validation.NextLinkHosts {
		if u, err := url.Parse("https://" + host); err != nil || host == "" || u.Hostname() != host {
			p.Add(fmt.Sprintf("validation.next_link_hosts[%d]", i), host, "use a host name such as app.example.org")
		}
	}
}

func (c *Config) validateHomeservers(p *conf.Problems) {
	h := c.Homeservers
	for i, s := range h.OwnNames {
		if s == "" || strings.ContainsAny(s, " /@") {
			p.Add(fmt.Sprintf("homeservers.names_for_us[%d]", i), s, "use a name such as id.example.org, with a port if need be")
		}
	}
	for i, s := range c.AllowNetworks {
		if prefix, err := netip.ParsePrefix(s); err != nil || prefix.Addr().Is4In6() {
			p.Add(fmt.Sprintf("allow_networks[%d]", i), s, "use a range such as 10.0.0.0/8")
		}
	}
	if _, err := c.proxyURL(); err != nil {
		p.Add("proxy", nil, "use a URL such as http://user:password@proxy.example.com:3128")
	}
}

// loadRoots reads the certificate authorities.
func (c *Config) loadRoots(p *conf.Problems) {
	if c.CAFile == "" {
		return
	}
	roots, err := safehttp.LoadRootCAs(c.CAFile)
	if err != nil {
		p.Add("ca_file", nil, err.Error()+": name a file with certificates in PEM form")
	}
	c.RootCAs, c.Email.RootCAs, c.SMS.Webhook.RootCAs, c.Redis.RootCAs = roots, roots, roots, roots
}

func (c *Config) validateTerms(p *conf.Problems) {
	for _, id := range sortedKeys(c.Terms) {
		path, policy := "terms."+strconv.Quote(id), c.Terms[id]
		if policy.Version == "" {
			p.Add(path+".version", nil, `is missing: write one in quotes, such as "1.0"`)
		}
		if len(policy.Languages) == 0 {
			p.Add(path+".languages", nil, "is missing: name at least one language, such as en")
		}
		for _, language := range sortedKeys(policy.Languages) {
			path, text := path+".languages."+strconv.Quote(language), policy.Languages[language]
			if text.Name == "" {
				p.Add(path+".name", nil, "is missing: write the title of the document")
			}
			if u, err := url.Parse(text.URL); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
				p.Add(path+".url", text.URL, "use the https URL of the document; a new version needs a new URL")
			}
		}
	}
}

// proxyURL returns the proxy to homeservers, nil when there is none. The error
// does not quote the URL, which may hold a password.
func (c *Config) proxyURL() (*url.URL, error) {
	if c.Proxy == "" {
		return nil, nil
	}
	u, err := url.Parse(c.Proxy.Reveal())
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return nil, errors.New("proxy: not an http or https URL")
	}
	return u, nil
}
