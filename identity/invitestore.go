package identity

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"time"

	"github.com/matrix-herald/herald/threepid"
)

// Invite is somebody's invitation of an address to a room, which whoever binds
// the address is told about.
type Invite struct {
	Token   string // what the room knows it by
	Address threepid.ID
	RoomID  string
	Sender  string // the user who invites
	About   InviteDetails
	// KeyID names the signing key of ours that the room was told about.
	KeyID string
	// Ephemeral is the public half of the key in the mail, the other one that the
	// room was told about.
	Ephemeral ed25519.PublicKey
	Created   time.Time // in whole milliseconds, as is Expires
	Expires   time.Time
}

// Space reports whether the room is said to be a space (MSC3288).
func (i Invite) Space() bool { return i.About.RoomType == "m.space" }

// ImportedEphemeral returns what stands for the ephemeral key of an invite that
// another identity server mailed, whose own key is not known. Nobody has a
// private half of it.
func ImportedEphemeral(token string) ed25519.PublicKey {
	sum := sha256.Sum256([]byte(token))
	return sum[:]
}

// imported reports whether another identity server mailed the invite.
func (i Invite) imported() bool { return i.Ephemeral.Equal(ImportedEphemeral(i.Token)) }

// InviteKey is the public half of a key that another identity server mailed with
// an invite.
type InviteKey struct {
	Public  ed25519.PublicKey
	Expires time.Time
}

// Imported says what came of rows of another identity server that a store was
// given. The others were there already.
type Imported struct {
	New     int // or newer than what was there
	Removed int // left out, because they were removed here
	Bound   int // left out, because their addresses are bound
}

// InviteDetails are what the sender said about an invite. Each may be empty, and
// none is verified.
type InviteDetails struct {
	RoomName   string
	RoomType   string
	RoomAvatar string // an mxc URI
	SenderName string
	Client     string // the client to accept it with, one of those on offer
}

// InviteState is where an invite is in its life.
type InviteState string

// The states of an invite. A removed one has none.
const (
	InviteWaiting    InviteState = "waiting"    // nobody has bound the address
	InviteDelivering InviteState = "delivering" // a homeserver is being told
	InviteFailed     InviteState = "failed"     // a homeserver refused it for good
	InviteStranded   InviteState = "stranded"   // unbound before a homeserver was told
	InviteUsed       InviteState = "used"       // a homeserver was told
	// InviteExpired is what the others but InviteUsed become once the invite has
	// expired; AllInvites knows it, a store does not.
	InviteExpired InviteState = "expired"
)

// InviteRecord is an Invite with what became of it.
type InviteRecord struct {
	Invite

	ID      int64 // positive, rising
	State   InviteState
	TakenBy string // the user who bound the address, "" while it is waiting
	Failure string // why it failed, "" unless it did
}

// InviteStore keeps invites. It changes them only while it lets nobody else
// change bindings: an invite is added either before its address is bound, and
// then DirectoryStore.Bind meets it, or not at all.
//
// An invite is live until it expires, and if a homeserver has been told about
// it, as long as that happened after usedSince.
type InviteStore interface {
	// AddInvite adds an invite, and its keys are valid from then on. It returns
	// an *InUseError if the address is bound.
	AddInvite(ctx context.Context, i Invite) error
	// BoundTo returns whom an address is bound to, or ErrNotFound.
	BoundTo(ctx context.Context, id threepid.ID) (userID string, err error)
	// LiveInvite returns the live invite with a token, or ErrNotFound.
	LiveInvite(ctx context.Context, token string, now, usedSince time.Time) (Invite, error)
	// LiveKey reports whether a key is the ephemeral one of a live invite, or an
	// imported one.
	LiveKey(ctx context.Context, key ed25519.PublicKey, now, usedSince time.Time) (bool, error)
	// ImportedKey reports whether a key was imported and has not expired.
	ImportedKey(ctx context.Context, key ed25519.PublicKey, now time.Time) (bool, error)
	// DeleteInvite removes an invite of sender, "" for anybody's, and keeps it
	// from being delivered. It returns ErrNotFound.
	DeleteInvite(ctx context.Context, token, sender string, by Removal) error
	// Invites returns up to limit invites with an ID above after, by their IDs.
	Invites(ctx context.Context, after int64, limit int) ([]InviteRecord, error)
	// SweepInvites removes up to limit invites that are not live, up to limit
	// deliveries that nobody will make any more, and up to limit imported keys
	// that expired. It returns how many rows went.
	SweepInvites(ctx context.Context, now, usedSince time.Time, limit int) (int, error)
}

// Delivery is a homeserver to be told that an address of one of its users was
// bound, with one of the invites that the binding took.
type Delivery struct {
	ID      int64
	Claim   string // of whom is making it
	Attempt int    // 1 for the first
	// Binding is the one to tell about; what it does not tell others is empty.
	Binding Binding
	// Until is when it is not worth while any more.
	Until time.Time
	// Invite is the invite, nil if the binding took none, and InviteID what operators
	// know it by.
	Invite   *Invite
	InviteID int64
}

// DeliveryResult is what came of an attempt.
type DeliveryResult struct {
	Delivery

	Told    bool      // the homeserver knows
	Refused string    // why it will not hear of it, "" unless it said so
	Due     time.Time // when to try again, if neither
}

// DeliveryStore keeps the deliveries that DirectoryStore.Bind begins.
type DeliveryStore interface {
	// ClaimDeliveries hands what is due to one homeserver, the one that has waited
	// longest, to the claim, an unused name, until the lease ends. A homeserver is
	// one claim's at a time, so that one which hangs holds up only itself. It gets
	// one delivery, or up to most if it took everything that it was told last.
	ClaimDeliveries(ctx context.Context, claim string, now, lease time.Time, most int) ([]Delivery, error)
	// SettleDeliveries writes down what came of all that a claim was handed for one
	// homeserver, which may be claimed again then. A delivery that was told ends,
	// and its invite is used, whoever has claimed the homeserver since. A refused one
	// ends, with the reason kept with its invite, and any other becomes due again, if
	// the claim is still its own.
	SettleDeliveries(ctx context.Context, results []DeliveryResult, now time.Time) error
}
