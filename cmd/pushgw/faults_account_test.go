package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/matrix-herald/herald/push/pushtest"
)

// event is a notification for one device, and what has become of it.
type event struct {
	id     string
	pusher *pusher
	lot    uint32 // decides what is special about it

	arrivals int  // at the push services
	accepted int  // by them
	refused  bool // by them, for what it says
	posts    int  // that a homeserver has not ended yet
	ended    bool // answered with 200
	killed   bool // it was in flight at a replica that was killed
	exempt   bool // it was on its way while replicas did not share their memory
}

// pusher is a device that a homeserver posts events for.
type pusher struct {
	app, pushKey string
	data         string // JSON
	dead         bool   // the push services say so
	given        bool   // up by the homeserver
}

// pushKeyTS is when all pushers were registered, in seconds.
const pushKeyTS = 1795294577

// reply is what a push service does with a push.
type reply struct {
	takes   bool // it delivers the push, whatever it answers
	refuses bool // it will never deliver it
	apns    pushtest.APNsAnswer
	fcm     pushtest.FCMAnswer
	web     pushtest.FCMAnswer // of Web Push, and of UnifiedPush
	hms     pushtest.FCMAnswer // of Push Kit; what happens to a connection is as with FCM
}

// account keeps what was posted and what the push services have accepted. Its
// lock guards the events and pushers too.
type account struct {
	mu      sync.Mutex
	events  map[string]*event
	round   []*event
	answer  func(*event) reply // for living devices; nil takes all
	apart   bool               // replicas do not share their memory now
	ended   int                // events
	failed  int                // posts that were not answered with 200
	changed chan struct{}      // closed and replaced with each end and failure
	strays  int                // pushes of no event
}

func newAccount() *account {
	return &account{events: make(map[string]*event), changed: make(chan struct{})}
}

// begin begins a round, in which push services answer as answer says.
func (a *account) begin(answer func(*event) reply) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.round, a.answer = nil, answer
}

// add makes an event.
func (a *account) add(p *pusher, lot uint32) *event {
	a.mu.Lock()
	defer a.mu.Unlock()
	e := &event{id: fmt.Sprintf("$%d:example.org", len(a.events)), pusher: p, lot: lot, exempt: a.apart}
	a.events[e.id] = e
	a.round = append(a.round, e)
	return e
}

// signal tells who waits, with mu held.
func (a *account) signal() {
	close(a.changed)
	a.changed = make(chan struct{})
}

// end notes that an event was answered for, and whether the pusher was given up.
func (a *account) end(e *event, rejected bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	e.ended = true
	e.pusher.given = e.pusher.given || rejected
	a.ended++
	a.signal()
}

// fail notes that a post failed.
func (a *account) fail() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.failed++
	a.signal()
}

// await waits until reached, which is called with mu held, says so.
func (a *account) await(ctx context.Context, reached func() bool) error {
	for {
		a.mu.Lock()
		done, changed := reached(), a.changed
		a.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// part says that replicas do not share their memory from now on, or that they
// do. What is on its way at any time between may arrive twice.
func (a *account) part(apart bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.apart = apart
	for _, e := range a.round {
		e.exempt = e.exempt || e.posts > 0
	}
}

// post notes that a homeserver begins or ends a post.
func (a *account) post(e *event, n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	e.posts += n
	e.exempt = e.exempt || a.apart
}

// kill notes what was in flight at a replica that was killed.
func (a *account) kill(inFlight []*event) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range inFlight {
		e.killed = true
	}
}

// arrive decides about a push.
func (a *account) arrive(id string) reply {
	a.mu.Lock()
	defer a.mu.Unlock()
	e := a.events[id]
	if e == nil {
		a.strays++
		return reply{}
	}
	e.arrivals++
	r := reply{takes: true}
	switch {
	case e.pusher.dead:
		r = death(e.lot)
	case a.answer != nil:
		r = a.answer(e)
	}
	if r.takes {
		e.accepted++
	}
	e.refused = e.refused || r.refuses
	r.apns.Delay = time.Duration(e.lot>>8%64) * serviceLatency / 64
	r.fcm.Delay, r.web.Delay, r.hms.Delay = r.apns.Delay, r.apns.Delay, r.apns.Delay
	r.hms.Cut, r.hms.Hang, r.hms.GoAway = r.fcm.Cut, r.fcm.Hang, r.fcm.GoAway
	return r
}

// apns is the Answer of a fake APNs.
func (a *account) apns(r pushtest.APNsRequest) pushtest.APNsAnswer {
	var payload struct {
		EventID string `json:"event_id"`
	}
	_ = json.Unmarshal(r.Body, &payload) // what is no JSON is of no event
	return a.arrive(payload.EventID).apns
}

// fcm is the Answer of a fake FCM.
func (a *account) fcm(r pushtest.FCMRequest) pushtest.FCMAnswer {
	return a.arrive(r.Message.Data["event_id"]).fcm
}

// web is the answer of a fake Web Push service, which is a push server of UnifiedPush
// as well: that gets a notification as a homeserver posts it.
func (a *account) web(r pushtest.WebPushRequest) pushtest.FCMAnswer {
	var payload struct {
		EventID      string `json:"event_id"`
		Notification struct {
			EventID string `json:"event_id"`
		} `json:"notification"`
	}
	_ = json.Unmarshal([]byte(cmp.Or(r.Text, string(r.Body))), &payload) // what is no JSON is of no event
	return a.arrive(cmp.Or(payload.EventID, payload.Notification.EventID)).web
}

// hms is the answer of a fake Push Kit.
func (a *account) hms(r pushtest.HMSRequest) pushtest.FCMAnswer {
	var data map[string]string
	_ = json.Unmarshal([]byte(r.Message.Message.Data), &data) // what is no JSON is of no event
	return a.arrive(data["event_id"]).hms
}

// death is how push services call a device dead.
func death(lot uint32) reply {
	r := pick(lot, []reply{
		{apns: pushtest.APNsAnswer{Status: 410, Reason: "Unregistered", Timestamp: (pushKeyTS + 1) * 1000}, fcm: pushtest.FCMError(404, "NOT_FOUND", "UNREGISTERED", "gone"), web: pushtest.FCMAnswer{Status: 404}},
		{apns: pushtest.APNsAnswer{Status: 410, Reason: "ExpiredToken"}, fcm: pushtest.FCMBadToken(), web: pushtest.FCMAnswer{Status: 410}},
		{apns: pushtest.APNsAnswer{Status: 400, Reason: "BadDeviceToken"}, fcm: pushtest.FCMError(403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH", "another sender"), web: pushtest.FCMAnswer{Status: 410}},
		{apns: pushtest.APNsAnswer{Status: 400, Reason: "DeviceTokenNotForTopic"}, fcm: pushtest.FCMBadField("message.token"), web: pushtest.FCMAnswer{Status: 404}},
	})
	r.hms = pushtest.HMSCode("80300007", "All the tokens are invalid")
	return r
}

func pick[T any](lot uint32, of []T) T { return of[lot%uint32(len(of))] }

// row is what one fault has led to.
type row struct {
	fault      string
	sent       int // events
	accepted   int // by the push services, duplicates included
	duplicates int
	uncertain  int // attempts
	inFlight   int // events, at kill -9
	exempt     int // duplicates beyond those: replicas did not share their memory
	refused    int // events, by the push services
	rejected   int // pushers, rightly
	lost       int // events
	wrongly    int // pushers that were given up and live
	alone      int // requests that did without Redis, but not because of the fault
	// unexplained is by how many the duplicates exceed what may be.
	unexplained int
}

// close counts a round up. Of the duplicates of events that were in flight at
// a kill -9, one each is explained, and one of those that were on their way while
// replicas did not share their memory: each still knows what it did itself.
// alone are requests at other times that did without Redis, as on a machine that
// stood still; they explain one duplicate each.
func (a *account) close(fault string, uncertain, alone int) row {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := row{fault: fault, sent: len(a.round), uncertain: uncertain, alone: alone}
	left := 0
	given := make(map[*pusher]bool)
	for _, e := range a.round {
		again := max(0, e.accepted-1)
		r.accepted += e.accepted
		r.duplicates += again
		if e.killed {
			r.inFlight++
			again = max(0, again-1)
		}
		if e.exempt && again > 0 {
			r.exempt++
			again--
		}
		left += again
		switch p := e.pusher; {
		case p.given && !given[p]:
			given[p] = true
			if p.dead {
				r.rejected++
			} else {
				r.wrongly++
			}
		case p.given:
		case e.refused && e.accepted == 0:
			r.refused++
		case !e.ended || e.accepted == 0 || p.dead:
			r.lost++
		}
	}
	left = max(0, left-uncertain)
	r.exempt += min(left, alone)
	r.unexplained = max(0, left-alone)
	return r
}

// plus adds up two rows of one fault.
func (r row) plus(o row) row {
	return row{
		r.fault, r.sent + o.sent, r.accepted + o.accepted, r.duplicates + o.duplicates, r.uncertain + o.uncertain, r.inFlight + o.inFlight,
		r.exempt + o.exempt, r.refused + o.refused, r.rejected + o.rejected, r.lost + o.lost, r.wrongly + o.wrongly,
		r.alone + o.alone, r.unexplained + o.unexplained,
	}
}

// table prints rows as docs/reliability.md has them.
func table(rows []row) string {
	var text strings.Builder
	text.WriteString("| fault | sent | accepted | duplicates | uncertain | in flight at kill -9 | exempt | refused | rejected | lost | wrongly rejected |\n")
	text.WriteString("|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, r := range rows {
		fmt.Fprintf(&text, "| %s | %d | %d | %d | %d | %d | %d | %d | %d | %d | %d |\n", r.fault,
			r.sent, r.accepted, r.duplicates, r.uncertain, r.inFlight, r.exempt, r.refused, r.rejected, r.lost, r.wrongly)
	}
	return text.String()
}

// lots draws numbers that a seed determines.
type lots struct {
	mu  sync.Mutex
	rng *rand.Rand
}

func (l *lots) draw() uint32 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rng.Uint32()
}
