package identity

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/matrix-herald/herald/identity/signing"
	"github.com/matrix-herald/herald/threepid"
)

// validFor is how long an association is valid: a hundred years of 365 days, as
// all identity servers have it. It ends earlier, by being looked up in vain.
const validFor = 100 * 365 * 24 * time.Hour

// Proof is a completed validation session.
type Proof struct {
	ID          threepid.ID
	ValidatedAt time.Time
	// OriginalSpelling is the address as its owner wrote it, "" if that is not known. It
	// only adds spellings of ID, never another address.
	OriginalSpelling string
}

// Proofs finds the proof that somebody owns an address. Its methods return
// threepid.ErrNoSession, also for a wrong client secret, threepid.ErrNotValidated or
// threepid.ErrSessionExpired.
type Proofs interface {
	// Validated finds it in a session that owner began. There is no other for it.
	Validated(ctx context.Context, owner, sid, clientSecret string) (Proof, error)
	// Proven finds it in a session of whomever.
	Proven(ctx context.Context, sid, clientSecret string) (Proof, error)
}

// DirectoryOptions configure a Directory. All but PlainLookup are required.
type DirectoryOptions struct {
	Store      DirectoryStore
	Peppers    *Peppers
	Keys       *Keyring
	Proofs     Proofs
	ServerName string // under which associations are signed
	// PlainLookup offers the algorithm "none", with which clients send addresses
	// in clear.
	PlainLookup bool
	Now         func() time.Time
	Metrics     *Metrics
}

// Directory binds third-party identifiers to users and looks them up.
type Directory struct {
	opts DirectoryOptions
}

// NewDirectory returns a Directory, or an error if an option is missing.
func NewDirectory(o DirectoryOptions) (*Directory, error) {
	if o.Store == nil || o.Peppers == nil || o.Keys == nil || o.Proofs == nil || o.ServerName == "" ||
		o.Now == nil || o.Metrics == nil {
		return nil, errors.New("identity: directory: an option is missing")
	}
	return &Directory{opts: o}, nil
}

// BindRequest asks to bind the identifier of a validation session.
type BindRequest struct {
	Account      string // the user whose access token was used
	UserID       string // the user to bind to
	Owner        string // who has to have begun the session
	SID          string
	ClientSecret string
}

// Association is a binding as it is told to others.
type Association struct {
	ID        threepid.ID
	UserID    string
	TS        time.Time // in whole milliseconds, as are the others
	NotBefore time.Time
	NotAfter  time.Time
	// Signed is the association as a JSON object with its signature (Identity
	// Service API, POST /3pid/bind).
	Signed map[string]any
}

// Bind binds the identifier that the session proves to the account's own user,
// in place of whoever it was bound to, and begins to tell the user's homeserver
// about it and about the invites that waited for it. It returns ErrNotYours for
// another user, and the errors of Proofs.
func (d *Directory) Bind(ctx context.Context, r BindRequest) (a Association, err error) {
	defer func() { d.opts.Metrics.bound(err) }()
	if r.Account == "" || r.UserID != r.Account {
		return Association{}, fmt.Errorf("bind: %w", ErrNotYours)
	}
	proof, err := d.opts.Proofs.Validated(ctx, r.Owner, r.SID, r.ClientSecret)
	if err != nil {
		return Association{}, fmt.Errorf("bind: %w", err)
	}
	b := Binding{ID: proof.ID, UserID: r.UserID, OriginalSpelling: given(proof), TS: d.opts.Now().Truncate(time.Millisecond)}
	a = b.association()
	// Signed before it is stored: what cannot be answered is not bound.
	if err := d.sign(ctx, &a); err != nil {
		return Association{}, fmt.Errorf("bind: %w", err)
	}
	if err := d.opts.Store.Bind(ctx, b); err != nil {
		return Association{}, fmt.Errorf("bind: %w", err)
	}
	return a, nil
}

// given returns the spelling of the proven address that the address alone does
// not tell, "" if there is none. Only what reads as the very same address
// counts.
func given(p Proof) string {
	if p.OriginalSpelling == "" {
		return ""
	}
	all, err := threepid.Spellings(string(p.ID.Medium), p.OriginalSpelling)
	if err != nil || all[0] != p.ID.Address {
		return ""
	}
	known, err := threepid.Spellings(string(p.ID.Medium), p.ID.Address)
	if err != nil {
		return ""
	}
	for _, s := range all {
		if !slices.Contains(known, s) {
			return s
		}
	}
	return ""
}

// sign fills in a.Signed.
func (d *Directory) sign(ctx context.Context, a *Association) error {
	key, err := d.opts.Keys.Active(ctx)
	if err != nil {
		return err
	}
	signed := a.object()
	if err := signing.Sign(signed, d.opts.ServerName, key); err != nil {
		return err
	}
	a.Signed = signed
	return nil
}

// association returns the binding as it is told to others, but for the
// signature.
func (b Binding) association() Association {
	return Association{ID: b.ID, UserID: b.UserID, TS: b.TS, NotBefore: b.TS, NotAfter: b.TS.Add(validFor)}
}

// object returns the members that are signed.
func (a Association) object() map[string]any {
	return map[string]any{
		"medium":     string(a.ID.Medium),
		"address":    a.ID.Address,
		"mxid":       a.UserID,
		"ts":         a.TS.UnixMilli(),
		"not_before": a.NotBefore.UnixMilli(),
		"not_after":  a.NotAfter.UnixMilli(),
	}
}

// UnbindRequest asks to remove a binding, with a validation session as proof
// that the address is the requester's (MSC1915).
type UnbindRequest struct {
	UserID       string // whose binding it is
	Medium       string
	Address      string // in any spelling
	SID          string
	ClientSecret string
}

// UnbindBySession removes the binding of an address to a user if the session
// proves that very address. An address that is not bound, or bound to another
// user, stays as it is, without an error. Every fault of the proof is ErrForbidden,
// also text that is not an address: the requester may be anybody, and may have lost
// the account that bound the address.
func (d *Directory) UnbindBySession(ctx context.Context, r UnbindRequest) (err error) {
	removed := false
	defer func() { d.opts.Metrics.unbound(removed, err) }()
	id, err := threepid.ParseAddress(r.Medium, r.Address)
	if err != nil {
		return fmt.Errorf("unbind: %w", ErrForbidden)
	}
	proof, err := d.opts.Proofs.Proven(ctx, r.SID, r.ClientSecret)
	switch {
	case errors.Is(err, threepid.ErrNoSession) || errors.Is(err, threepid.ErrNotValidated) || errors.Is(err, threepid.ErrSessionExpired):
		return fmt.Errorf("unbind: %w", ErrForbidden)
	case err != nil:
		return fmt.Errorf("unbind: %w", err)
	case proof.ID != id:
		return fmt.Errorf("unbind: %w", ErrForbidden)
	}
	if removed, err = d.opts.Store.Unbind(ctx, id, r.UserID, Removal{At: d.opts.Now()}); err != nil {
		return fmt.Errorf("unbind: %w", err)
	}
	return nil
}

// UnbindByHomeserver removes the binding of an address to a user of the
// homeserver that asks for it. An address that is bound to nobody or to another
// user, or is none, stays as it is, without an error. It returns ErrNotItsUser
// for another homeserver's user.
func (d *Directory) UnbindByHomeserver(ctx context.Context, origin, userID, medium, address string) (err error) {
	removed := false
	defer func() { d.opts.Metrics.unbound(removed, err) }()
	if server, ok := serverOf(userID); !ok || server != origin {
		return fmt.Errorf("unbind: %w", ErrNotItsUser)
	}
	id, err := threepid.ParseAddress(medium, address)
	if err != nil {
		return nil // nobody can have bound it
	}
	if removed, err = d.opts.Store.Unbind(ctx, id, userID, Removal{At: d.opts.Now()}); err != nil {
		return fmt.Errorf("unbind: %w", err)
	}
	return nil
}
