// Package validation owns validation sessions: proving that a person reads what
// is sent to an address (Identity Service API, "Establishing associations"). It
// decides when a message is sent, which tokens are good, and what a session may
// be used for; it neither sends messages (Messenger), nor keeps sessions
// (Store), nor binds the address to anybody.
//
// A message is sent between a claim and its record. The claim gives one request
// the right to send an attempt and makes the new token good; the record makes
// the attempt the session's last and the old token void. A claim is a lease: if
// its process dies, another request may send the message once more.
package validation

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/big"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/threepid"
)

// MinCodeKey is the least length of Options.CodeKey in bytes.
const MinCodeKey = 32

const (
	// wrongToday is how many wrong guesses there may be at the short codes of one
	// address, in all sessions together, since the first of them and within today.
	// Then those codes are void, and new ones have longCode digits, which need no
	// counting: nobody can lock the owner of a number out. They are digits, because
	// some clients take nothing else.
	wrongToday = 10
	today      = 24 * time.Hour
	shortCode  = 6
	longCode   = 12
)

// recordTime bounds recording the outcome of a message, which happens even if
// the request it was sent for has ended.
const recordTime = 5 * time.Second

// Options says what Sessions works with. Store, Messengers, CodeKey, Log and
// Registerer are required.
type Options struct {
	Store      Store
	Messengers map[threepid.Medium]Messenger
	// CodeKey is the HMAC key under which tokens and client secrets are stored, at
	// least MinCodeKey bytes. It must not be in the database: a code of six digits
	// falls to a plain hash at once. Another key ends all sessions.
	CodeKey []byte
	// NextLinkHosts are the host names a next_link may lead to; none means any.
	NextLinkHosts []string

	// MaxTries is the number of wrong guesses after which a token is void; 10 if 0.
	MaxTries int
	// TokenLife is how long the code of an SMS works; 10 minutes if 0. The token of
	// a mail works as long as its session.
	TokenLife time.Duration
	// SessionLife is how long a session lasts after it was begun or validated; 24
	// hours if 0.
	SessionLife time.Duration
	// Lease is how long a claim protects a message that is being sent; one minute
	// if 0. Sending is cut after three quarters of it.
	Lease time.Duration

	Now        func() time.Time // time.Now if nil
	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// Sessions answers requests for tokens and checks the tokens that come back.
type Sessions struct {
	opts    Options
	metrics *metrics
}

// New returns Sessions that work with opts, or an error that says what is wrong
// with opts.
func New(opts Options) (*Sessions, error) {
	opts.MaxTries = cmp.Or(opts.MaxTries, 10)
	opts.TokenLife = cmp.Or(opts.TokenLife, 10*time.Minute)
	opts.SessionLife = cmp.Or(opts.SessionLife, 24*time.Hour)
	opts.Lease = cmp.Or(opts.Lease, time.Minute)
	if opts.Now == nil {
		opts.Now = time.Now
	}
	switch {
	case opts.Store == nil || len(opts.Messengers) == 0 || opts.Log == nil || opts.Registerer == nil:
		return nil, errors.New("validation: store, messengers, log and registerer are required")
	case len(opts.CodeKey) < MinCodeKey:
		return nil, fmt.Errorf("validation: the code key has %d bytes, %d are needed", len(opts.CodeKey), MinCodeKey)
	case opts.MaxTries < 0 || opts.TokenLife < 0 || opts.SessionLife < 0 || opts.Lease < 0:
		return nil, errors.New("validation: limits must be above 0")
	}
	return &Sessions{opts: opts, metrics: newMetrics(opts.Registerer, opts.Messengers)}, nil
}

// Submit proves a session with the token that was sent to its address and
// returns it. A right token may be submitted again: ValidatedAt stays the same, and
// there is no NextLink, so that a session of one's own sends nobody else there.
// Submit returns ErrInvalidSID, ErrInvalidSecret, threepid.ErrNoSession (also for a session of
// another medium), threepid.ErrSessionExpired or ErrTokenIncorrect, which is ErrSpent if another guess is in vain.
func (s *Sessions) Submit(ctx context.Context, medium threepid.Medium, sid, clientSecret, token string) (Session, error) {
	if err := checkSession(sid, clientSecret); err != nil {
		return Session{}, err
	}
	now := s.opts.Now()
	record, verdict, err := s.opts.Store.GuessCode(ctx, Guess{
		SID: sid, Medium: medium, Secret: s.hash("secret", clientSecret), Code: s.hash("code", clientSecret, token),
		MaxTries: s.opts.MaxTries, Short: medium == threepid.MediumMSISDN && len(token) < longCode, MaxToday: wrongToday, Since: now.Add(-today),
		Now: now, SessionExpires: now.Add(s.opts.SessionLife),
	})
	if err != nil {
		return Session{}, err
	}
	s.metrics.guess(medium, verdict)
	proven := session(sid, record)
	switch verdict {
	case Right:
		return proven, nil
	case Repeated:
		proven.Again, proven.NextLink = true, ""
		return proven, nil
	case Spent:
		return Session{}, ErrSpent
	default:
		return Session{}, ErrTokenIncorrect
	}
}

// Validated returns a session of owner that was validated and has not expired. It
// returns ErrInvalidSID, ErrInvalidSecret, threepid.ErrNoSession, also for a session of
// somebody else, threepid.ErrSessionExpired or threepid.ErrNotValidated.
func (s *Sessions) Validated(ctx context.Context, owner, sid, clientSecret string) (Session, error) {
	return s.validated(ctx, sid, clientSecret, func(by string) bool { return by == owner })
}

// Proven is Validated for a session of whomever.
func (s *Sessions) Proven(ctx context.Context, sid, clientSecret string) (Session, error) {
	return s.validated(ctx, sid, clientSecret, func(string) bool { return true })
}

func (s *Sessions) validated(ctx context.Context, sid, clientSecret string, mayBeOf func(owner string) bool) (Session, error) {
	if err := checkSession(sid, clientSecret); err != nil {
		return Session{}, err
	}
	record, err := s.opts.Store.FindSession(ctx, sid, s.hash("secret", clientSecret), s.opts.Now())
	if err != nil {
		return Session{}, err
	}
	switch {
	case !mayBeOf(record.Owner):
		return Session{}, threepid.ErrNoSession
	case record.Validated.IsZero():
		return Session{}, threepid.ErrNotValidated
	}
	return session(sid, record), nil
}

func checkSession(sid, clientSecret string) error {
	return cmp.Or(CheckSID(sid), CheckClientSecret(clientSecret))
}

func session(sid string, r Record) Session {
	s := Session{SID: sid, ID: r.ID, Owner: r.Owner, OriginalSpelling: r.OriginalSpelling, ValidatedAt: r.Validated}
	if r.NextLink != "" {
		s.NextLink = withSID(r.NextLink, sid)
	}
	return s
}

// hash is what the database sees of a secret. Comparing hashes needs no constant
// time: without the key nobody can choose how they begin.
//
// The hash of a code covers the client_secret as well, so that equal codes of
// two sessions do not look equal. A part never holds a zero byte where another
// follows, so no two lists of parts are written alike.
func (s *Sessions) hash(parts ...string) Hash {
	mac := hmac.New(sha256.New, s.opts.CodeKey)
	for _, p := range parts {
		mac.Write([]byte(p))
		mac.Write([]byte{0})
	}
	return Hash(mac.Sum(nil))
}

// newToken returns a token for an address and how long it works. People type the
// code of a text message, so it is short, unless somebody guesses at them.
func (s *Sessions) newToken(ctx context.Context, id threepid.ID) (string, time.Duration, error) {
	if id.Medium != threepid.MediumMSISDN {
		return rand.Text(), s.opts.SessionLife, nil
	}
	wrong, err := s.opts.Store.WrongGuesses(ctx, id, s.opts.Now().Add(-today))
	if err != nil {
		return "", 0, fmt.Errorf("count wrong guesses: %w", err)
	}
	digits := shortCode
	if wrong >= wrongToday {
		digits = longCode
	}
	n, err := rand.Int(rand.Reader, big.NewInt(int64(math.Pow10(digits))))
	if err != nil {
		return "", 0, fmt.Errorf("draw a code: %w", err)
	}
	return fmt.Sprintf("%0*d", digits, n), s.opts.TokenLife, nil
}
