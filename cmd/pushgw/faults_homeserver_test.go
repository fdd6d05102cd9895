package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// A homeserver's waits between two posts of an event: a second in Synapse,
// doubled up to an hour, is 20 ms here, doubled up to half a second.
const (
	firstWait   = 20 * time.Millisecond
	longestWait = 500 * time.Millisecond
)

// homeserver posts events as Synapse does: for each pusher one after the other,
// each again and again until it is answered with 200, each time at the next
// replica. It gives a pusher up when it is rejected.
//
// Beyond that it posts some events a second time, as after a crash of its own,
// and hangs up on some posts before the answer.
type homeserver struct {
	fleet *fleet
	lots  *lots
}

// oddity is what is special about how an event is posted.
type oddity int

const (
	plain     oddity = iota
	twice            // at two replicas at once
	repeated         // again after it was answered
	abandoned        // hung up on once
)

func (e *event) oddity() oddity {
	return pick(e.lot>>16, []oddity{plain, plain, plain, plain, plain, twice, repeated, abandoned})
}

// load posts events for pushers until stop is closed and all are answered for.
func (h *homeserver) load(ctx context.Context, pushers []*pusher, stop <-chan struct{}) {
	var posting sync.WaitGroup
	for _, p := range pushers {
		posting.Go(func() {
			for h.next(ctx, p, stop) {
				h.deliver(ctx, h.fleet.account.add(p, h.lots.draw()))
			}
		})
	}
	posting.Wait()
}

// next reports whether there is to be another event for a pusher.
func (h *homeserver) next(ctx context.Context, p *pusher, stop <-chan struct{}) bool {
	select {
	case <-stop:
		return false
	case <-ctx.Done():
		return false
	default:
	}
	h.fleet.account.mu.Lock()
	defer h.fleet.account.mu.Unlock()
	return !p.given
}

// deliver posts an event as often as it takes.
func (h *homeserver) deliver(ctx context.Context, e *event) {
	var other sync.WaitGroup
	if e.oddity() == twice {
		other.Go(func() { h.persist(ctx, e, 1) })
	}
	h.persist(ctx, e, 0)
	other.Wait()
	if e.oddity() == repeated {
		h.persist(ctx, e, 1)
	}
}

// persist posts an event until it is answered for, first at that replica.
func (h *homeserver) persist(ctx context.Context, e *event, first int) {
	h.fleet.account.post(e, 1)
	defer h.fleet.account.post(e, -1)
	pause := firstWait
	for try := range 1 << 20 {
		r := h.fleet.replicas[(first+try+int(e.lot))%len(h.fleet.replicas)]
		within, hangUp := context.WithCancel(ctx)
		if try == 0 && e.oddity() == abandoned {
			// The replica goes on with it, for as long as the event is not ended.
			defer r.begin(e)()
			time.AfterFunc(serviceLatency/2, hangUp)
		}
		rejected, err := h.post(within, r, e)
		hangUp()
		if err == nil {
			h.fleet.account.end(e, rejected)
			return
		}
		h.fleet.account.fail()
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		pause = min(2*pause, longestWait)
	}
}

var errNotNotified = errors.New("the answer is not 200")

// post posts an event to a replica and returns whether its pusher is rejected.
func (h *homeserver) post(ctx context.Context, r *replica, e *event) (rejected bool, err error) {
	defer r.begin(e)()
	body := fmt.Sprintf(`{"notification":{"content":{"body":"Ground control","msgtype":"m.text"},"counts":{"unread":2},`+
		`"devices":[{"app_id":%q,"data":%s,"pushkey":%q,"pushkey_ts":%d,"tweaks":{"sound":"default"}}],"event_id":%q,"id":%q,"prio":"high",`+
		`"room_id":"!slw48:example.org","sender":"@major:example.org","type":"m.room.message"}}`, e.pusher.app, e.pusher.data, e.pusher.pushKey, pushKeyTS, e.id, e.id)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://pushgw/_matrix/push/v1/notify", strings.NewReader(body))
	if err != nil {
		return false, err
	}
	res, err := r.client.Do(req)
	if err != nil {
		return false, err
	}
	defer res.Body.Close()
	var answer struct{ Rejected []string }
	text, err := io.ReadAll(res.Body)
	switch {
	case err != nil:
		return false, err
	case res.StatusCode != http.StatusOK:
		return false, errNotNotified
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		return false, err
	}
	return len(answer.Rejected) == 1 && answer.Rejected[0] == e.pusher.pushKey, nil
}
