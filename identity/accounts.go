package identity

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
)

const (
	// DefaultIdleLife is how long an access token lives without being used.
	DefaultIdleLife = 180 * 24 * time.Hour
	// touchInterval is how exactly the last use of a token is known. A write for
	// every request would cost more than the request.
	touchInterval = 24 * time.Hour
	// touchTimeout is how long noting the use of one token may take, and
	// maxTouches how many may wait for it: those beyond it are noted when they are
	// used again.
	touchTimeout  = 5 * time.Second
	maxTouches    = 1000
	sweepInterval = time.Hour
	sweepBatch    = 1000
)

// OpenID exchanges an OpenID token for the user it belongs to, at the user's
// homeserver (Server-Server API, "OpenID"). It returns ErrInvalidServerName,
// ErrOpenIDRefused, ErrOpenIDMismatch, ErrUnreachable or ErrBusy, wrapped or
// not, and nothing that holds the token.
type OpenID interface {
	UserInfo(ctx context.Context, serverName, token string) (userID string, err error)
}

// Account is who an access token belongs to.
type Account struct {
	UserID string
}

// AccountsOptions configure Accounts. All fields but IdleLife are required.
type AccountsOptions struct {
	Store    AccountStore
	OpenID   OpenID
	IdleLife time.Duration // 0 is DefaultIdleLife
	Now      func() time.Time
	Log      *slog.Logger
	Metrics  *Metrics
}

// Accounts registers users and knows them again by their access tokens.
type Accounts struct {
	opts AccountsOptions

	mu      sync.Mutex
	touched map[Digest]time.Time // uses to be noted
	touch   chan struct{}        // tells Run that there are some
}

// NewAccounts returns Accounts, or an error if an option is missing.
func NewAccounts(o AccountsOptions) (*Accounts, error) {
	if o.Store == nil || o.OpenID == nil || o.Now == nil || o.Log == nil || o.Metrics == nil || o.IdleLife < 0 {
		return nil, errors.New("identity: accounts: an option is missing or negative")
	}
	if o.IdleLife == 0 {
		o.IdleLife = DefaultIdleLife
	}
	return &Accounts{opts: o, touched: make(map[Digest]time.Time), touch: make(chan struct{}, 1)}, nil
}

// Register makes a new access token for the user to whom their homeserver
// issued an OpenID token. Tokens made earlier stay valid. It returns the errors
// of OpenID.
func (a *Accounts) Register(ctx context.Context, serverName, openIDToken string) (token string, err error) {
	defer func() { a.opts.Metrics.registered(err) }()
	userID, err := a.opts.OpenID.UserInfo(ctx, serverName, openIDToken)
	if err != nil {
		return "", fmt.Errorf("register: %w", err)
	}
	// A server that answered for others' users could take over any account here
	// (Server-Server API, "OpenID"), so this does not rest on the client alone.
	local, server, _ := strings.Cut(userID, ":")
	if !strings.HasPrefix(local, "@") || server == "" || server != serverName {
		return "", fmt.Errorf("register: %w", ErrOpenIDMismatch)
	}
	token = rand.Text() + rand.Text()
	if err := a.opts.Store.AddToken(ctx, sha256.Sum256([]byte(token)), userID, a.opts.Now()); err != nil {
		return "", fmt.Errorf("register: %w", err)
	}
	return token, nil
}

// Account returns whose token it is, and lets Run keep the token alive: the
// request does not wait for the write, and does not fail with it. It returns
// ErrUnauthorized for a token that is not valid, "" included.
func (a *Accounts) Account(ctx context.Context, token string) (Account, error) {
	if token == "" {
		return Account{}, ErrUnauthorized
	}
	hash, now := sha256.Sum256([]byte(token)), a.opts.Now()
	userID, used, err := a.opts.Store.Token(ctx, hash, now.Add(-a.opts.IdleLife))
	if errors.Is(err, ErrNotFound) {
		return Account{}, ErrUnauthorized
	}
	if err != nil {
		return Account{}, fmt.Errorf("account of a token: %w", err)
	}
	if now.Sub(used) >= touchInterval {
		a.used(hash, now)
	}
	return Account{UserID: userID}, nil
}

// used has Run note the use of a token.
func (a *Accounts) used(token Digest, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.touched) >= maxTouches {
		return
	}
	a.touched[token] = now
	select {
	case a.touch <- struct{}{}:
	default:
	}
}

// noteUses writes down the uses there are. The first that fails ends it: what is
// wrong with one is wrong with all of them, and a token that goes on being used
// comes again.
func (a *Accounts) noteUses(ctx context.Context) error {
	a.mu.Lock()
	touched := a.touched
	a.touched = make(map[Digest]time.Time)
	a.mu.Unlock()
	for token, now := range touched {
		ctx, cancel := context.WithTimeout(ctx, touchTimeout)
		err := a.opts.Store.TouchToken(ctx, token, now)
		cancel()
		if err != nil {
			return fmt.Errorf("note the use of tokens: %w", err)
		}
	}
	return nil
}

// Logout makes one token invalid and leaves the user's others. It returns
// ErrUnauthorized for "" and ErrUnknownToken for a token that is not valid.
func (a *Accounts) Logout(ctx context.Context, token string) error {
	if token == "" {
		return ErrUnauthorized
	}
	now := a.opts.Now()
	err := a.opts.Store.DeleteToken(ctx, sha256.Sum256([]byte(token)), now.Add(-a.opts.IdleLife), Removal{At: now})
	if errors.Is(err, ErrNotFound) {
		return ErrUnknownToken
	}
	if err != nil {
		return fmt.Errorf("log out: %w", err)
	}
	return nil
}

// Sweep removes all tokens that have expired, and the accepted terms of users
// of whom nothing else is left.
func (a *Accounts) Sweep(ctx context.Context) error {
	idleSince := a.opts.Now().Add(-a.opts.IdleLife)
	for {
		n, err := a.opts.Store.SweepAccounts(ctx, idleSince, sweepBatch)
		if err != nil {
			return fmt.Errorf("sweep accounts: %w", err)
		}
		a.opts.Metrics.swept(n)
		if n == 0 {
			return nil
		}
	}
}

// Run notes which tokens are used, and sweeps at once and every hour, until ctx
// is done, and then returns nil. What fails is logged and tried again.
func (a *Accounts) Run(ctx context.Context) error {
	hourly := time.NewTicker(sweepInterval)
	defer hourly.Stop()
	sweep := func() {
		if err := a.Sweep(ctx); err != nil && ctx.Err() == nil {
			a.opts.Log.ErrorContext(ctx, "sweep of accounts did not finish", "err", err)
		}
	}
	sweep()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hourly.C:
			sweep()
		case <-a.touch:
			if err := a.noteUses(ctx); err != nil && ctx.Err() == nil {
				a.opts.Log.WarnContext(ctx, "the use of tokens was not noted", "err", err)
			}
		}
	}
}

// wait waits for d and reports false if ctx was done before.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
