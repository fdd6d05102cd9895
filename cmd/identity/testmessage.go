package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/identity/httpapi"
	"github.com/matrix-herald/herald/internal/cmdline"
	"github.com/matrix-herald/herald/threepid"
	"github.com/matrix-herald/herald/threepid/email"
	"github.com/matrix-herald/herald/threepid/sending"
	"github.com/matrix-herald/herald/threepid/sms"
	"github.com/matrix-herald/herald/threepid/templates"
)

// maxShown is how much of one step of a conversation a terminal gets, in characters.
const maxShown = 1000

// mailRemedies and smsRemedies say what to do about a message that was not sent.
var (
	mailRemedies = map[sending.Outcome]string{
		sending.Disabled:    "set email.host and email.from",
		sending.Unreachable: "check email.host with its port and email.oauth2.token_url, and whether a firewall lets this machine out",
		sending.TLS:         "email.host must be a name in the relay's certificate, ca_file must hold its authority if that is your own, and port 465 needs tls: tls",
		sending.Auth:        "check email.username and the password, or email.oauth2; Microsoft 365 and Google take access tokens alone, see docs/limits-and-brands.md",
		sending.NoUTF8:      "try an address in ASCII, or find a relay that offers SMTPUTF8",
		sending.Deferred:    "the relay wants to see the mail later: what it said tells why. If it counts connections, lower email.max_sending",
		sending.Unavailable: "the token endpoint is in trouble: try again later",
		sending.NoRecipient: "the relay knows no such mailbox: check the address, and where the relay sends mail for its domain",
		sending.Refused:     "what the relay said tells why: often it does not let this user send as email.from, or takes no mail from this machine",
		sending.Lost:        "something between hangs up: a firewall, or a relay that expects another email.tls on this port",
		sending.Timeout:     "something between is silent: a firewall, or a relay that expects another email.tls on this port",
	}
	smsRemedies = map[sending.Outcome]string{
		sending.Disabled:    "set sms.provider",
		sending.Country:     "the number's country is not in sms.countries, or has a \"!\" there, or is switched off in Twilio's console (Geo permissions)",
		sending.Unreachable: "check the provider's URL and whether a firewall lets this machine out; a private network has to be in allow_networks",
		sending.Auth:        "check the account's ID and secret",
		sending.Limited:     "the provider gets too many requests, or the account is at its limit: look into its console",
		sending.Unavailable: "the provider is in trouble: look at its status page and try again later",
		sending.NoRecipient: "the number takes no text messages: try another one",
		sending.Refused:     "what the provider said tells why: often the sender in sms.from is not allowed in this country, or the template does not fit the provider",
		sending.Timeout:     "the provider is silent: is there a firewall?",
	}
)

// testMail sends the mail that people get and shows the conversation with the relay.
func (p *program) testMail(ctx context.Context, f cmdline.Line, args []string) error {
	to, cfg, env, err := p.testMessage(f, args, "test-mail", "ADDRESS")
	if err != nil {
		return err
	}
	address, err := threepid.ParseEmail(to)
	if err != nil {
		return errors.New("-to: this is no email address")
	}
	pages, err := httpapi.LoadPages(cfg.Pages)
	if err != nil {
		return err
	}
	sender, err := email.New(cfg.mail(pages, env))
	if err != nil {
		return err
	}
	return p.try(func(say func(string, ...any)) error {
		return sender.Try(ctx, threepid.Challenge{
			ID: address.ID(), To: address.MailAddress(), Token: rand.Text(), SID: "test", ClientSecret: "test", ValidFor: cfg.Validation.SessionLife.Std(),
		}, say)
	}, "The relay has taken the mail; its link proves nothing. If it does not arrive, look for it among spam, and at SPF, DKIM and DMARC of the domain in email.from.", mailRemedies)
}

// testSMS sends the text message that people get and shows the provider's answer.
func (p *program) testSMS(ctx context.Context, f cmdline.Line, args []string) error {
	to, cfg, env, err := p.testMessage(f, args, "test-sms", "NUMBER")
	if err != nil {
		return err
	}
	phone, err := threepid.ParsePhone("", to)
	if err != nil {
		return errors.New("-to: use a number with the code of its country, such as +442079460000")
	}
	sender, err := sms.New(cfg.texts(env))
	if err != nil {
		return err
	}
	return p.try(func(say func(string, ...any)) error {
		return sender.Try(ctx, threepid.Challenge{
			ID: phone.ID(), To: phone.ID().Address, Region: phone.Region(), Token: "123456", ValidFor: cfg.Validation.CodeLife.Std(),
		}, say)
	}, "The provider has accepted the message; its code proves nothing. If it does not arrive, the provider's console says what became of it.", smsRemedies)
}

// testMessage reads the command line of a command that sends one message. Nothing of
// it is logged: what there is to say is printed.
func (p *program) testMessage(f cmdline.Line, args []string, name, what string) (to string, cfg *Config, env environment, err error) {
	set := flag.NewFlagSet(name, flag.ContinueOnError)
	set.SetOutput(p.stderr)
	set.StringVar(&to, "to", "", "who gets the message: `"+what+"`")
	switch err := set.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return "", nil, env, err
	case err != nil || to == "" || set.NArg() > 0:
		fmt.Fprintf(p.stderr, "usage: identity -config FILE %s -to %s\n", name, what)
		return "", nil, env, cmdline.ErrUsage
	}
	cfg, err = loadConfig(f.Config, p.environ, false)
	return to, cfg, environment{log: slog.New(slog.DiscardHandler), reg: prometheus.NewRegistry()}, err
}

// try sends a message and prints each step with its time, and in the end what came of
// it and what to do.
func (p *program) try(send func(say func(string, ...any)) error, success string, remedies map[sending.Outcome]string) error {
	begun := time.Now()
	err := send(func(format string, args ...any) {
		said := fmt.Sprintf(format, args...)
		for i, line := range strings.Split(strings.TrimSpace(said), "\n") {
			if i > 0 {
				line = said[:1] + " " + line // which says whose words they are
			}
			fmt.Fprintf(p.stdout, "%7.3f s  %s\n", time.Since(begun).Seconds(), templates.Clean(line, maxShown))
		}
	})
	if err == nil {
		_, err = fmt.Fprintln(p.stdout, success)
		return err
	}
	if f, ok := errors.AsType[*sending.Failure](err); ok && remedies[f.Outcome] != "" {
		return fmt.Errorf("%w\nWhat to do: %s", err, remedies[f.Outcome])
	}
	return err
}
