package mxhttp

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/gin-gonic/gin"
)

// unmatched stands for the route of a request that no route takes.
const unmatched = "unmatched"

// exchange is what is known about one request. It is the context of that
// request, which saves a context.WithValue, and travels no further.
type exchange struct {
	context.Context

	id     [1]string // an array, to serve as header value without allocating
	method string
	route  string
	client netip.Addr
	start  time.Time
	// proxied is whether client is a proxy that hides its clients.
	proxied bool

	// What the request holds of the budget, and the answer if it may hold no more.
	budget  *budget
	source  netip.Prefix
	body    *body // nil without one
	held    int64
	decoded int64       // and not held yet
	header  http.Header // of the answer over HTTP/1, where it says that the connection closes
	refusal *Error

	mu    sync.Mutex
	attrs []slog.Attr
	level slog.Level // of the line in the log
}

// exchangeKey is the context key of the exchange.
type exchangeKey struct{}

// exchangeOf returns the exchange that ctx belongs to, or nil.
func exchangeOf(ctx context.Context) *exchange {
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	return x
}

// Value returns the exchange itself for its own key.
func (x *exchange) Value(key any) any {
	if key == (exchangeKey{}) {
		return x
	}
	return x.Context.Value(key)
}

// newExchange describes the request of c. Its Context is still to be set.
func newExchange(c *gin.Context) *exchange {
	x := &exchange{
		method: methodLabel(c.Request.Method),
		route:  c.FullPath(),
		start:  time.Now(),
	}
	if x.route == "" {
		x.route = unmatched
	}
	// An address that does not parse, as behind a Unix socket without a proxy's
	// header, stays the zero Addr.
	if addr, err := netip.ParseAddr(c.ClientIP()); err == nil {
		x.client = addr.Unmap()
	}
	x.id[0] = c.Request.Header.Get("X-Request-Id")
	if !wellFormedID(x.id[0]) {
		x.id[0] = rand.Text()
	}
	return x
}

// wellFormedID reports whether a caller's request id may stand in logs.
func wellFormedID(id string) bool {
	if id == "" || len(id) > 64 {
		return false
	}
	for _, c := range []byte(id) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '.':
		default:
			return false
		}
	}
	return true
}

func (x *exchange) add(attrs ...slog.Attr) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.attrs = append(x.attrs, attrs...)
}

// failed adds what a fault of ours was, which makes the line in the log an error.
func (x *exchange) failed(attrs ...slog.Attr) {
	x.add(attrs...)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.level = slog.LevelError
}

// AddLogAttrs adds attrs to the access log line of the request that ctx belongs
// to. It does nothing for other contexts, and is safe for concurrent use.
func AddLogAttrs(ctx context.Context, attrs ...slog.Attr) {
	if x := exchangeOf(ctx); x != nil {
		x.add(attrs...)
	}
}

// RequestID returns the id of the request that ctx belongs to, or "".
func RequestID(ctx context.Context) string {
	if x := exchangeOf(ctx); x != nil {
		return x.id[0]
	}
	return ""
}

// Proxied reports whether [ClientAddr] is the address of a proxy that
// [Options.TrustedProxies] does not name, and so stands for anybody.
func Proxied(ctx context.Context) bool {
	x := exchangeOf(ctx)
	return x != nil && x.proxied
}

// ClientAddr returns the address of the client whose request ctx belongs to, as
// seen by the outermost trusted proxy. It is the zero Addr when that is unknown,
// as on a Unix socket without a proxy's header.
func ClientAddr(ctx context.Context) netip.Addr {
	if x := exchangeOf(ctx); x != nil {
		return x.client
	}
	return netip.Addr{}
}
