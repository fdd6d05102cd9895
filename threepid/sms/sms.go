// Package sms sends the codes that prove a telephone number: it decides by
// country whether to, words the message and hands it to the configured provider
// over HTTP. It does not decide whether a code is due, and it keeps nothing.
package sms

import (
	"context"
	"embed"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/threepid"
	"github.com/matrix-herald/herald/threepid/wording"
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
}

// Sender sends text messages. It is safe for concurrent use.
type Sender struct {
	config    Config
	service   string
	templates *wording.Set
	warnings  []string
	slots     *semaphore.Weighted
	provider  provider // nil when every number is refused
	metrics   *metrics
}

// provider takes messages to telephones. It returns nil once it has accepted
// one, else a *failure.
type provider interface {
	send(ctx context.Context, m message) error
}

// message is one text message.
type message struct {
	to   string // E.164 digits without "+"
	from string // "" to leave it to the provider
	text string
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

// NewPrinter returns a Sender that writes each message to w and sends nothing,
// for trying things out. It asks no provider, and takes every country if the
// configuration lists none.
func NewPrinter(opts Options, w io.Writer) (*Sender, error) {
	opts.Config.Provider = ""
	if len(opts.Config.Allow) == 0 {
		opts.Config.Allow = []string{anywhere}
	}
	s, err := newSender(opts)
	if err != nil {
		return nil, err
	}
	s.provider = &printer{w: w}
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
	s := &Sender{
		config: config, service: wording.Clean(opts.Service, maxService),
		slots: semaphore.NewWeighted(int64(config.MaxSending)), metrics: newMetrics(opts.Registerer),
	}
	sample := Verification{Token: "123456", Service: s.service, Minutes: 10, Language: config.DefaultLanguage}
	s.templates, s.warnings, err = wording.Load(
		wording.Source{Builtin: files, Dir: config.Templates, Language: config.DefaultLanguage},
		wording.Kind{Name: verificationName, Samples: []wording.Sample{{Data: sample, Shows: []string{sample.Token}}}},
	)
	if err != nil {
		return nil, fmt.Errorf("SMS templates: %w", err)
	}
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
	err := s.send(ctx, c)
	s.metrics.count(err)
	return err
}

func (s *Sender) send(ctx context.Context, c threepid.Challenge) error {
	switch {
	case s.provider == nil:
		return rejected(outcomeDisabled, "no SMS provider is configured")
	case !s.config.allowed(c.Region):
		return rejected(outcomeCountry, "its country is not on the list")
	case !number.MatchString(c.To):
		return failed(outcomeInvalid, "this is no telephone number to send to")
	}
	t := s.templates.Choose(verificationName, c.Brand, c.Language)
	m, err := t.Render(Verification{
		Token: wording.Clean(c.Token, maxService), Service: s.service,
		Minutes: int(c.ValidFor / time.Minute), Language: t.Language(),
	})
	if err != nil {
		return failed(outcomeInvalid, err.Error())
	}
	wait, cancel := context.WithTimeout(ctx, s.config.MaxWait.Std())
	err = s.slots.Acquire(wait, 1)
	cancel()
	if err != nil {
		return fmt.Errorf("send SMS: %w", &threepid.BusyError{RetryAfter: s.config.MaxWait.Std()})
	}
	defer s.slots.Release(1)
	s.metrics.inFlight.Inc()
	defer s.metrics.inFlight.Dec()
	defer s.metrics.took(time.Now())
	ctx, cancel = context.WithTimeout(ctx, s.config.Timeout.Std())
	defer cancel()
	return s.provider.send(ctx, message{to: c.To, from: s.config.originatorFor(c.To, c.Region), text: m.Text})
}
