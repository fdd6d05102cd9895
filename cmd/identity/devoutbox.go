package main

import (
	"bytes"
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/identity/httpapi"
	"github.com/matrix-herald/herald/internal/mxhttp"
	"github.com/matrix-herald/herald/threepid"
	"github.com/matrix-herald/herald/threepid/email"
	"github.com/matrix-herald/herald/threepid/sms"
	"github.com/matrix-herald/herald/threepid/validation"
)

// maxOutbox is how many messages the outbox shows.
const maxOutbox = 100

//go:embed devoutbox.html
var outboxPage string

// outbox takes the messages of development. It shows them on its page and on
// the terminal and never in the log, because they are what must not be logged.
type outbox struct {
	page *template.Template

	mu       sync.Mutex
	out      io.Writer
	messages []outboxMessage // the newest first
}

// outboxMessage is one message. The token comes first, where the example of
// docs/start-identity.md cuts it out.
type outboxMessage struct {
	Token  string    `json:"token"`
	Link   string    `json:"link,omitzero"`
	Medium string    `json:"medium"`
	To     string    `json:"to"`
	Text   string    `json:"text"`
	Time   time.Time `json:"time"`
}

func newOutbox(out io.Writer) (*outbox, error) {
	page, err := template.New("outbox").Parse(outboxPage)
	return &outbox{out: out, page: page}, err
}

// messengers returns those that end in the outbox.
func (b *outbox) messengers(cfg *Config, pages *httpapi.Pages, env environment) (*messengers, error) {
	mail, text := &devMailer{devMessenger: devMessenger{outbox: b, baseURL: cfg.PublicBaseURL}}, &devMessenger{outbox: b, baseURL: cfg.PublicBaseURL}
	mailer, mailErr := email.NewPrinter(cfg.mail(pages, env), &mail.text)
	texter, textErr := sms.NewPrinter(cfg.texts(env), &text.text)
	if err := errors.Join(mailErr, textErr); err != nil {
		return nil, err
	}
	mail.printer, mail.invites, text.printer = mailer, mailer, texter
	return &messengers{mail: mail, sms: text}, nil
}

// devMessenger words messages as the real ones are worded.
type devMessenger struct {
	outbox  *outbox
	baseURL string

	mu      sync.Mutex
	printer validation.Messenger
	text    bytes.Buffer // what printer writes to
}

// devMailer also words invitations.
type devMailer struct {
	devMessenger

	invites identity.InviteMailer // writes where printer does
}

// Send implements validation.Messenger.
func (m *devMessenger) Send(ctx context.Context, c threepid.Challenge) error {
	return m.keep(outboxMessage{Token: c.Token, Medium: string(c.ID.Medium), To: c.To}, func() error {
		return m.printer.Send(ctx, c)
	})
}

// SendInvitation implements identity.InviteMailer.
func (m *devMailer) SendInvitation(ctx context.Context, i threepid.Invitation) error {
	return m.keep(outboxMessage{Token: i.Token, Medium: string(i.ID.Medium), To: i.To}, func() error {
		return m.invites.SendInvitation(ctx, i)
	})
}

// keep puts what send prints into the outbox.
func (m *devMessenger) keep(msg outboxMessage, send func() error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.text.Reset()
	if err := send(); err != nil {
		return err
	}
	text := m.text.String()
	msg.Text, msg.Time = text, time.Now()
	for word := range strings.FieldsSeq(text) {
		if strings.HasPrefix(word, m.baseURL+"/") {
			msg.Link = word
		}
	}
	if err := m.outbox.add(msg); err != nil {
		return fmt.Errorf("%w: %w", threepid.ErrSend, err)
	}
	return nil
}

func (b *outbox) add(m outboxMessage) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.messages = slices.Insert(b.messages, 0, m)
	b.messages = b.messages[:min(len(b.messages), maxOutbox)]
	_, err := fmt.Fprintf(b.out, "%s\n", strings.TrimRight(m.Text, "\n"))
	return err
}

func (b *outbox) newestFirst() []outboxMessage {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]outboxMessage{}, b.messages...)
}

// list answers with the messages as JSON.
func (b *outbox) list(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	_ = mxhttp.WriteJSON(w, http.StatusOK, b.newestFirst())
}

// show answers with the messages as a page.
func (b *outbox) show(w http.ResponseWriter, _ *http.Request) {
	nonce := rand.Text()
	var text bytes.Buffer
	err := b.page.Execute(&text, struct {
		Nonce    string
		Messages []outboxMessage
	}{nonce, b.newestFirst()})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'nonce-"+nonce+"'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(text.Bytes())
}
