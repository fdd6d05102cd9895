package homeserver

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/internal/ratelimit"
)

// purpose is what an exchange is for. Each has places of its own, so that one
// kind of request, which anybody may make, does not hold up another.
type purpose int

const (
	forUserInfo purpose = iota // a registration
	forKeys                    // a signed request
	forOnBind                  // a delivery
)

const (
	// maxKnown is how many sites are remembered to have answered, and knownFor how
	// long.
	maxKnown = 4096
	knownFor = 7 * 24 * time.Hour
	// maxFailures is after how many failures in a row a site is as if it had never
	// answered.
	maxFailures = 3
)

// places bound the exchanges that run at once, so that servers that never answer
// do not keep those away that do. Of the places for a purpose, the servers that have
// not answered lately have half together, and those of one registered domain, or at
// one address, an eighth. Of the others one domain or address has a quarter.
type places struct {
	size int // for each purpose
	now  func() time.Time

	mu    sync.Mutex
	held  map[holder]int
	known cache[int] // sites that answered, with their failures since
}

// holder holds places for a purpose. It is all servers together, the strangers among
// them, a site, or an address.
type holder struct {
	purpose purpose
	kind    byte
	name    string
}

func newPlaces(size int, now func() time.Time) *places {
	return &places{size: size, now: now, held: make(map[holder]int), known: newCache[int](maxKnown)}
}

// place is the right to make one exchange. It ends with leave.
type place struct {
	places  *places
	purpose purpose
	site    string
	known   bool

	held []holder // guarded by places.mu, as is left
	left bool
}

// take returns a place for an exchange with server, or identity.ErrBusy.
func (p *places) take(purpose purpose, server ServerName) (*place, error) {
	at := &place{places: p, purpose: purpose, site: ratelimit.Site(server.name)}
	p.mu.Lock()
	defer p.mu.Unlock()
	_, at.known = p.known.get(at.site, p.now())
	if !at.hold('t', "", p.size) || !at.known && !at.hold('s', "", p.size/2) || !at.hold('d', at.site, at.share()) {
		at.release()
		return nil, identity.ErrBusy
	}
	return at, nil
}

// share is what one domain or address may have.
func (at *place) share() int {
	if at.known {
		return at.places.size / 4
	}
	return at.places.size / 8
}

// hold makes a holder hold one place more, unless it has as many as it may.
func (at *place) hold(kind byte, name string, limit int) bool {
	h := holder{at.purpose, kind, name}
	if at.places.held[h] >= max(limit, 1) {
		return false
	}
	at.places.held[h]++
	at.held = append(at.held, h)
	return true
}

func (at *place) release() {
	for _, h := range at.held {
		if at.places.held[h]--; at.places.held[h] == 0 {
			delete(at.places.held, h)
		}
	}
	at.held, at.left = nil, true
}

// leave gives the place back. answered says whether there was an answer; nil is for
// an exchange that says nothing about the server.
func (at *place) leave(answered *bool) {
	p := at.places
	p.mu.Lock()
	defer p.mu.Unlock()
	at.release()
	if answered == nil {
		return
	}
	now := p.now()
	failures, known := p.known.get(at.site, now)
	switch {
	case *answered:
		p.known.put(at.site, 0, now.Add(knownFor), now)
	case known && failures+1 < maxFailures:
		p.known.put(at.site, failures+1, now.Add(knownFor), now)
	case known:
		p.known.put(at.site, 0, now, now) // forgotten
	}
}

// placeKey is that of the place among the values of an exchange's context.
type placeKey struct{}

func (at *place) context(ctx context.Context) context.Context {
	return context.WithValue(ctx, placeKey{}, at)
}

// connecting has the place of ctx hold the address that is about to be connected
// to. It returns identity.ErrBusy where too many exchanges are there already.
func connecting(ctx context.Context, addr netip.Addr) error {
	at, ok := ctx.Value(placeKey{}).(*place)
	if !ok {
		return nil
	}
	name, _ := ratelimit.Source(addr, nil)
	at.places.mu.Lock()
	defer at.places.mu.Unlock()
	for _, h := range at.held {
		if h.kind == 'a' && h.name == name {
			return nil
		}
	}
	if at.left || !at.hold('a', name, at.share()) {
		return identity.ErrBusy
	}
	return nil
}
