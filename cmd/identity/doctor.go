package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/identity/homeserver"
	"github.com/matrix-herald/herald/internal/cmdline"
	"github.com/matrix-herald/herald/internal/doctor"
	"github.com/matrix-herald/herald/threepid/email"
	"github.com/matrix-herald/herald/threepid/sending"
	"github.com/matrix-herald/herald/threepid/sms"
)

// maxProbedHomeservers is how many of those that the configuration names are asked.
const maxProbedHomeservers = 20

// doctor checks the configuration, then asks everything around the service, and the
// service where others reach it. It changes nothing, and sends nothing to anybody.
func (p *program) doctor(ctx context.Context, f cmdline.Line, args []string) error {
	if len(args) > 0 {
		fmt.Fprintln(p.stderr, "usage: identity -config FILE doctor")
		return cmdline.ErrUsage
	}
	if err := p.check(f); err != nil {
		return err
	}
	cfg, err := loadConfig(f.Config, p.environ, false)
	if err != nil {
		return err
	}
	env := environment{log: slog.New(slog.DiscardHandler), reg: prometheus.NewRegistry()}
	servers, err := homeserver.New(newHomeservers(cfg, env.log))
	if err != nil {
		return err
	}
	defer servers.CloseIdleConnections()
	checks := append([]doctor.Check{{
		Name: "database", Look: cfg.probeDatabase,
		Remedy: "database.url: is PostgreSQL running, does it let this user in from here? With SQLite, may this user write to data_dir?",
	}}, doctor.Redis(cfg.Redis)...)
	if cfg.Email.Host != "" {
		mail, err := email.New(cfg.mail(nil, environment{log: env.log, reg: prometheus.NewRegistry()}))
		if err != nil {
			return err
		}
		checks = append(checks, doctor.Check{
			Name: "mail relay " + cfg.Email.Host, Look: func(ctx context.Context) (string, error) {
				return "takes mail from this service", said(mail.Probe(ctx))
			},
			Remedy: "ca_file; email.host, tls, username and password; does a firewall let this machine out? test-mail shows the whole conversation",
		})
	}
	texts, err := cfg.textChecks()
	if err != nil {
		return err
	}
	checks = append(append(checks, texts...), cfg.publicChecks()...)
	names := cfg.namedHomeservers()
	for _, name := range names[:min(len(names), maxProbedHomeservers)] {
		checks = append(checks, doctor.Check{
			Name: "homeserver " + name, Look: func(ctx context.Context) (string, error) { return probeHomeserver(ctx, servers, name) },
			Remedy: "its .well-known/matrix/server, SRV records or port 8448, and its certificate; ca_file, allow_networks",
		})
	}
	return doctor.Run(ctx, p.stdout, checks)
}

// textChecks asks who sends text messages.
func (c *Config) textChecks() ([]doctor.Check, error) {
	if c.SMS.Provider == "" {
		return nil, nil
	}
	text, err := sms.New(c.texts(environment{log: slog.New(slog.DiscardHandler), reg: prometheus.NewRegistry()}))
	if err != nil {
		return nil, err
	}
	check := doctor.Check{
		Name: "Twilio", Look: func(ctx context.Context) (string, error) { return "its account may be used", said(text.Probe(ctx)) },
		Remedy: "sms.twilio.account_sid and auth_token; is the account suspended? test-sms shows what Twilio says of a message",
	}
	if c.SMS.Provider == sms.ProviderWebhook {
		check = doctor.Check{
			Name: "SMS gateway", Look: func(ctx context.Context) (string, error) {
				return "can be connected to; nothing was sent", said(text.Probe(ctx))
			},
			Remedy: "sms.webhook.url, ca_file; does a firewall let this machine out? test-sms shows what the gateway says of a message",
		}
	}
	return []doctor.Check{check}, nil
}

// probeDatabase connects without bringing the schema up to date as a start does.
func (c *Config) probeDatabase(ctx context.Context) (string, error) {
	if c.usesPostgres() {
		conn, err := pgx.Connect(ctx, c.databaseURL())
		if err != nil {
			return "", err
		}
		defer func() { _ = conn.Close(ctx) }()
		var version string
		var standby bool
		err = conn.QueryRow(ctx, "SELECT current_setting('server_version'), pg_is_in_recovery()").Scan(&version, &standby)
		if err == nil && standby {
			err = errors.New("it is a standby, which takes no writes")
		}
		return "PostgreSQL " + version, err
	}
	if _, err := os.Stat(c.Database.Path); errors.Is(err, fs.ErrNotExist) {
		return "there is none yet: the first start makes " + c.Database.Path, nil
	}
	u := url.URL{Scheme: "file", Opaque: (&url.URL{Path: c.Database.Path}).EscapedPath(), RawQuery: "mode=rw&_txlock=immediate&_pragma=busy_timeout(5000)&_pragma=temp_store(2)"}
	db, err := sql.Open("sqlite", u.String())
	if err != nil {
		return "", err
	}
	defer db.Close()
	tx, err := db.BeginTx(ctx, nil) // may it write?
	if err != nil {
		return "", err
	}
	return "SQLite can be written, in " + c.Database.Path, tx.Rollback()
}

// said returns the relay's or provider's own words if it takes nothing.
func said(err error) error {
	if f, ok := errors.AsType[*sending.Failure](err); ok {
		return errors.New(strings.TrimSuffix(f.Reason+": "+f.Said, ": "))
	}
	return err
}

// publicChecks ask the service where clients and homeservers reach it.
func (c *Config) publicChecks() []doctor.Check {
	const remedy = "is identity running, and does the proxy pass this on? A network may also keep its own machines from its public address"
	at := c.PublicBaseURL + "/_matrix/identity/v2"
	checks := []doctor.Check{{Name: at, Remedy: remedy, Look: func(ctx context.Context) (string, error) {
		status, body, err := doctor.Get(ctx, at, c.RootCAs)
		if err == nil && (status != http.StatusOK || body != "{}") {
			err = fmt.Errorf("something else answers %d", status)
		}
		return "identity answers", err
	}}}
	delegate := c.v1().Delegate
	if delegate == "" {
		return checks
	}
	u, err := url.Parse(c.PublicBaseURL)
	if err != nil {
		return checks
	}
	wellKnown := u.Scheme + "://" + u.Host + "/.well-known/matrix/server"
	return append(checks, doctor.Check{
		Name: wellKnown, Remedy: "Dendrite looks for the service there: let the proxy pass this path on, or see docs/connect.md for other ways",
		Look: func(ctx context.Context) (string, error) {
			status, body, err := doctor.Get(ctx, wellKnown, c.RootCAs)
			var answer struct {
				Server string `json:"m.server"`
			}
			switch {
			case err != nil:
				return "", err
			case status != http.StatusOK || json.Unmarshal([]byte(body), &answer) != nil:
				return "", fmt.Errorf("something else answers %d", status)
			case answer.Server != delegate:
				return "", fmt.Errorf("leads to %q, not to %q", answer.Server, delegate)
			}
			return "leads to " + delegate, nil
		},
	})
}

// probeHomeserver asks a homeserver about an OpenID token that it cannot know.
func probeHomeserver(ctx context.Context, servers *homeserver.Client, name string) (string, error) {
	server, err := homeserver.ParseServerName(name)
	if err != nil {
		return "", err
	}
	switch _, err := servers.UserInfo(ctx, server, "herald-doctor"); {
	case errors.Is(err, identity.ErrOpenIDRefused):
		return "answers, and does not know a made-up token", nil
	case err == nil:
		return "", errors.New("vouches for a made-up token")
	default:
		return "", reason(err)
	}
}
