package push

import (
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// leastRinging is what must be left of a call for it to ring. Else it is an
	// ordinary notification, which can no longer be late.
	leastRinging = 2 * time.Second
	// maxRinging is the longest that a call rings.
	maxRinging = 2 * time.Minute
	// usualRinging is for calls that do not say how long they ring.
	usualRinging = time.Minute
	// maxClockSkew is how far a sender's clock may be off to be believed.
	maxClockSkew = 20 * time.Second
)

// Call is what a notification says of a call. The zero Call is none.
type Call struct {
	// RingsUntil is when it has rung. It is zero where nothing rings.
	RingsUntil time.Time
	// Video says that it is a call with pictures.
	Video bool
	// Quiet says that the event belongs to a call and shows nothing by itself, as
	// when somebody hangs up.
	Quiet bool
}

// Rings reports whether a phone rings.
func (c Call) Rings() bool { return !c.RingsUntil.IsZero() }

// Left returns how long the call still rings at now.
func (c Call) Left(now time.Time) time.Duration { return max(c.RingsUntil.Sub(now), 0) }

// Call returns what the notification says of a call. A call has come at now unless
// that was asked before for the same Common: another attempt does not make it ring
// longer.
func (d Delivery) Call(now time.Time) Call {
	if !d.Notification.isCall() {
		return Call{}
	}
	return Once(d.Common, func() Call { return newCall(d.Notification, now) })
}

// isCall reports whether n is about a call, as far as its type says.
func (n *Notification) isCall() bool {
	kind := n.Type.String()
	return strings.HasPrefix(kind, "m.call.") || strings.HasPrefix(kind, "org.matrix.msc4075.") || strings.Contains(kind, ".rtc.")
}

// newCall looks at an m.call.invite (Client-Server API, "Voice over IP"), or an
// m.rtc.notification of type ring (MSC4075), also by its former names, that came at
// now.
func newCall(n *Notification, now time.Time) Call {
	content, _ := n.Content.(map[string]any)
	application, _ := content["application"].(map[string]any)
	member := func(name string) any {
		if v, there := application[name]; there {
			return v
		}
		return content[name] // of m.call.invite, and of older clients
	}
	c := Call{Video: member("m.call.intent") == "video"}
	switch kind := n.Type.String(); kind {
	case "m.call.invite":
		offer, _ := content["offer"].(map[string]any)
		sdp, _ := offer["sdp"].(string)
		c.Video = strings.Contains(sdp, "m=video")
	case "m.rtc.notification", "org.matrix.msc4075.rtc.notification", "m.call.notify", "org.matrix.msc4075.call.notify":
		if member("notification_type") != "ring" && member("notify_type") != "ring" {
			return Call{}
		}
	default: // such as m.call.hangup and m.rtc.decline (MSC4310)
		return Call{Quiet: strings.HasPrefix(kind, "m.call.") || strings.HasSuffix(kind, ".rtc.decline")}
	}
	life := usualRinging
	if ms, ok := Number(member("lifetime")); ok {
		life = time.Duration(min(max(ms, 0), float64(maxRinging/time.Millisecond))) * time.Millisecond
	}
	c.RingsUntil = now.Add(life)
	if ms, ok := Number(member("sender_ts")); ok && ms > 0 && ms < 1<<53 {
		if sent := time.UnixMilli(int64(ms)); sent.Sub(now).Abs() <= maxClockSkew && sent.Before(now) {
			c.RingsUntil = sent.Add(life)
		}
	}
	if c.Left(now) < leastRinging {
		return Call{}
	}
	return c
}

// Number returns the value of a JSON number.
func Number(v any) (float64, bool) {
	n, ok := v.(json.Number)
	if !ok {
		return 0, false
	}
	f, err := n.Float64()
	return f, err == nil
}

// maxFailedCalls bounds failedCalls.
const maxFailedCalls = 1024

// failedCalls remembers when calls came first that could not be delivered:
// homeservers repeat them, for a day, and a call must not ring as if it had just
// begun. The zero value is empty.
type failedCalls struct {
	mu    sync.Mutex
	first map[string]time.Time // by the notification's digest
}

// since returns when a call came first that comes at now.
func (f *failedCalls) since(digest string, now time.Time) time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	if first, there := f.first[digest]; there {
		return first
	}
	return now
}

// add remembers a call that came at came if homeservers are to repeat it for a
// device that has had a push, and forgets another one where there are too many. A
// stranger must not make it forget: all others are made up at will.
func (f *failedCalls) add(n *Notification, came time.Time, all []*delivery) {
	if !n.isCall() || !slices.ContainsFunc(all, func(d *delivery) bool { return d.claimed.Accepted && d.outcome.Kind == Temporary }) {
		return
	}
	digest := n.digest()
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, there := f.first[digest]; there || digest == "" {
		return
	}
	if f.first == nil {
		f.first = make(map[string]time.Time)
	}
	for other := range f.first {
		if len(f.first) < maxFailedCalls {
			break
		}
		delete(f.first, other)
	}
	f.first[digest] = came
}
