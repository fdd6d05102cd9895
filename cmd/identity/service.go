package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/identity/homeserver"
	"github.com/matrix-herald/herald/identity/httpapi"
	"github.com/matrix-herald/herald/identity/sqlstore"
	"github.com/matrix-herald/herald/internal/ratelimit"
	"github.com/matrix-herald/herald/internal/telemetry"
	"github.com/matrix-herald/herald/threepid"
	"github.com/matrix-herald/herald/threepid/email"
	"github.com/matrix-herald/herald/threepid/sms"
	"github.com/matrix-herald/herald/threepid/validation"
)

// tracerName names what makes the spans of this package.
const tracerName = "github.com/matrix-herald/herald/cmd/identity"

// pepperInterval is the time between two changes of the lookup pepper.
const pepperInterval = 7 * 24 * time.Hour

// messengers carry codes to people.
type messengers struct {
	mail     mailer
	sms      validation.Messenger
	warnings []string
}

// newMessengers makes those that cfg describes. It connects to nothing.
func newMessengers(cfg *Config, pages *httpapi.Pages, env environment) (*messengers, error) {
	mail, mailErr := email.New(cfg.mail(pages, env))
	text, textErr := sms.New(cfg.texts(env))
	if err := errors.Join(mailErr, textErr); err != nil {
		return nil, err
	}
	m := &messengers{mail: mail, sms: text}
	for _, w := range mail.Warnings() {
		m.warnings = append(m.warnings, "email: "+w)
	}
	for _, w := range text.Warnings() {
		m.warnings = append(m.warnings, "sms: "+w)
	}
	return m, nil
}

// mail returns what mails are sent with, whose links lead to pages.
func (c *Config) mail(pages *httpapi.Pages, env environment) email.Options {
	o := email.Options{Config: c.Email, BaseURL: c.PublicBaseURL, Registerer: env.reg, Log: env.log}
	if pages != nil { // else they are faulty, and the faults of the mails are looked for
		o.PageBrands = pages.Brands()
	}
	return o
}

// texts returns what text messages are sent with.
func (c *Config) texts(env environment) sms.Options {
	return sms.Options{Config: c.SMS, Service: c.host(), Registerer: env.reg, Log: env.log}
}

// host returns what people know the service by.
func (c *Config) host() string {
	u, err := url.Parse(c.PublicBaseURL)
	if err != nil {
		return c.ServerName
	}
	return u.Hostname()
}

// store is the open database with the keys that belong to it.
type store struct {
	*sqlstore.DB

	keys identity.KeyStore
}

// isProvisional reports whether a name is one that a service gets that is tried out
// without a configuration: nobody else can ask it whether a signature is valid.
func isProvisional(name string) bool {
	host, _, err := net.SplitHostPort(name)
	return err == nil && isLoopbackHost(host)
}

// openStore opens the database, and makes it if it is one of SQLite that is not
// there yet. It refuses the database of a service with another name.
func openStore(ctx context.Context, cfg *Config, provider trace.TracerProvider) (*store, error) {
	if !cfg.usesPostgres() {
		if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
			return nil, fmt.Errorf("data_dir: %w", err)
		}
	}
	db, err := sqlstore.Open(ctx, sqlstore.Options{URL: cfg.databaseURL(), TracerProvider: provider})
	if err != nil {
		return nil, err
	}
	if err := db.ClaimServerName(ctx, cfg.ServerName, isProvisional); err != nil {
		if other, ok := errors.AsType[*identity.ServerNameError](err); ok {
			err = fmt.Errorf("server_name %q: %w; what it signed would no longer be valid, so set server_name back, or name "+
				"another folder in data_dir (or another database) to begin anew", cfg.ServerName, other)
		}
		return nil, errors.Join(err, db.Close())
	}
	s := &store{DB: db, keys: db}
	if !cfg.usesPostgres() {
		s.keys = sqlstore.NewKeyFile(cfg.keyFile(), db)
	}
	return s, nil
}

// service is the domain put together on an open store.
type service struct {
	sessions  *validation.Sessions
	accounts  *identity.Accounts
	terms     *identity.Terms
	keys      *identity.Keyring
	peppers   *identity.Peppers
	directory *identity.Directory
	invites   *identity.Invites
	told      *identity.Deliveries
	servers   federation
	limiter   *ratelimit.Limiter

	closeRedis func() error
}

// environment is what a service shares with the rest of the program.
type environment struct {
	log    *slog.Logger
	reg    *prometheus.Registry
	tracer telemetry.Tracer
}

// newService puts the domain together.
func newService(ctx context.Context, cfg *Config, db *store, m *messengers, servers *homeserver.Client, env environment) (s *service, err error) {
	codeKey, err := cfg.codeKey()
	if err != nil {
		return nil, err
	}
	tracer := env.tracer.Provider().Tracer(tracerName)
	metrics := identity.NewMetrics(env.reg)
	s = new(service)
	if s.sessions, err = validation.New(validation.Options{
		Store: db, CodeKey: codeKey, Log: env.log, Registerer: env.reg,
		Messengers: map[threepid.Medium]validation.Messenger{
			threepid.MediumEmail:  branded{traced{m.mail, tracer, "send mail"}, cfg.words()},
			threepid.MediumMSISDN: branded{traced{m.sms, tracer, "send SMS"}, cfg.words()},
		},
		NextLinkHosts: cfg.Validation.NextLinkHosts, MaxTries: cfg.Validation.MaxTries,
		TokenLife: cfg.Validation.CodeLife.Std(), SessionLife: cfg.Validation.SessionLife.Std(),
	}); err != nil {
		return nil, err
	}
	if s.accounts, err = identity.NewAccounts(identity.AccountsOptions{
		Store: db, OpenID: openID{servers, tracer, env.log}, IdleLife: cfg.IdleLife.Std(),
		Now: time.Now, Log: env.log, Metrics: metrics,
	}); err != nil {
		return nil, err
	}
	if s.terms, err = identity.NewTerms(identity.TermsOptions{Policies: cfg.policies(), Store: db, Now: time.Now}); err != nil {
		return nil, err
	}
	if s.keys, err = openKeyring(ctx, db, env.log); err != nil {
		return nil, err
	}
	if s.peppers, err = openPeppers(ctx, db, env.log, metrics); err != nil {
		return nil, err
	}
	s.directory, err = identity.NewDirectory(identity.DirectoryOptions{
		Store: db, Peppers: s.peppers, Keys: s.keys, Proofs: proofs{s.sessions}, ServerName: cfg.ServerName,
		PlainLookup: cfg.Lookup.Plain, Now: time.Now, Metrics: metrics,
	})
	if err != nil {
		return nil, err
	}
	if s.invites, err = identity.NewInvites(identity.InvitesOptions{
		Store: db, Keys: s.keys, Mailer: brandedInvitations{tracedInvitations{m.mail, tracer}, cfg.words()}, ServerName: cfg.ServerName,
		Life: cfg.Invites.Life.Std(), ShownLocal: cfg.Invites.Shown, ShownDomain: cfg.Invites.Shown,
		Now: time.Now, Log: env.log, Metrics: metrics,
	}); err != nil {
		return nil, err
	}
	if s.limiter, s.closeRedis, err = openLimiter(ctx, cfg, codeKey, env); err != nil {
		return nil, err
	}
	s.servers = federation{servers, cfg.ownNames(), tracer, env.log}
	s.told, err = identity.NewDeliveries(identity.DeliveriesOptions{
		Store: db, Keys: s.keys, Homeservers: s.servers, ServerName: cfg.ServerName,
		Now: time.Now, Log: env.log, Metrics: metrics,
	})
	return s, err
}

func openKeyring(ctx context.Context, db *store, log *slog.Logger) (*identity.Keyring, error) {
	keys, err := identity.OpenKeyring(ctx, identity.KeyringOptions{Store: db.keys, Now: time.Now, Log: log})
	if errors.Is(err, sqlstore.ErrKeyLost) {
		err = fmt.Errorf("%w; restore signing.keys from backup, or run `identity rotate-key` to make a new one", err)
	}
	return keys, err
}

func openPeppers(ctx context.Context, db *store, log *slog.Logger, metrics *identity.Metrics) (*identity.Peppers, error) {
	return identity.OpenPeppers(ctx, identity.PeppersOptions{
		Store: db, Directory: db, Interval: pepperInterval,
		Now: time.Now, Log: log, Metrics: metrics,
	})
}

// newHandler puts the API over a service.
func newHandler(cfg *Config, s *service, pages *httpapi.Pages, env environment) (http.Handler, error) {
	return httpapi.New(httpapi.Options{
		Accounts: s.accounts, Terms: s.terms, Directory: s.directory, Keys: s.keys, Sessions: s.sessions,
		Invites: s.invites, Homeservers: s.servers, BaseURL: cfg.PublicBaseURL, Clients: cfg.clients(),
		ClientsOf: cfg.clientsOf(), Allow: cfg.Homeservers.Allow,
		Pages: pages, ConfirmPage: cfg.Validation.ConfirmPage, V1: cfg.v1(), Limits: cfg.Limits.Limits, Limiter: s.limiter, TrustedSources: cfg.Limits.networks(), Log: env.log, Registerer: env.reg,
		BytesInFlight:  cfg.Limits.BytesInFlight,
		TrustedProxies: cfg.HTTP.TrustedProxies, Timeout: cfg.HTTP.RequestTimeout.Std(),
	})
}

// newHomeservers makes the client that asks homeservers. It connects to nothing.
func newHomeservers(cfg *Config, log *slog.Logger) homeserver.Options {
	proxy, _ := cfg.proxyURL() // validated
	opts := homeserver.Options{
		Timeout: cfg.Homeservers.Timeout.Std(), MaxInFlight: cfg.Homeservers.MaxInFlight, Proxy: proxy,
		RootCAs: cfg.RootCAs, UserAgent: "Herald/" + version, Log: log,
	}
	for _, s := range cfg.AllowNetworks {
		opts.AllowNets = append(opts.AllowNets, netip.MustParsePrefix(s)) // validated
	}
	return opts
}
