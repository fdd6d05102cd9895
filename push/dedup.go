package push

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"hash/crc32"
	"regexp"
	"strconv"
	"time"
)

// Dedup keeps an event from reaching a device twice. It also remembers dead
// pushkeys, and whether an app's push service is believed when it calls pushkeys
// dead. Its implementations are in package dedup. It always answers, and it is safe
// for concurrent use.
type Dedup interface {
	// Claim asks for the right to send to each device of a request, before any
	// push service is asked. The answers are in the order of the claims. A granted
	// claim must be given to Complete, or it lasts until the end of its lease.
	Claim(ctx context.Context, claims []Claim) []Claimed
	// Complete records the results of granted claims, and returns the guard of each
	// one's app as it is now, in their order.
	Complete(ctx context.Context, results []Result) []Guard
}

// Key stands for something without telling what it is: the first 16 bytes of a
// SHA-256.
type Key [16]byte

// keyOf returns the key of parts. Different lists of parts have different keys.
func keyOf(parts ...string) Key {
	text := make([]byte, 0, 512)
	for _, p := range parts {
		text = append(binary.BigEndian.AppendUint32(text, uint32(len(p))), p...)
	}
	sum := sha256.Sum256(text)
	return Key(sum[:16])
}

// Claim is the wish to send a notification to a device.
type Claim struct {
	// Event stands for the notification at this device. The zero Key is one
	// that may be repeated, and is always Granted.
	Event Key
	// Owner names the request. It is not zero.
	Owner uint64
	// Lease is how long the claim holds if its end is never recorded.
	Lease time.Duration
	// PushKey stands for the pushkey, and what else addresses the device, at its
	// app with its provider's settings; App for the app with these settings. Under
	// the zero Key no verdict counts for a guard.
	PushKey, App Key
}

// ClaimState is how far a notification has come at a device.
type ClaimState uint8

const (
	// Granted: nobody has it; it is the asking request's now.
	Granted ClaimState = iota
	// InFlight: another request has it.
	InFlight
	// Delivered: the push service has taken it.
	Delivered
)

// Claimed is the answer to a Claim.
type Claimed struct {
	State ClaimState
	// Counts is the digest of the counts that were delivered, if it is Delivered.
	Counts uint32
	// Accepted says that the push service once accepted a push for the pushkey. A
	// stranger cannot make up such a pushkey.
	Accepted bool
	// Dead says that the pushkey was called dead since its last accepted push. Only
	// the first time counts. Rejected says that this is believed; PushKeyTS is the
	// pushkey_ts that it had, in seconds.
	Dead, Rejected bool
	PushKeyTS      int64
	// Guard says whether the app's push service is believed.
	Guard Guard
	// Shared says that the claim is known to all processes, not to this one alone.
	Shared bool
}

// Guard says whether an app's push service is believed when it calls pushkeys dead.
// Pushkeys that have had an accepted push are counted apart from all others, which
// anybody can make up.
type Guard struct {
	// Proven: it has accepted a push with the current settings.
	Proven bool
	// Tripped: it calls so many pushkeys of this kind dead that it is not believed.
	Tripped bool
	// Trips counts how often the guard tripped. Older rejections are forgotten.
	Trips uint32
}

// Verdict is what a push service said about a pushkey.
type Verdict uint8

const (
	// NoVerdict: nothing, or it was not asked.
	NoVerdict Verdict = iota
	// Alive: it accepted a push.
	Alive
	// Dead: it said that the pushkey is no longer, or not, one of the app's.
	Dead
)

// Result is what became of a Claim.
type Result struct {
	Claim
	Claimed

	// Sent says that the device has the notification, now or from before, with
	// counts of the digest SentCounts.
	Sent       bool
	SentCounts uint32
	Verdict    Verdict
	// Reject says that the homeserver is told that the pushkey is dead; with
	// RejectedTS, its pushkey_ts in seconds, that is remembered.
	Reject     bool
	RejectedTS int64
}

// identity tells devices of one request apart. Two accounts on one phone share
// app_id and pushkey; their data differs, and both must get the notification. So
// do their tweaks count: nobody can have an event count as shown by sending it
// without its sound.
type identity struct {
	appID, pushKey, data string
	tweaks               Tweaks
}

func (d *Device) identity() identity {
	id := identity{appID: d.AppID, pushKey: d.PushKey, tweaks: d.Tweaks}
	if len(d.Data) > 0 {
		// What was decoded from JSON cannot fail.
		data, _ := EncodeJSON(d.Data)
		id.data = string(data)
	}
	return id
}

// event is the key of the notification of a digest at the device, the zero Key
// without a digest.
func (id *identity) event(digest string) Key {
	if digest == "" {
		return Key{}
	}
	return keyOf(digest, id.appID, id.pushKey, id.data, id.tweaks.Sound, strconv.FormatBool(id.tweaks.Highlight))
}

// digest stands for n without its counts, "" for what may be repeated: what has
// no event, or an id that no room version makes. Apps test their pushes with
// constant ids.
func (n *Notification) digest() string {
	if !eventID.MatchString(n.EventID.String()) {
		return ""
	}
	// What was decoded from JSON cannot fail.
	text, _ := EncodeJSON([]any{
		n.EventID.Value(), n.Type.Value(), n.RoomID.Value(), n.RoomName.Value(), n.RoomAlias.Value(), n.Sender.Value(),
		n.SenderDisplayName.Value(), n.Membership.Value(), n.UserIsTarget, n.Low, n.Content, n.Further,
	})
	sum := sha256.Sum256(text)
	return string(sum[:])
}

// eventID is the form of an event id: "$" and 43 characters of base64, or with the
// name of a server (Room Versions 1 to 4).
var eventID = regexp.MustCompile(`^\$([A-Za-z0-9+/_-]{43}|[^:]*:.*)$`)

// digest stands for the counts; that of unknown ones is 0.
func (c Counts) digest() uint32 {
	if !c.Known() {
		return 0
	}
	var text []byte
	for _, count := range []*int64{c.Unread, c.MissedCalls} {
		if count != nil {
			text = strconv.AppendInt(text, *count, 10)
		}
		text = append(text, '/')
	}
	return crc32.ChecksumIEEE(text)
}
