// Package sms sends the codes that prove a telephone number: it refuses
// countries that are not allowed, writes the message and hands it to the
// configured provider over HTTP. It does not decide whether a code is due, and it keeps nothing.
package sms

import (
	"context"
	"embed"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"regexp"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/threepid"
	"github.com/matrix-herald/herald/threepid/sending"
	"github.com/matrix-herald/herald/threepid/templates"
)

//go:embed templates
var builtin embed.FS

// verificationName is the name of the templates of Verification.
const verificationName = "verification"

// maxService is the longest name of a service in a message, in characters.
const maxService = 40

// Verification is what the templates "verification" are about.
type Verification struct {
	// Token is the code to enter. A message must show it, best at its beginning.
	Token string
	// Service is the name of this service.
	Service string
	// Minutes is how long the code works, rounded down.
	Minutes int
	// Language is the BCP 47 tag of the template.
	Language string
}

// Options are what a Sender is made from.
type Options struct {
	Config Config
	// Service is what this service is called in messages, such as its host name.
	Service string
	// Registerer takes the metrics.
	Registerer prometheus.Registerer
	// Log is told of messages that were not sent.
	Log *slog.Logger
}

// Sender sends text messages. It is safe for concurrent use.
type Sender struct {
	config    Config
	service   string
	templates *templates.Set
	warnings  []string
	slots     *sending.Slots
	provider  provider // nil when every number is refused
}

// provider takes messages to telephones. It returns nil once it has accepted
// one, else a *sending.Failure.
type provider interface {
	send(ctx context.Context, m message) error
}

// message is one text message.
type message struct {
	to   string // E.164 digits without "+"
	from string // "" to leave it to the provider
	text string
	// say is told what goes on, as in fmt.Printf.
	say func(format string, args ...any)
}

// number is what a telephone number looks like (E.164, without "+").
var number = regexp.MustCompile(`^[1-9][0-9]{4,14}$`)

// New checks the configuration and the templates and returns a Sender that uses
// the configured provider, or refuses every number if there is none.
func New(opts Options) (*Sender, error) {
	s, err := newSender(opts)
	if err != nil {
		return nil, err
	}
	s.warnings = append(opts.Config.Warnings(), s.warnings...)
	switch s.config.Provider {
	case ProviderTwilio:
		s.provider, err = newTwilio(s.config.Twilio, s.config.Timeout.Std())
	case ProviderWebhook:
		s.provider, err = newWebhook(s.config.Webhook, s.config.Timeout.Std())
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// NewPrinter returns a Sender that writes each message to w, in one piece, and sends
// nothing, for trying things out. It asks no provider, and takes every country if the
// configuration lists none.
func NewPrinter(opts Options, w io.Writer) (*Sender, error) {
	opts.Config.Provider = ""
	if len(opts.Config.Countries) == 0 {
		opts.Config.Countries = []string{anywhere}
	}
	s, err := newSender(opts)
	if err != nil {
		return nil, err
	}
	s.provider = printer{w}
	return s, nil
}

func newSender(opts Options) (*Sender, error) {
	var p conf.Problems
	config := opts.Config.resolve("sms", &p)
	if err := p.Err(); err != nil {
		return nil, err
	}
	files, err := fs.Sub(builtin, "templates")
	if err != nil {
		return nil, err
	}
	s := &Sender{config: config, service: templates.Clean(opts.Service, maxService)}
	sample := Verification{Token: "123456", Service: s.service, Minutes: 10, Language: config.DefaultLanguage}
	s.templates, s.warnings, err = templates.Load(
		templates.Source{Builtin: files, Dir: config.Templates, Language: config.DefaultLanguage},
		templates.Kind{Name: verificationName, Samples: []any{sample}, Shows: []string{"Token"}},
	)
	if err != nil {
		return nil, fmt.Errorf("SMS templates: %w", err)
	}
	s.slots = sending.New(sending.Options{
		Config: config.Config, One: "sms", Many: "sms", Templates: []string{verificationName}, Registerer: opts.Registerer, Log: opts.Log,
	})
	return s, nil
}

// Warnings names what in the configuration works but is probably not meant.
func (s *Sender) Warnings() []string { return s.warnings }

// Send texts a challenge to Challenge.To and returns once the provider has
// accepted the message. It returns an error that wraps
// threepid.ErrDestinationRejected when nothing is sent to the number's country
// or at all, threepid.ErrSend when the provider did not accept the message, and
// *threepid.BusyError when there was no free slot within Config.MaxWait. After
// a timeout the provider may have accepted the message all the same.
func (s *Sender) Send(ctx context.Context, c threepid.Challenge) error {
	return s.Try(ctx, c, func(string, ...any) {})
}

// Try is Send that tells say, as in fmt.Printf, what goes on: each request to the
// provider and its answer. They hold the number.
func (s *Sender) Try(ctx context.Context, c threepid.Challenge, say func(format string, args ...any)) error {
	m, err := s.word(c)
	m.say = say
	return s.slots.Send(ctx, verificationName, err, func(ctx context.Context) error { return s.provider.send(ctx, m) })
}

// Probe asks Twilio about the account, without a message, and connects to any other
// gateway, which is sent nothing. It returns a *sending.Failure if that fails.
func (s *Sender) Probe(ctx context.Context) error {
	switch p := s.provider.(type) {
	case *twilio:
		return p.probe(ctx)
	case *webhook:
		return p.probe(ctx)
	}
	return nil
}

// word makes the message of a challenge.
func (s *Sender) word(c threepid.Challenge) (message, error) {
	switch {
	case s.provider == nil:
		return message{}, &sending.Failure{Outcome: sending.Disabled, Kind: threepid.ErrSMSOff, Reason: "every number is refused"}
	case !s.config.allowed(c.Region):
		return message{}, &sending.Failure{Outcome: sending.Country, Kind: threepid.ErrDestinationRejected, Reason: "its country is not on the list"}
	case !number.MatchString(c.To):
		return message{}, sending.Failed(sending.Invalid, "this is not a telephone number to send to")
	}
	t := s.templates.Choose(verificationName, c.Brand, c.Language)
	m, err := t.Render(Verification{
		Token: templates.Clean(c.Token, maxService), Service: s.service,
		Minutes: int(c.ValidFor / time.Minute), Language: t.Language(),
	})
	if err != nil {
		return message{}, sending.Failed(sending.Invalid, err.Error())
	}
	return message{to: c.To, from: s.config.originatorFor(c.To, c.Region), text: m.Text}, nil
}

// printer writes messages for a person to read.
type printer struct{ w io.Writer }

func (p printer) send(_ context.Context, m message) error {
	if _, err := fmt.Fprintf(p.w, "--- SMS to +%s: %s\n", m.to, m.text); err != nil {
		return sending.Failed(sending.Unreachable, "the message could not be printed")
	}
	return nil
}
