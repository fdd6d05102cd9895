package validation

import (
	"context"
	"crypto/sha256"
	"time"

	"github.com/matrix-herald/herald/threepid"
)

// Hash is what is stored of a client_secret, or of a token: HMAC-SHA-256 under
// a key that is not in the database.
type Hash [sha256.Size]byte

// Messenger sends a token to an address of one medium. It returns once the
// message was accepted for delivery. Its errors wrap threepid.ErrSend,
// threepid.ErrDestinationRejected or threepid.ErrBusy; it must end soon after
// ctx does.
type Messenger interface {
	Send(ctx context.Context, c threepid.Challenge) error
}

// Store keeps sessions. Every method that changes something is one conditional
// statement or one transaction: several processes may call all of them at the
// same moment. Times come from the caller and are kept in milliseconds.
//
// A session has at most one live row per (medium, address, client_secret, owner). It
// holds up to two codes: the current one, which was sent, and the claim's, which
// is being sent. A retired row is an expired session of which nothing is left
// but that it expired.
type Store interface {
	// ClaimSession takes the right to send c.Attempt for a session: it retires the
	// session of the same key if that has expired, begins one with c.SID if there
	// is none, and puts the claim on it if c.Attempt is above the recorded attempt
	// and no other claim is in force. Otherwise it changes nothing and tells what
	// is in the way.
	ClaimSession(ctx context.Context, c Claim) (ClaimResult, error)
	// SendProgress tells how far sending has come for a session. It returns
	// threepid.ErrNoSession if there is none.
	SendProgress(ctx context.Context, sid string) (Progress, error)
	// PromoteSession records that the message of a claim was sent: its attempt,
	// spelling and next_link become the session's, its code replaces the current
	// one. It reports false and changes nothing if the claim is no longer there.
	PromoteSession(ctx context.Context, sid, claimID string) (bool, error)
	// ReleaseSession undoes a claim whose message was not sent, and with it the
	// session if no message ever was. It reports false and changes nothing if the
	// claim is no longer there.
	ReleaseSession(ctx context.Context, sid, claimID string) (bool, error)
	// GuessCode compares one code with those of a session that may still be
	// guessed at, counts a wrong one against each of them, and marks the session
	// validated by a right one. A right code of a claim also promotes the claim:
	// whoever knows it has read the message. GuessCode returns threepid.ErrNoSession or
	// threepid.ErrSessionExpired, comparing nothing. A short guess counts against its address, in all
	// sessions together, before it is compared, so that simultaneous ones are no more
	// than allowed.
	GuessCode(ctx context.Context, g Guess) (Record, Verdict, error)
	// WrongGuesses returns how many short guesses at an address were wrong, if the
	// first of them was after since.
	WrongGuesses(ctx context.Context, id threepid.ID, since time.Time) (int, error)
	// FindSession returns the session with this sid and client_secret, threepid.ErrNoSession
	// or, if it has expired at now, threepid.ErrSessionExpired.
	FindSession(ctx context.Context, sid string, secret Hash, now time.Time) (Record, error)
	// RetireSessions retires up to limit sessions that expired at or before a
	// time, and returns how many.
	RetireSessions(ctx context.Context, expired time.Time, limit int) (int, error)
	// DeleteSessions deletes up to limit retired sessions that expired at or
	// before a time, and returns how many.
	DeleteSessions(ctx context.Context, expired time.Time, limit int) (int, error)
	// ForgetGuesses forgets the wrong guesses at up to limit addresses whose first
	// was at or before a time, and returns of how many.
	ForgetGuesses(ctx context.Context, before time.Time, limit int) (int, error)
}

// Claim asks for the right to send one message.
type Claim struct {
	ID    string // unique; later calls prove with it that the claim is still theirs
	Until time.Time

	Key            Key
	SID            string    // of the session, should there be none yet
	SessionExpires time.Time // of the session, should there be none yet

	Attempt                    int64
	OriginalSpelling, NextLink string
	Code                       Hash
	CodeExpires                time.Time

	Now time.Time
}

// Key is what makes two requests belong to one session.
type Key struct {
	ID     threepid.ID
	Secret Hash
	Owner  string
}

// ClaimResult is what became of a claim.
type ClaimResult struct {
	SID string
	// Won says that the claim is in force and its message is to be sent.
	Won bool
	// Created says that the session began with this claim, and Replaced that an
	// expired one was retired for it.
	Created, Replaced bool
	// Expires is when the session ends, and no code works any more, if the claim
	// was won.
	Expires time.Time
	// Progress is that of the session when the claim was not won.
	Progress Progress
}

// Progress tells how far sending has come for a session.
type Progress struct {
	// Sent says that a message was sent, and Attempt which one was the last.
	Sent    bool
	Attempt int64

	// ClaimID is that of the claim in force or lapsed; empty if there is none.
	ClaimID      string
	ClaimAttempt int64
	ClaimUntil   time.Time
}

// Guess is one code to compare with those of a session.
type Guess struct {
	SID      string
	Medium   threepid.Medium
	Secret   Hash
	Code     Hash
	MaxTries int // wrong guesses after which a code is void
	// Short says that the guess is as short as codes that can be guessed. Only
	// such guesses are counted. After MaxToday wrong ones at one address, the first
	// of them after Since, no more are compared.
	Short    bool
	MaxToday int
	Since    time.Time

	Now            time.Time
	SessionExpires time.Time // of the session if the guess validates it
}

// Record is what a session knows to tell.
type Record struct {
	ID                         threepid.ID
	Owner                      string
	OriginalSpelling, NextLink string
	Validated                  time.Time // the zero Time if it is not
}

// Verdict is the outcome of a guess.
type Verdict int

// The verdicts.
const (
	// Spent: no code of the session may be guessed at any more, or none of its
	// address; nothing was compared.
	Spent Verdict = iota
	// Wrong: the code was compared and the guess counted.
	Wrong
	// Right: the code validated the session.
	Right
	// Repeated: the code had validated the session before; nothing changed.
	Repeated
)
