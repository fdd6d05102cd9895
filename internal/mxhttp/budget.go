package mxhttp

import (
	"log/slog"
	"math"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// retryFull is when to come back to a service that holds all it may.
	retryFull = 5 * time.Second
	// warnEvery is the time between two lines about refused requests.
	warnEvery = time.Minute
)

// Why a body is not read to its end, as the metrics have it.
const (
	refusedSource = "source" // its source holds all that one may
	refusedTotal  = "total"  // the budget is used up
	refusedSlow   = "slow"   // it arrives too slowly
)

// budget bounds the bytes that the requests of an engine hold at once: of their
// bodies as far as they have arrived, and of what is decoded of them.
//
// One source, which is an address or the /64 of one, holds at most a quarter, and
// at most half of what the other sources leave, so that neither one nor a few keep
// everybody else out. Trusted sources are exempt: a homeserver next door speaks for
// all of its users. Where there are some, the others leave them a quarter. Whoever
// has no address, behind a Unix socket, counts as trusted.
type budget struct {
	most, share int64
	trusted     []netip.Prefix
	log         *slog.Logger
	refused     *prometheus.CounterVec

	mu        sync.Mutex
	held      int64
	strangers int64                  // of held
	sources   map[netip.Prefix]int64 // of strangers
	warned    time.Time
}

func newBudget(o Options, m *metrics) *budget {
	b := &budget{
		most: o.BytesInFlight, trusted: o.TrustedSources, log: o.Logger, refused: m.refused,
		sources: make(map[netip.Prefix]int64),
	}
	if b.most == 0 {
		b.most = math.MaxInt64
	}
	b.share = b.most / 4
	return b
}

// source returns what stands for the client at addr in acquire and release: its
// network, or the zero Prefix for a trusted source. A proxy that hides its clients
// is none, wherever it is.
func (b *budget) source(addr netip.Addr, proxied bool) netip.Prefix {
	if !addr.IsValid() || !proxied && slices.ContainsFunc(b.trusted, func(p netip.Prefix) bool { return p.Contains(addr) }) {
		return netip.Prefix{}
	}
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	network, _ := addr.Prefix(bits) // which fails for other numbers of bits only
	return network
}

// acquire adds n bytes to what a source holds. It returns the answer to the request
// that they belong to, and adds nothing, when they are too many.
func (b *budget) acquire(source netip.Prefix, n int64) *Error {
	b.mu.Lock()
	defer b.mu.Unlock()
	stranger := source.IsValid()
	mine := b.sources[source]
	switch {
	case stranger && mine+n > min(b.share, (b.most-b.held+mine)/2):
		return b.refuse(refusedSource, codeLimited, "Too many bytes of requests from this address are in flight; try again later")
	case b.held+n > b.most, stranger && len(b.trusted) > 0 && b.strangers+n > b.most-b.share:
		return b.refuse(refusedTotal, codeUnknown, "Too many bytes of requests are in flight; try again later")
	}
	b.held += n
	if stranger {
		b.strangers += n
		b.sources[source] = mine + n
	}
	return nil
}

// refuse counts a refusal, and says so in the log once in a while. The caller holds
// b.mu.
func (b *budget) refuse(reason, code, msg string) *Error {
	b.refused.WithLabelValues(reason).Inc()
	if now := time.Now(); now.Sub(b.warned) >= warnEvery {
		b.warned = now
		b.log.Warn("requests are refused, because as many bytes are in flight as may be", "bound", reason, "bytes_in_flight", b.held)
	}
	return &Error{Status: http.StatusServiceUnavailable, Code: code, Msg: msg, RetryAfter: retryFull}
}

// release gives n bytes of a source back.
func (b *budget) release(source netip.Prefix, n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held -= n
	if !source.IsValid() {
		return
	}
	b.strangers -= n
	if b.sources[source] -= n; b.sources[source] <= 0 {
		delete(b.sources, source)
	}
}

// inFlight returns how many bytes are held.
func (b *budget) inFlight() float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return float64(b.held)
}
