package mxhttp

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
)

// Options say how an engine treats every request.
type Options struct {
	// Logger receives one line per request and the errors nobody classified.
	Logger *slog.Logger
	// Registerer, unless nil, receives the herald_http_* metrics.
	Registerer prometheus.Registerer
	// TrustedProxies are addresses and CIDR ranges whose X-Forwarded-For header
	// is believed. A Unix socket is always trusted: only a proxy reaches it.
	TrustedProxies []string
	// CORS lets web clients of any origin in and answers every OPTIONS request.
	CORS bool
	// Timeout, if positive, bounds the context of each request.
	Timeout time.Duration
	// BytesInFlight bounds the bytes that all requests hold at once, of their bodies
	// and of what is decoded of them; 0 means any number. A source, which is an address
	// or the /64 of one, may hold a quarter, unless it is in one of TrustedSources.
	BytesInFlight  int64
	TrustedSources []netip.Prefix
	// SlowestBody is how many bytes of a body must arrive in a second, after the first
	// two; 0 means any number.
	SlowestBody int64
	// Classify turns a domain error into the answer to it, or returns nil when
	// it does not know the error. It may be nil.
	Classify func(error) *Error
}

// edge is what the middleware of one engine needs.
type edge struct {
	log      *slog.Logger
	metrics  *metrics
	proxies  *proxyNotice
	cors     bool
	budget   *budget
	slowest  int64
	timeout  time.Duration
	cause    error
	classify func(error) *Error
}

// NewEngine returns a gin engine with the settings Matrix needs and one
// middleware for everything that concerns all requests. It puts gin, which has
// only one mode per process, into release mode. It fails when a trusted proxy is
// neither an address nor a range, or when the metrics are already registered.
func NewEngine(o Options) (*gin.Engine, error) {
	gin.SetMode(gin.ReleaseMode)
	engine := gin.New()
	engine.RedirectTrailingSlash = false // it answers a POST with 307
	engine.RedirectFixedPath = false
	engine.HandleMethodNotAllowed = true
	engine.RemoteIPHeaders = []string{"X-Forwarded-For"}
	if err := engine.SetTrustedProxies(o.TrustedProxies); err != nil {
		return nil, fmt.Errorf("trusted proxies: %w", err)
	}
	m := newMetrics()
	e := &edge{
		log:      o.Logger,
		metrics:  m,
		proxies:  newProxyNotice(o.Logger, o.TrustedProxies),
		cors:     o.CORS,
		budget:   newBudget(o, m),
		slowest:  o.SlowestBody,
		timeout:  o.Timeout,
		cause:    fmt.Errorf("the request's own time of %s is over: %w", o.Timeout, context.DeadlineExceeded),
		classify: o.Classify,
	}
	if err := m.register(o.Registerer, e.budget); err != nil {
		return nil, fmt.Errorf("register the HTTP metrics: %w", err)
	}
	engine.Use(e.handle)
	engine.NoRoute(func(c *gin.Context) { _ = c.Error(errNoRoute()) })
	engine.NoMethod(func(c *gin.Context) { e.noMethod(c, engine) })
	return engine, nil
}

// errNoRoute is the answer to a request that no route takes.
// https://spec.matrix.org/v1.19/identity-service-api/#api-standards
func errNoRoute() error {
	return &Error{Status: http.StatusNotFound, Code: codeUnrecognized, Msg: "Unrecognized request: there is no such endpoint"}
}

// noMethod answers HEAD like GET, without the body, which net/http leaves out, and
// refuses what no route takes.
func (e *edge) noMethod(c *gin.Context, engine *gin.Engine) {
	if header := c.Writer.Header(); c.Request.Method == http.MethodHead && strings.Contains(header.Get("Allow"), http.MethodGet) {
		header.Del("Allow")
		c.Request.Method = http.MethodGet
		engine.HandleContext(c)
		c.Request.Method = http.MethodHead
		return
	}
	_ = c.Error(ErrMethodNotAllowed())
}

// ErrMethodNotAllowed is the answer to a request with a method that its route
// does not take, or not now.
func ErrMethodNotAllowed() error {
	return &Error{
		Status: http.StatusMethodNotAllowed, Code: codeUnrecognized, Msg: "Unrecognized request: this endpoint does not take this method",
	}
}

// Wrap makes a gin handler of h. Path parameters are found with
// [http.Request.PathValue], and the route template in [http.Request.Pattern].
// An error of h is answered by the engine: see [Options.Classify]. After the
// response has been started it is only logged.
func Wrap(h func(w http.ResponseWriter, r *http.Request) error) gin.HandlerFunc {
	return func(c *gin.Context) {
		for _, p := range c.Params {
			c.Request.SetPathValue(p.Key, p.Value)
		}
		if err := h(c.Writer, c.Request); err != nil {
			_ = c.Error(err) // kept for edge.handle; the result is the same error
		}
	}
}

// handle is the middleware around every request, routed or not.
func (e *edge) handle(c *gin.Context) {
	if x := exchangeOf(c.Request.Context()); x != nil { // HEAD, by way of noMethod
		x.route, c.Request.Pattern = c.FullPath(), c.FullPath()
		e.next(c, x)
		return
	}
	x := newExchange(c)
	// otelhttp outside the engine reads the pattern from the request it passed in.
	c.Request.Pattern = c.FullPath()
	ctx := c.Request.Context()
	if e.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, e.timeout, e.cause)
		defer cancel()
	}
	x.Context = ctx
	c.Request = c.Request.WithContext(x)
	x.proxied = e.proxies.look(ctx, c.Request)
	e.countBody(c, x)
	e.metrics.inFlight.Inc()
	defer e.finish(c, x)

	c.Writer.Header()["X-Request-Id"] = x.id[:]
	if e.cors {
		setCORS(c.Writer.Header())
		if c.Request.Method == http.MethodOptions {
			c.Writer.Header().Del("Allow")
			c.Writer.Header().Set("Access-Control-Max-Age", maxAge)
			c.AbortWithStatus(http.StatusOK)
			return
		}
	}
	if strings.Contains(strings.ToLower(c.Request.URL.RawPath), "%2f") {
		// Its routes are those of another path, in which the slash separates.
		x.route = unmatched
		_ = c.Error(errNoRoute())
		c.Abort()
	}
	e.next(c, x)
}

// next has the request handled and answers its error.
func (e *edge) next(c *gin.Context, x *exchange) {
	c.Next()
	if last := c.Errors.Last(); last != nil {
		c.Errors = nil
		e.answer(c, x, last.Err)
	}
}

// maxAge is for how many seconds a browser need not ask again what it may send.
const maxAge = "86400"

// setCORS sets the headers that the specification wants on every answer.
// https://spec.matrix.org/v1.19/identity-service-api/#web-browser-clients
func setCORS(h http.Header) {
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Allow-Methods", "GET, POST, PUT, DELETE, OPTIONS")
	h.Set("Access-Control-Allow-Headers", "Origin, X-Requested-With, Content-Type, Accept, Authorization")
}
