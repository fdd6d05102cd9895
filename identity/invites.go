package identity

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/matrix-herald/herald/identity/signing"
	"github.com/matrix-herald/herald/threepid"
)

const (
	// DefaultInviteLife is how long an invite waits for its address to be bound.
	DefaultInviteLife = 90 * 24 * time.Hour
	// UsedInviteLife is how long the keys of an invite stay valid after a
	// homeserver was told about it: it may ask later than it answers.
	UsedInviteLife = 24 * time.Hour
	// DefaultShown is how many characters of either half of an invited address
	// everybody in the room may see.
	DefaultShown = 3

	// ephemeralVersion names all ephemeral keys: only the key itself counts.
	ephemeralVersion = "0"
	// maxIDBytes is the longest identifier of Matrix (Appendices, "Common
	// Identifier Format"), and the longest token.
	maxIDBytes = 255
	// maxDetail is in characters.
	maxDetail = 255
	// cleanupTime is for removing an invite whose mail was not sent.
	cleanupTime = 5 * time.Second
)

// InviteMailer tells an address about an invite. It returns nil once the mail is
// under way, and else the errors of threepid.
type InviteMailer interface {
	SendInvitation(ctx context.Context, i threepid.Invitation) error
}

// InvitesOptions configure Invites. Store, Keys, Mailer, ServerName, Now, Log
// and Metrics are required.
type InvitesOptions struct {
	Store      InviteStore
	Keys       *Keyring
	Mailer     InviteMailer
	ServerName string        // under which accepted invites are signed
	Life       time.Duration // 0 is DefaultInviteLife
	// ShownLocal and ShownDomain are how many characters of the two halves of an
	// address its redacted form has at most; 0 is DefaultShown.
	ShownLocal, ShownDomain int
	Now                     func() time.Time
	Log                     *slog.Logger
	Metrics                 *Metrics
}

// Invites keeps invites for addresses that nobody has bound yet.
type Invites struct {
	opts InvitesOptions
}

// NewInvites returns Invites, or an error if an option is missing.
func NewInvites(o InvitesOptions) (*Invites, error) {
	if o.Store == nil || o.Keys == nil || o.Mailer == nil || o.ServerName == "" || o.Now == nil || o.Log == nil ||
		o.Metrics == nil || o.Life < 0 || o.ShownLocal < 0 || o.ShownDomain < 0 {
		return nil, errors.New("identity: invites: an option is missing or negative")
	}
	if o.Life == 0 {
		o.Life = DefaultInviteLife
	}
	if o.ShownLocal == 0 {
		o.ShownLocal = DefaultShown
	}
	if o.ShownDomain == 0 {
		o.ShownDomain = DefaultShown
	}
	return &Invites{opts: o}, nil
}

// InviteRequest asks to keep an invite and to mail it.
type InviteRequest struct {
	Account string // the user whose access token was used
	Sender  string // the user who invites
	Medium  string
	Address string // in any spelling
	RoomID  string
	About   InviteDetails
	// Brand and Language choose the wording of the mail; both may be empty.
	Brand, Language string
}

// StoredInvite is what a room is told about an invite.
type StoredInvite struct {
	Token       string
	DisplayName string // the address, redacted
	// ServerKey is our own key, and EphemeralKey the one whose private half is in
	// the mail, in unpadded standard and URL-safe base64.
	ServerKey, EphemeralKey string
}

// Store keeps an invite and mails it. It returns ErrNotSender for another's
// invite, ErrInvalidRoom, an *InUseError if the address is bound, ErrMedium for
// anything but email, threepid.ErrInvalidEmail and the errors of InviteMailer,
// after which there is no invite.
func (i *Invites) Store(ctx context.Context, r InviteRequest) (s StoredInvite, err error) {
	defer func() { i.opts.Metrics.invited(err) }()
	address, err := i.check(ctx, r)
	if err != nil {
		return StoredInvite{}, fmt.Errorf("store an invite: %w", err)
	}
	key, err := i.opts.Keys.Active(ctx)
	if err != nil {
		return StoredInvite{}, fmt.Errorf("store an invite: %w", err)
	}
	ephemeral, err := signing.GenerateKey(ephemeralVersion)
	if err != nil {
		return StoredInvite{}, fmt.Errorf("store an invite: %w", err)
	}
	now := i.opts.Now().Truncate(time.Millisecond)
	invite := Invite{
		Token: rand.Text(), Address: address.ID(), RoomID: r.RoomID, Sender: r.Sender, About: r.About.clean(),
		KeyID: key.ID(), Ephemeral: ephemeral.Public(), Created: now, Expires: now.Add(i.opts.Life),
	}
	if err := i.opts.Store.AddInvite(ctx, invite); err != nil {
		return StoredInvite{}, fmt.Errorf("store an invite: %w", err)
	}
	// The room may ask for the keys and the invitee may follow the link before
	// the relay has answered, so the invite is there first.
	if err := i.mail(ctx, invite, ephemeral, address.MailAddress(), r); err != nil {
		i.withdraw(ctx, invite)
		return StoredInvite{}, fmt.Errorf("store an invite: %w", err)
	}
	return StoredInvite{
		Token: invite.Token, DisplayName: Redacted(address.ID(), i.opts.ShownLocal, i.opts.ShownDomain), ServerKey: key.PublicBase64(),
		EphemeralKey: base64.RawURLEncoding.EncodeToString(ephemeral.Public()),
	}, nil
}

// check returns the address to invite.
func (i *Invites) check(ctx context.Context, r InviteRequest) (threepid.Email, error) {
	switch {
	case r.Account == "" || r.Sender != r.Account:
		return threepid.Email{}, ErrNotSender
	case r.RoomID == "" || len(r.RoomID) > maxIDBytes || strings.ContainsFunc(r.RoomID, unicode.IsControl):
		return threepid.Email{}, ErrInvalidRoom
	case r.Medium == string(threepid.MediumEmail):
		return threepid.ParseEmail(r.Address)
	}
	// Whoever cannot be invited because of the medium may still be found.
	id, err := threepid.ParseAddress(r.Medium, r.Address)
	if err != nil {
		return threepid.Email{}, ErrMedium
	}
	userID, err := i.opts.Store.BoundTo(ctx, id)
	switch {
	case errors.Is(err, ErrNotFound):
		return threepid.Email{}, ErrMedium
	case err != nil:
		return threepid.Email{}, err
	}
	return threepid.Email{}, &InUseError{UserID: userID}
}

// mail sends the private half of the ephemeral key, which nobody else has.
func (i *Invites) mail(ctx context.Context, invite Invite, ephemeral signing.Key, to string, r InviteRequest) error {
	homeserver, _ := serverOf(invite.Sender)
	return i.opts.Mailer.SendInvitation(ctx, threepid.Invitation{
		ID: invite.Address, To: to, Token: invite.Token, PrivateKey: urlSafe(ephemeral.Seed()),
		Sender: invite.Sender, SenderName: invite.About.SenderName, RoomName: invite.About.RoomName,
		Space: invite.Space(), Homeserver: homeserver, Brand: r.Brand, Language: r.Language, ValidFor: i.opts.Life,
	})
}

// withdraw removes an invite that nobody was told about. If it cannot, the
// invite stays until it expires.
func (i *Invites) withdraw(ctx context.Context, invite Invite) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	if err := i.opts.Store.DeleteInvite(ctx, invite.Token, "", Removal{At: i.opts.Now()}); err != nil && !errors.Is(err, ErrNotFound) {
		i.opts.Log.WarnContext(ctx, "an invite whose mail was not sent stays until it expires", "err", err)
	}
}

// urlSafe returns unpadded base64 in the alphabet that needs no escapes in links.
func urlSafe(s string) string { return strings.NewReplacer("+", "-", "/", "_").Replace(s) }

// clean returns the details as they are kept.
func (d InviteDetails) clean() InviteDetails {
	for _, s := range []*string{&d.RoomName, &d.RoomType, &d.RoomAvatar, &d.SenderName, &d.Client} {
		*s = strings.Map(func(r rune) rune {
			if unicode.IsControl(r) {
				return -1
			}
			return r
		}, strings.ToValidUTF8(*s, "\uFFFD"))
		if runes := []rune(*s); len(runes) > maxDetail {
			*s = string(runes[:maxDetail])
		}
	}
	return d
}

// Redacted returns an email address as everybody in a room may see it: with up to
// so many characters of either half.
func Redacted(id threepid.ID, shownLocal, shownDomain int) string {
	local, domain, _ := strings.Cut(id.Address, "@")
	return redacted(local, shownLocal) + "@" + redacted(domain, shownDomain)
}

// redacted returns the beginning of s, limit characters of it if there are more
// and fewer else, so that something of s is always left out.
func redacted(s string, limit int) string {
	shown := limit
	switch n := utf8.RuneCountInString(s); {
	case n > limit:
	case n > 5:
		shown = 3
	case n > 1:
		shown = 1
	default:
		shown = 0
	}
	return string([]rune(s)[:shown]) + "..."
}

// Open returns the live invite of a token for whoever has its private key, in
// any base64. It returns ErrNoInvite, also for an imported invite, or ErrInviteKey.
func (i *Invites) Open(ctx context.Context, token, privateKey string) (Invite, error) {
	invite, _, err := i.open(ctx, token, privateKey)
	if err == nil && invite.imported() {
		// Whoever was mailed any imported invite could read whom this one is for. Its
		// own mail leads elsewhere.
		return Invite{}, ErrNoInvite
	}
	return invite, err
}

func (i *Invites) open(ctx context.Context, token, privateKey string) (Invite, signing.Key, error) {
	if !validToken(token) {
		return Invite{}, signing.Key{}, ErrNoInvite
	}
	now := i.opts.Now()
	invite, err := i.opts.Store.LiveInvite(ctx, token, now, now.Add(-UsedInviteLife))
	switch {
	case errors.Is(err, ErrNotFound):
		return Invite{}, signing.Key{}, ErrNoInvite
	case err != nil:
		return Invite{}, signing.Key{}, fmt.Errorf("open an invite: %w", err)
	}
	key, err := signing.NewKey("ed25519:"+ephemeralVersion, privateKey)
	if err != nil {
		return Invite{}, signing.Key{}, ErrInviteKey
	}
	// A signature with another key would look like one of ours.
	opens, err := i.opens(ctx, invite, key, now)
	switch {
	case err != nil:
		return Invite{}, signing.Key{}, fmt.Errorf("open an invite: %w", err)
	case !opens:
		return Invite{}, signing.Key{}, ErrInviteKey
	}
	return invite, key, nil
}

// opens reports whether key is the one from the mail of an invite. Of an imported
// invite that is not known, so any imported key opens it; the room knows which
// one it was told about.
func (i *Invites) opens(ctx context.Context, invite Invite, key signing.Key, now time.Time) (bool, error) {
	if invite.imported() {
		return i.opts.Store.ImportedKey(ctx, key.Public(), now)
	}
	return invite.Ephemeral.Equal(key.Public()), nil
}

// validToken reports whether s is what the specification lets a token be.
func validToken(s string) bool {
	return s != "" && len(s) <= maxIDBytes && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && !strings.ContainsRune(".=_-", r)
	})
}

// Sign signs, with the private key from the mail, that a user accepts an invite,
// and returns {mxid, sender, token, signatures} (Identity Service API, POST
// /sign-ed25519). It uses nothing up: the homeserver that the user brings it to
// may ask again. It returns the errors of Open, and ErrInvalidUser.
func (i *Invites) Sign(ctx context.Context, token, privateKey, userID string) (signed map[string]any, err error) {
	defer func() { i.opts.Metrics.accepted(err) }()
	invite, key, err := i.open(ctx, token, privateKey)
	if err != nil {
		return nil, err
	}
	if _, ok := serverOf(userID); !ok {
		return nil, ErrInvalidUser
	}
	signed = map[string]any{"mxid": userID, "sender": invite.Sender, "token": invite.Token}
	if err := signing.Sign(signed, i.opts.ServerName, key); err != nil {
		return nil, fmt.Errorf("accept an invite: %w", err)
	}
	return signed, nil
}

// serverOf returns the server of a user ID, and false for what is no user ID or
// cannot be stored.
func serverOf(userID string) (string, bool) {
	local, server, _ := strings.Cut(userID, ":")
	ok := strings.HasPrefix(local, "@") && server != "" && len(userID) <= maxIDBytes &&
		utf8.ValidString(userID) && !strings.ContainsRune(userID, 0)
	return server, ok
}

// KeyValid reports whether public is the ephemeral key of a live invite or an
// imported one, in any base64. A "+" that a query string turned into a space is understood.
func (i *Invites) KeyValid(ctx context.Context, public string) (bool, error) {
	key, err := signing.ParsePublicKey(strings.ReplaceAll(public, " ", "+"))
	if err != nil {
		return false, nil //nolint:nilerr // what is no key is nobody's
	}
	now := i.opts.Now()
	valid, err := i.opts.Store.LiveKey(ctx, key, now, now.Add(-UsedInviteLife))
	if err != nil {
		return false, fmt.Errorf("check an ephemeral key: %w", err)
	}
	return valid, nil
}

// Cancel removes an invite of the account's own user: its keys are no longer
// valid and no homeserver will be told. It returns ErrNoInvite.
func (i *Invites) Cancel(ctx context.Context, account, token string) error {
	if account == "" || !validToken(token) {
		return ErrNoInvite
	}
	err := i.opts.Store.DeleteInvite(ctx, token, account, Removal{At: i.opts.Now()})
	switch {
	case errors.Is(err, ErrNotFound):
		return ErrNoInvite
	case err != nil:
		return fmt.Errorf("cancel an invite: %w", err)
	}
	i.opts.Metrics.cancels.Inc()
	return nil
}

// Sweep removes all invites that are not live any more.
func (i *Invites) Sweep(ctx context.Context) error {
	now := i.opts.Now()
	for {
		n, err := i.opts.Store.SweepInvites(ctx, now, now.Add(-UsedInviteLife), sweepBatch)
		if err != nil {
			return fmt.Errorf("sweep invites: %w", err)
		}
		i.opts.Metrics.swept(n)
		if n == 0 {
			return nil
		}
	}
}

// Run sweeps at once and every hour until ctx is done, and then returns nil. A
// sweep that fails is logged and tried again.
func (i *Invites) Run(ctx context.Context) error {
	for {
		if err := i.Sweep(ctx); err != nil && ctx.Err() == nil {
			i.opts.Log.ErrorContext(ctx, "sweep of invites did not finish", "err", err)
		}
		if !wait(ctx, sweepInterval) {
			return nil
		}
	}
}
