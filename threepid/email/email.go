// Package email sends invitations and the mails that prove an address: it writes
// the mail, hands it to the configured relay over SMTP, and says whether the relay
// took it. It does not decide whether a mail is due, and it keeps nothing.
package email

import (
	"context"
	"embed"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/threepid"
	"github.com/matrix-herald/herald/threepid/sending"
	"github.com/matrix-herald/herald/threepid/templates"
)

//go:embed templates
var builtin embed.FS

// Options are what a Sender is made from.
type Options struct {
	Config Config
	// BaseURL is where clients and browsers reach this service, such as
	// https://id.example.org. Links in mails lead there.
	BaseURL string
	// PageBrands are the brands that have pages of their own for links to lead to.
	PageBrands []string
	// Registerer takes the metrics.
	Registerer prometheus.Registerer
	// Log is told of mails that were not sent.
	Log *slog.Logger
	// Now is the clock of the Date in mails; nil means time.Now.
	Now func() time.Time
}

// Sender sends mail. It is safe for concurrent use.
type Sender struct {
	base      *url.URL
	senders   map[string]sender // by brand, the default one under ""
	pages     []string          // brands
	templates *templates.Set
	warnings  []string
	slots     *sending.Slots
	relay     *relay // nil without one
	// deliver takes a mail where it goes. It returns nil or a *sending.Failure.
	deliver func(ctx context.Context, m message) error
}

// New checks the configuration and the templates and returns a Sender that uses
// the configured relay, or refuses everything if there is none. It connects to
// nothing yet.
func New(opts Options) (*Sender, error) {
	s, set, err := newSender(opts)
	if err != nil {
		return nil, err
	}
	s.warnings = append(opts.Config.Warnings(), s.warnings...)
	if set.Host == "" {
		s.deliver = func(context.Context, message) error {
			return &sending.Failure{Outcome: sending.Disabled, Kind: threepid.ErrMailOff, Reason: "every mail is refused"}
		}
		return s, nil
	}
	now := opts.Now
	if now == nil {
		now = time.Now
	}
	if s.relay, err = newRelay(set, s.base.Hostname(), now); err != nil {
		return nil, err
	}
	s.deliver = s.relay.deliver
	return s, nil
}

// NewPrinter returns a Sender that writes the text of each mail to w, in one piece,
// and sends nothing, for trying things out. The configured relay is not used.
func NewPrinter(opts Options, w io.Writer) (*Sender, error) {
	s, _, err := newSender(opts)
	if err != nil {
		return nil, err
	}
	s.deliver = func(_ context.Context, m message) error {
		if _, err := fmt.Fprintf(w, "--- mail to %s: %s\n%s\n---\n", m.to, m.subject, strings.TrimSpace(m.text)); err != nil {
			return sending.Failed(sending.Lost, "the mail could not be printed")
		}
		return nil
	}
	return s, nil
}

func newSender(opts Options) (*Sender, settings, error) {
	var p conf.Problems
	set := opts.Config.resolve("email", &p)
	if err := p.Err(); err != nil {
		return nil, settings{}, err
	}
	base, err := url.Parse(opts.BaseURL)
	if err != nil || base.Hostname() == "" {
		return nil, settings{}, fmt.Errorf("base URL %q: must be an https URL", opts.BaseURL)
	}
	files, err := fs.Sub(builtin, "templates")
	if err != nil {
		return nil, settings{}, err
	}
	source := templates.Source{Builtin: files, Dir: set.Templates, Language: set.DefaultLanguage}
	templates, warnings, err := templates.Load(source, verificationKind(), invitationKind())
	if err != nil {
		return nil, settings{}, fmt.Errorf("mail templates: %w", err)
	}
	return &Sender{
		base: base, senders: set.senders, pages: opts.PageBrands, templates: templates, warnings: warnings,
		slots: sending.New(sending.Options{
			Config: set.Config.Config, One: "mail", Many: "mails", Templates: []string{verificationName, invitationName},
			Registerer: opts.Registerer, Log: opts.Log,
		}),
	}, set, nil
}

// Warnings names what in the configuration and the templates works but is
// probably not meant.
func (s *Sender) Warnings() []string { return s.warnings }

// Send mails a challenge to Challenge.To and returns once the relay has taken
// it. It returns an error that wraps threepid.ErrSend when the relay did not
// (or none is configured), and *threepid.BusyError when there was no free slot
// within Config.MaxWait. After a timeout or a lost connection the relay may
// have taken the mail all the same.
func (s *Sender) Send(ctx context.Context, c threepid.Challenge) error {
	return s.Try(ctx, c, func(string, ...any) {})
}

// Try is Send that tells say, as in fmt.Printf, what goes on: the conversation with
// the relay, which holds the address.
func (s *Sender) Try(ctx context.Context, c threepid.Challenge, say func(format string, args ...any)) error {
	m, err := s.verification(c)
	m.say = say
	return s.send(ctx, verificationName, m, err)
}

// Probe asks the relay whether it takes mail from this service: connection, TLS and
// log-in, without a mail. It returns a *sending.Failure if not.
func (s *Sender) Probe(ctx context.Context) error {
	if s.relay == nil {
		return nil
	}
	return s.relay.probe(ctx)
}

// SendInvitation mails an invitation to Invitation.To. It returns as Send does.
func (s *Sender) SendInvitation(ctx context.Context, i threepid.Invitation) error {
	m, err := s.invitation(i)
	m.say = func(string, ...any) {}
	return s.send(ctx, invitationName, m, err)
}

func (s *Sender) send(ctx context.Context, template string, m message, err error) error {
	return s.slots.Send(ctx, template, err, func(ctx context.Context) error { return s.deliver(ctx, m) })
}
